"""Random autoreset modes, resets, recorders and switches: every file holds just the true rows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gym_worlds import Lived, Tiny
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from long_runs import LONG

from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.data import open_rollouts
from mjlab_rec.recorders import (
    CsvRecorderCfg,
    Hdf5RecorderCfg,
    NpzRecorderCfg,
    at_episodes,
    every_n_steps,
)

_FORMATS = {"h5": Hdf5RecorderCfg, "npz": NpzRecorderCfg, "csv": CsvRecorderCfg}
_STEPS = st.integers(0, 24)


@dataclass
class Plan:
    """A rollout and its recorder."""

    mode: AutoresetMode
    envs: int
    seed: int
    resets: dict[int, tuple[bool, ...]]  # before a step: which environments are reset by hand
    switches: dict[int, str]  # before a step: "pause" or "start"
    added: int  # the step before which the recorder is added; 0: it is there from the beginning
    every: int
    trigger: tuple[str, Any] | None
    block: int
    kind: str
    chosen: tuple[int, ...]  # recorded environments
    most: int | None  # max_episodes
    max_steps: int | None
    steps: int = 25


@st.composite
def plans(draw: Any) -> Plan:
    envs = draw(st.integers(1, 3))
    masks = st.tuples(*[st.booleans()] * envs).filter(any)
    some = st.sets(st.integers(0, envs - 1), min_size=1).map(lambda s: tuple(sorted(s)))
    trigger = st.one_of(
        st.none(),
        st.tuples(st.just("episodes"), st.sets(st.integers(0, 4), min_size=1)),
        st.tuples(st.just("steps"), st.tuples(st.integers(1, 7), st.integers(1, 5))),
    )
    most = draw(st.one_of(st.none(), st.integers(1, 4)))
    return Plan(
        mode=draw(st.sampled_from(list(AutoresetMode))),
        envs=envs,
        seed=draw(st.integers(0, 1000)),
        # With max_episodes the order of ends counts; a reset between two steps has no place in it.
        resets={} if most else draw(st.dictionaries(_STEPS, masks, max_size=2)),
        switches=draw(st.dictionaries(_STEPS, st.sampled_from(["pause", "start"]), max_size=3)),
        added=draw(st.one_of(st.just(0), _STEPS)),
        every=draw(st.sampled_from([1, 1, 2, 3])),
        trigger=draw(trigger),
        block=draw(st.integers(1, 9)),
        kind=draw(st.sampled_from([*_FORMATS])),
        chosen=draw(some),
        most=most,
        max_steps=draw(st.one_of(st.none(), st.integers(1, 12))),
    )


def cfg_of(plan: Plan, path: Path) -> Any:
    kind, value = plan.trigger or ("", None)
    length = None
    trigger = None
    if kind == "episodes":
        trigger = at_episodes(*sorted(value))
    elif kind == "steps":
        trigger, length = every_n_steps(value[0]), value[1]
    return _FORMATS[plan.kind](
        path=str(path),
        envs=plan.chosen,
        every=plan.every,
        trigger=trigger,
        length=length,
        block_steps=plan.block,
        max_episodes=plan.most,
        max_steps=plan.max_steps,
    )


def action(plan: Plan, t: int) -> np.ndarray:
    return np.random.default_rng((plan.seed, t)).uniform(-1, 1, (plan.envs, 1)).astype("f4")


def record(plan: Plan, path: Path) -> None:
    """Let RecordVector record it."""
    inner = SyncVectorEnv([Tiny] * plan.envs, autoreset_mode=plan.mode, copy=bool(plan.seed % 2))
    cfg = cfg_of(plan, path)
    with RecordVector(inner, {} if plan.added else {"rows": cfg}) as envs:
        term = None if plan.added else envs.recorder_manager.get_term("rows")
        envs.reset(seed=plan.seed)
        for t in range(plan.steps):
            if t in plan.resets:
                envs.reset(options={"reset_mask": np.array(plan.resets[t])})
            if plan.added and t == plan.added:
                term = envs.start_recording(cfg)
            if t in plan.switches and term is not None:
                getattr(term, plan.switches[t])()
            _, _, terminated, truncated, _ = envs.step(action(plan, t))
            over = terminated | truncated
            if plan.mode is AutoresetMode.DISABLED and over.any():
                envs.reset(options={"reset_mask": over})


def truth(plan: Plan) -> dict[tuple[int, int], Any]:
    """The episodes that have recorded rows: those rows, and the facts of the whole episode."""
    lives = [Lived(Tiny, plan.seed + i) for i in range(plan.envs)]
    on, steps_left = True, plan.max_steps
    chosen: dict[tuple[int, int], list[int]] = {}  # episode -> its steps that have rows
    ended: dict[tuple[int, int], int] = {}
    number = [0] * plan.envs
    for t in range(plan.steps):
        for i, life in enumerate(lives):
            if plan.mode is not AutoresetMode.NEXT_STEP and life.over:
                life.reset()
            if plan.resets.get(t, [False] * plan.envs)[i]:
                life.reset()
            number[i] = sum(bool(episode) for episode in life.episodes[:-1])
        if t >= plan.added and t in plan.switches:
            on = plan.switches[t] == "start"
        rows = []
        for i, life in enumerate(lives):
            if life.over:
                life.reset()  # This step only resets.
                continue
            step = len(life.episodes[-1])
            life.step(action(plan, t)[i], t)
            if life.over:
                ended[i, number[i]] = t
            kind, value = plan.trigger or ("", None)
            fits = kind != "episodes" or number[i] in value
            if kind == "steps":
                # The trigger of a recorder begins with it.
                begun = [k for k in range(0, t + 1, value[0]) if k >= plan.added]
                fits = any(t < k + value[1] for k in begun)
            if on and t >= plan.added and t % plan.every == 0 and i in plan.chosen and fits:
                rows.append((i, number[i], step))
        if rows and steps_left != 0:
            steps_left = None if steps_left is None else steps_left - 1
            for i, episode, step in rows:
                chosen.setdefault((i, episode), []).append(step)
    found = {}
    for i, life in enumerate(lives):
        episodes = [episode for episode in life.episodes if episode]
        for n, rows in enumerate(episodes):
            if (i, n) in chosen:
                found[i, n] = rows, chosen[i, n], (i, n) in ended
    order = sorted(found, key=lambda key: (ended.get(key, plan.steps), key[0], key[1]))
    return {key: found[key] for key in order[: plan.most]}


@settings(
    max_examples=600 if LONG else 20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(plans())
def test_every_file_holds_just_the_true_rows(plan):
    expected = truth(plan)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{plan.kind}" if plan.kind != "npz" else Path(folder) / "a"
        record(plan, path)
        with open_rollouts(str(path)) as rollouts:
            assert rollouts.verify() == []
            table = rollouts.episodes
            got = table.select("env", "number").rows()
            assert got == sorted(expected)
            for index, key in enumerate(got):
                rows, steps, over = expected[key]
                facts, arrays = table.row(index, named=True), rollouts[index]
                assert arrays["step"].tolist() == steps
                assert facts["start"] == rows[steps[0]]["t"]
                assert facts["rows"] == len(steps)
                if not plan.most and plan.max_steps is None:
                    assert facts["length"] == len(rows)
                    assert facts["terminated"] == rows[-1]["terminated"]
                    assert facts["truncated"] == rows[-1]["truncated"]
                    assert facts["cut"] != over
                    wants = set(range(len(rows)))
                    every = {s for s in wants if rows[s]["t"] % plan.every == 0}
                    if plan.every == 1:
                        assert facts["partial"] == (set(steps) != every)
                for name in ("obs/actor", "next_obs/actor", "action", "reward"):
                    want = np.array([rows[step][name] for step in steps])
                    np.testing.assert_array_equal(arrays[name], want, name)
