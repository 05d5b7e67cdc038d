"""Recorders in an environment like mjlab's: true rows, and a rollout that they do not change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from mjlab_fake import Cfg, FakeMjlabEnv
from mjlab_fake import mjlab as mjlab

from mjlab_rec.adapters.mjlab import for_mjlab
from mjlab_rec.commands.data import info
from mjlab_rec.data import describe, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders import (
    Channel,
    CsvRecorderCfg,
    EpisodeLogRecorderCfg,
    FlightRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
    VideoRecorderCfg,
    at_steps,
)
from mjlab_rec.replay.recorded_model import RecordedModel

STEPS = 40
CHANNELS = (
    *("obs", "action", "reward", "terminated", "truncated", "next_obs", "state"),
    *("command", "reward_terms", "ctrl", "processed_action", "sensor", "termination_terms"),
)
NOISE = 0.1


@dataclass
class Row:
    env: int
    obs: dict[str, np.ndarray]
    state: np.ndarray
    goal: np.ndarray
    action: np.ndarray
    reward: float
    terms: np.ndarray
    terminated: bool
    truncated: bool
    final: np.ndarray | None = None
    """The final observation of the policy if the episode ended, without noise."""
    next: dict[str, np.ndarray] = field(default_factory=dict)


class LoggedEnv(FakeMjlabEnv):
    """Notes every row by itself, from copies of the state, and final observations from MuJoCo."""

    def __init__(self, cfg: Cfg) -> None:
        super().__init__(cfg)
        self.episodes: list[list[list[Row]]] = [[[]] for _ in range(cfg.num_envs)]
        self._finals: dict[int, np.ndarray] = {}
        self._stepping = False

    def step(self, action: torch.Tensor) -> tuple[Any, ...]:
        before = self._snapshot()
        self._finals, self._stepping = {}, True
        result = super().step(action)
        self._stepping = False
        for i in range(self.num_envs):
            row = Row(
                env=i,
                **{name: value[i] for name, value in before.items() if name != "obs"},
                obs={g: v[i].numpy().copy() for g, v in before["obs"].items()},
                action=action[i].numpy().copy(),
                reward=float(self.reward_buf[i]),
                terms=self.reward_manager._step_reward[i].numpy().copy() * self.step_dt,
                terminated=bool(self.reset_terminated[i]),
                truncated=bool(self.reset_time_outs[i]),
                final=self._finals.get(i),
                next={g: v[i].numpy().copy() for g, v in self.obs_buf.items()},
            )
            self.episodes[i][-1].append(row)
            if row.final is not None:
                self.episodes[i].append([])
        return result

    def cut(self, env_ids: list[int]) -> None:
        for i in env_ids:
            if self.episodes[i][-1]:
                self.episodes[i].append([])

    def _snapshot(self) -> dict[str, Any]:
        data, sim = self.sim.data, self.sim
        state = []
        for i in range(self.num_envs):
            world = mujoco.MjData(sim.mj_model)
            world.time = float(data.time[i])
            for name in ("qpos", "qvel", "ctrl", "qacc_warmstart"):
                getattr(world, name)[:] = getattr(data, name)[i].numpy()
            kind = mujoco.mjtState.mjSTATE_INTEGRATION
            out = np.zeros(mujoco.mj_stateSize(sim.mj_model, kind))
            mujoco.mj_getState(sim.mj_model, world, out, kind)
            state.append(out)
        return {
            "obs": {g: v.clone() for g, v in self.obs_buf.items()},
            "state": np.array(state),
            "goal": self.command_manager.get_command("goal").numpy().copy(),
        }

    def _reset_idx(self, ids: torch.Tensor) -> None:
        if self._stepping:
            for i in ids.tolist():
                world = mujoco.MjData(self.sim.mj_model)
                world.qpos[:] = self.sim.data.qpos[i].numpy()
                world.qvel[:] = self.sim.data.qvel[i].numpy()
                mujoco.mj_forward(self.sim.mj_model, world)
                old = self.obs_buf["policy"][i, 7:11].numpy()  # The last two of three.
                self._finals[i] = np.concatenate(
                    [
                        world.qpos,
                        world.sensordata,
                        *(old, world.xpos[2, :2]),
                        self.sensor.up_time[[i]].numpy(),
                        self.action_manager.action[i].numpy(),
                        self.command_manager.get_command("goal")[i].numpy(),
                    ]
                )
        super()._reset_idx(ids)


@dataclass
class Recorded:
    """A recorded episode: what the table of episodes says, and its arrays."""

    env: int
    number: int
    length: int
    terminated: bool
    truncated: bool
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


def recorded(rollouts: Any) -> list[Recorded]:
    names = ("env", "number", "length", "terminated", "truncated")
    table = rollouts.episodes.select(names).rows()
    return [Recorded(*row, rollouts[i]) for i, row in enumerate(table)]


def memory(env: FakeMjlabEnv, name: str = "recorder") -> list[Recorded]:
    """The episodes of a memory recorder."""
    return recorded(env.recorder_manager.get_term("all").manager.get_term(name).rollouts)


def actions(steps: int = STEPS, num_envs: int = 4) -> torch.Tensor:
    return 2.0 * torch.rand(steps, num_envs, 1, generator=torch.Generator().manual_seed(3)) - 1.0


def run(env: FakeMjlabEnv, steps: int = STEPS) -> list[torch.Tensor]:
    """Take steps, with a reset of two environments half way; returns all that the policy sees."""
    obs, _ = env.reset()
    seen = list(obs.values())
    for step, action in enumerate(actions(steps, env.num_envs)):
        if step == steps // 2:
            env.reset(env_ids=torch.tensor([1, 2]))
            if isinstance(env, LoggedEnv):
                env.cut([1, 2])
        obs, *rest, extras = env.step(action)
        seen += [v.clone() for v in (*obs.values(), *rest)]
        seen.append(env.level.clone())
    return [v.clone() for v in seen]


@pytest.fixture
def record(mjlab: None) -> Callable[..., FakeMjlabEnv]:
    """Make an environment with recorders."""

    def make(recorders: Any, cfg: Cfg | None = None, **kwargs: Any) -> FakeMjlabEnv:
        cfg = cfg or Cfg()
        cfg.recorders = {"all": for_mjlab(recorders, task="fake", **kwargs)}
        return FakeMjlabEnv(cfg)

    return make


def test_every_row_is_true(record: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "run.h5")
    env = record(Hdf5RecorderCfg(path=path, channels=CHANNELS))
    run(env)
    env.close()
    log = LoggedEnv(Cfg())
    run(log)
    finals = 0
    with open_rollouts(path) as rollouts:
        found = recorded(rollouts)
        assert len(found) == sum(len([e for e in episodes if e]) for episodes in log.episodes)
        for episode in found:
            rows = log.episodes[episode.env][episode.number]
            assert episode.length == len(rows)
            for name, of in {
                "obs/policy": lambda row: row.obs["policy"],
                "obs/critic": lambda row: row.obs["critic"],
                "action": lambda row: row.action,
                "processed_action": lambda row: row.action,
                "ctrl": lambda row: row.action,
                "reward": lambda row: row.reward,
                "terminated": lambda row: row.terminated,
                "truncated": lambda row: row.truncated,
                "termination_terms/fell": lambda row: row.terminated,
                "termination_terms/time_out": lambda row: row.truncated,
                "command/goal": lambda row: row.goal,
            }.items():
                want = np.array([of(row) for row in rows])
                np.testing.assert_array_equal(episode[name], want, err_msg=name)
            state = np.array([row.state for row in rows])
            np.testing.assert_array_equal(episode["state"], state.astype(np.float32))
            terms = np.stack([episode["reward_terms/alive"], episode["reward_terms/effort"]], 1)
            np.testing.assert_allclose(terms, np.array([row.terms for row in rows]), rtol=1e-6)
            following = [row.obs["policy"] for row in rows[1:]]
            following = np.array(following).reshape(-1, 14)
            np.testing.assert_array_equal(episode["next_obs/policy"][:-1], following)
            last = episode["next_obs/policy"][-1]
            final = rows[-1].final
            if final is None:  # Cut, or still running: what follows is known.
                np.testing.assert_array_equal(last, rows[-1].next["policy"])
                continue
            finals += 1
            np.testing.assert_allclose(last[2:], final[2:], atol=1e-6)
            assert (abs(last[:2] - final[:2]) <= NOISE).all() and (last[:2] != final[:2]).any()
    assert finals > 20


def test_the_rollout_is_the_same_with_and_without_recorders(record: Any, tmp_path: Path) -> None:
    without = run(FakeMjlabEnv(Cfg()))
    calls = []

    def draws(env: Any) -> torch.Tensor:
        calls.append(np.random.rand())
        return torch.rand(env.num_envs)

    channels = (*CHANNELS, Channel(name="own", func=draws, when="after", current=True))
    env = record(
        {
            "hdf5": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=channels),
            "flight": FlightRecorderCfg(path=str(tmp_path / "flight")),
        }
    )
    found = run(env)
    env.close()
    assert all(torch.equal(a, b) for a, b in zip(without, found, strict=True))
    assert len(set(calls)) == len(calls) > STEPS


def test_a_window_of_fresh_values_would_change_the_rollout_if_it_were_not_undone(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail: the curriculum reads what the extra forward pass computes."""
    from mjlab_rec.adapters import mjlab_sim

    monkeypatch.setattr(mjlab_sim.MjlabPhysics, "restore", lambda self: None)
    env = record(MemoryRecorderCfg())
    found = run(env)
    assert not all(torch.equal(a, b) for a, b in zip(run(FakeMjlabEnv(Cfg())), found, strict=True))


@pytest.mark.parametrize("cfg", [CsvRecorderCfg, NpzRecorderCfg, ParquetRecorderCfg])
def test_all_formats_hold_the_same_rows(record: Any, cfg: Any, tmp_path: Path) -> None:
    ends = {CsvRecorderCfg: "csv", NpzRecorderCfg: "npz", ParquetRecorderCfg: "parquet"}
    path = str(tmp_path / f"run.{ends[cfg]}")
    env = record({"memory": MemoryRecorderCfg(), "file": cfg(path=path)})
    run(env)
    env.close()
    with open_rollouts(path) as rollouts:
        pairs = {(e.env, e.number): e for e in memory(env, "memory")}
        assert len(rollouts) == len(pairs)
        for a in recorded(rollouts):
            b = pairs[a.env, a.number]
            np.testing.assert_allclose(a["next_obs/policy"], b["next_obs/policy"], rtol=1e-6)
            np.testing.assert_allclose(a["reward"], b["reward"], rtol=1e-6)


def test_groups_may_be_dicts(record: Any) -> None:
    env = record(MemoryRecorderCfg(), Cfg(joined=False))
    env.reset()
    for action in actions():
        env.step(action)
    env.close()
    for episode in memory(env):
        if episode.done:
            # The action of the last step, not the next episode's zero.
            np.testing.assert_array_equal(
                episode["next_obs/policy/action"][-1], episode["action"][-1]
            )


def test_a_term_that_cannot_be_put_back_makes_final_observations_unknown(
    record: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "run.h5")
    env = record(Hdf5RecorderCfg(path=path), Cfg(hidden=True))
    with caplog.at_level(logging.WARNING):
        run(env)
    env.close()
    assert "'critic' are not known: computing it twice gives different" in caplog.text
    assert any("'critic' are not known" in note for note in describe(path)["notes"])
    assert "note" in info.text(describe(path))
    with open_rollouts(path) as rollouts:
        assert any("'critic' are not known" in note for note in rollouts.info.about["notes"])
        for episode in recorded(rollouts):
            if episode.done:
                assert np.isnan(episode["next_obs/critic"][-1]).all()
                assert np.isfinite(episode["next_obs/policy"]).all()


def test_a_final_observation_may_be_nan(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """mjlab resets before it computes observations, so its check of them must not fail."""
    env = record(MemoryRecorderCfg())
    env.reset()
    env.limits[:] = 1
    step = env.sim.step

    def diverge() -> None:
        step()
        env.sim.data.qpos[0] = torch.nan

    monkeypatch.setattr(env.sim, "step", diverge)
    env.step(torch.zeros(4, 1))
    env.close()
    episodes = memory(env)
    assert np.isnan(episodes[0]["next_obs/policy"][-1]).any()
    assert np.isfinite(episodes[1]["next_obs/policy"]).all()


def test_a_step_that_fails_has_no_row_nor_the_one_after_it(record: Any, tmp_path: Path) -> None:
    env = record(
        {"memory": MemoryRecorderCfg(), "flight": FlightRecorderCfg(path=str(tmp_path / "flight"))},
        Cfg(max_angle=9.0),
    )
    env.limits[:] = 100
    env.reset()
    for action in actions(3):
        env.step(action)
    env.sim.fails = True
    with pytest.raises(RuntimeError, match="simulation failed"):
        env.step(torch.zeros(4, 1))
    env.sim.fails = False
    for action in actions(4):
        env.step(action)
    env.close()
    term = env.recorder_manager.get_term("all")
    episodes = [e for e in memory(env, "memory") if e.env == 0]
    assert [(e.number, e.length, len(e["reward"])) for e in episodes] == [(0, 3, 3), (1, 4, 3)]
    assert len(term.manager.get_term("flight").folders) == 1
    assert "exception-in-step" in term.manager.get_term("flight").folders[0].name


@pytest.mark.parametrize("where", ["physics", "reset", "before the step"])
def test_a_reset_after_a_step_that_failed(
    record: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = record(MemoryRecorderCfg(), Cfg(max_angle=9.0))
    env.limits[:] = 4
    env.reset()
    for action in actions(3):
        env.step(action)
    with monkeypatch.context() as patch, pytest.raises((RuntimeError, ValueError)):
        if where == "physics":
            patch.setattr(env.sim, "fails", True)
        if where == "reset":
            patch.setattr(env.sim, "reset", lambda ids: env.sim.missing)
            patch.setattr(env.sim, "missing", None, raising=False)
            patch.setattr(env.observation_manager, "reset", _fail)
        env.step(torch.zeros(4, 2 if where == "before the step" else 1))
    env.reset()
    for action in actions(2):
        env.step(action)
    env.close()
    episodes = [e for e in memory(env) if e.env == 0]
    assert [(e.length, e.done) for e in episodes] == [(3, False), (2, False)]
    np.testing.assert_array_equal(episodes[1]["action"], actions(2)[:, 0])


def _fail(*args: Any) -> None:
    raise RuntimeError("It failed.")


def test_without_automatic_resets_the_observation_returned_is_the_final_one(record: Any) -> None:
    env = record(MemoryRecorderCfg(), Cfg(auto_reset=False))
    env.reset()
    ends: dict[int, list[np.ndarray]] = {i: [] for i in range(4)}
    for action in actions(12):
        obs, _, terminated, truncated, _ = env.step(action)
        ids = (terminated | truncated).nonzero().flatten()
        for i in ids.tolist():
            ends[i].append(obs["policy"][i].numpy().copy())
        if len(ids):
            env.reset(env_ids=ids)
    env.close()
    for i, wanted in ends.items():
        done = [e for e in memory(env) if e.env == i and e.done]
        assert len(done) == len(wanted) > 0
        for episode, want in zip(done, wanted, strict=True):
            np.testing.assert_array_equal(episode["next_obs/policy"][-1], want)


def test_without_final_observations_next_obs_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="no final observations, so 'next_obs"):
        record(MemoryRecorderCfg(), final_obs=False)
    env = record(MemoryRecorderCfg(channels=("obs", "action")), final_obs=False)
    run(env)
    env.close()


def test_triggers_and_videos_see_the_steps_numbers(record: Any, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = str(tmp_path / "clips")
    video = VideoRecorderCfg(path=path, trigger=at_steps(0, 9), length=4, overlay=("command",))
    memory = MemoryRecorderCfg(trigger=at_steps(5), length=2)
    env = record({"video": video, "memory": memory})
    run(env)
    env.close()
    names = sorted(file.name for file in Path(path).iterdir())
    assert names == ["fake-step-0.mp4", "fake-step-9.mp4"]
    term = env.recorder_manager.get_term("all")
    assert term.manager.get_term("memory").rows == 2


def test_an_overlay_shows_the_command_that_was_followed(record: Any, tmp_path: Path) -> None:
    cfg = VideoRecorderCfg(path=str(tmp_path), overlay=("command",), trigger=None)
    env = record(cfg, Cfg(max_angle=9.0))
    env.limits[:] = 100  # In a step with resets it is told before the commands change.
    env.reset()
    overlay = env.recorder_manager.get_term("all").recorder._overlay
    for action in actions(20):
        goal = env.command_manager.get_command("goal").clone()
        env.step(action)
        assert torch.equal(overlay._followed[0], goal[[0]])
    env.close()


def test_a_dump_and_a_log_of_episodes(record: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "episodes.jsonl")
    env = record(
        {
            "flight": FlightRecorderCfg(path=str(tmp_path), steps=5, on_terminations=("time_out",)),
            "log": EpisodeLogRecorderCfg(path=log),
        }
    )
    run(env)
    env.close()
    flight = env.recorder_manager.get_term("all").manager.get_term("flight")
    assert flight.folders and (flight.folders[0] / "model.mjb").exists()
    assert len(Path(log).read_text().splitlines()) > 20


def test_recorders_work_in_and_outside_of_inference_mode(record: Any) -> None:
    env = record(MemoryRecorderCfg(block_steps=4))
    env.reset()
    for step, action in enumerate(actions(12)):
        with torch.inference_mode(step % 5 > 2):
            env.step(action)
    env.close()
    assert env.recorder_manager.get_term("all").recorder.rows == 12


def test_another_version_of_mujoco_compiles_the_model_again(
    record: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "run.h5")
    env = record(Hdf5RecorderCfg(path=path, channels=CHANNELS))
    env.sim.mj_model.opt.timestep = 0.005  # As mjlab does, after compiling.
    run(env)
    env.close()
    with open_rollouts(path) as rollouts:
        rollouts.attachments["model.mjb"] = b"of another version"
        rollouts.info.about["versions"]["mujoco"] = "3.0.0"
        recorded = RecordedModel.of(rollouts)
        assert recorded.model.nq == 2 and recorded.model.opt.timestep == 0.005
        assert "compiled again from XML" in caplog.text
        rollouts.attachments["model.zip"] = b"no zip file"
        with pytest.raises(DataError, match="its XML cannot be read .* pip install mujoco==3.0.0"):
            RecordedModel.of(rollouts)
        del rollouts.attachments["model.zip"]
        with pytest.raises(DataError, match="which MuJoCo .* cannot read"):
            RecordedModel.of(rollouts)


def test_errors_say_what_to_do(record: Any, mjlab: None) -> None:
    with pytest.raises(TypeError, match="takes the cfg of a recorder of mjlab_rec"):
        for_mjlab({"a": object()})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="nothing to record"):
        for_mjlab({})

    class Early(RecorderTerm):
        def record_substep(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"overrides record_substep\(\), but mjlab"):
        record(RecorderTermCfg(func=Early))


def test_without_mjlab_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mjlab", None)
    monkeypatch.delitem(sys.modules, "mjlab_rec.adapters.mjlab_term", raising=False)
    with pytest.raises(ImportError, match="pip install mjlab==1.6.0"):
        for_mjlab(MemoryRecorderCfg())
