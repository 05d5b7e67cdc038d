"""A recorder of your own gets true rows, each as it was, and learns how episodes ended."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from rollout_log import LoggedEpisode, StepLog
from waiting import PATIENCE_S
from worlds import actions, cart_cfg

from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import TransitionRecorder, TransitionRecorderCfg, every_n_episodes

CHANNELS = ("obs/actor", "action", "reward", "terminated", "truncated", "next_obs/actor", "state")


class Keeper(TransitionRecorder):
    """Keeps all that it is given."""

    def __init__(self, cfg: Any, env: Any) -> None:
        super().__init__(cfg, env)
        self.given: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.closed = 0

    def record(self, rows):
        values = {name: rows[name].clone() for name in rows.keys()}
        columns = (rows.env_ids, rows.episode, rows.step, rows.time)
        for i, (env_id, episode, step, time) in enumerate(zip(*columns, strict=True)):
            row = {name: value[i].numpy() for name, value in values.items()}
            self.given.append(
                {
                    "env": int(env_id),
                    "episode": int(episode),
                    "step": int(step),
                    "time": float(time),
                }
                | row
            )

    def episodes_ended(self, ended):
        names = ("env_ids", "episode", "length", "rows", "returns", "recorded_returns")
        flags = ("terminated", "truncated", "cut")
        columns = [getattr(ended, name).tolist() for name in (*names, *flags)]
        for values in zip(*columns, strict=True):
            self.ended.append(dict(zip((*names, *flags), values, strict=True)))

    def close(self):
        self.closed += 1


def run(env: ManagerBasedRlEnv, steps: int, seed: int = 0) -> StepLog:
    log = StepLog(env)
    log.reset()
    for action in actions(steps, env.num_envs, seed):
        done = log.step(action)
        if not env.cfg.auto_reset and done.any():
            log.reset(done.nonzero().flatten())
    return log


def expected(log: StepLog, env_ids, every: int = 1, chosen=lambda number, step: True):
    """Rows as (env, step of the environment): what is to be given."""
    rows = {}
    for i in env_ids:
        for number, episode in enumerate(e for e in log.episodes[i] if e.rows):
            for k, row in enumerate(episode.rows):
                if (episode.start + k) % every == 0 and chosen(number, k):
                    rows[i, episode.start + k] = (number, k, row)
    return rows


def check(term: Keeper, rows: dict, log: StepLog) -> None:
    starts = {
        (i, number): e.start
        for i, episodes in log.episodes.items()
        for number, e in enumerate(e for e in episodes if e.rows)
    }
    given = {(g["env"], starts[g["env"], g["episode"]] + g["step"]): g for g in term.given}
    assert len(given) == len(term.given)
    assert set(given) == set(rows)
    for key, (number, k, row) in rows.items():
        assert (given[key]["episode"], given[key]["step"]) == (number, k)
        assert given[key]["time"] == pytest.approx(k * log.env.step_dt)
        for name in CHANNELS:
            np.testing.assert_array_equal(given[key][name], row[name], err_msg=name)


@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("envs", [None, 2, (3, 0)])
def test_each_row_is_a_true_transition(envs, every, auto_reset):
    cfg = TransitionRecorderCfg(func=Keeper, channels=CHANNELS, envs=envs, every=every)
    with ManagerBasedRlEnv(cart_cfg(4, auto_reset=auto_reset, recorders={"k": cfg})) as env:
        log = run(env, 40)
        term = env.recorder_manager.get_term("k")
    ids = range(4) if envs is None else range(envs) if isinstance(envs, int) else envs
    check(term, expected(log, ids, every), log)
    assert term.closed == 1


def test_a_trigger_chooses_rows_per_environment():
    cfg = TransitionRecorderCfg(
        func=Keeper, channels=CHANNELS, trigger=every_n_episodes(2), length=3
    )
    with ManagerBasedRlEnv(cart_cfg(4, recorders={"k": cfg})) as env:
        log = run(env, 40)
        term = env.recorder_manager.get_term("k")
    check(term, expected(log, range(4), 1, lambda number, k: number % 2 == 0 and k < 3), log)


def check_ends(term: Keeper, log: StepLog, env_ids, rows: dict) -> None:
    found = {(e["env_ids"], e["episode"]): e for e in term.ended}
    assert len(found) == len(term.ended)
    wanted: dict[tuple[int, int], LoggedEpisode] = {}
    for i in env_ids:
        for number, episode in enumerate(e for e in log.episodes[i] if e.rows):
            if any((i, episode.start + k) in rows for k in range(len(episode.rows))):
                wanted[i, number] = episode
    assert set(found) == set(wanted)
    for key, episode in wanted.items():
        mine = [k for k in range(len(episode.rows)) if (key[0], episode.start + k) in rows]
        end = found[key]
        assert end["length"] == len(episode.rows)
        assert end["rows"] == len(mine)
        assert end["returns"] == pytest.approx(episode.total)
        recorded = sum(float(episode.rows[k]["reward"]) for k in mine)
        assert end["recorded_returns"] == pytest.approx(recorded)
        assert (end["terminated"], end["truncated"]) == (episode.terminated, episode.truncated)
        assert end["cut"] is not (episode.terminated or episode.truncated)


@pytest.mark.parametrize("every", [1, 3])
def test_ends_of_episodes_come_after_their_last_row_and_cut_ones_at_the_end(every):
    cfg = TransitionRecorderCfg(func=Keeper, channels=CHANNELS, every=every, envs=3)
    with ManagerBasedRlEnv(cart_cfg(4, recorders={"k": cfg})) as env:
        log = run(env, 40)
        term = env.recorder_manager.get_term("k")
    check_ends(term, log, range(3), expected(log, range(3), every))
    assert any(end["cut"] for end in term.ended)


def test_an_end_is_told_although_it_came_in_a_pause():
    cfg = TransitionRecorderCfg(func=Keeper, channels=CHANNELS)
    with ManagerBasedRlEnv(cart_cfg(4, recorders={"k": cfg})) as env:
        log = StepLog(env)
        log.reset()
        for k, action in enumerate(actions(40)):
            if k == 5:
                env.recorder_manager.pause("k")
            if k == 30:
                env.recorder_manager.start("k")
            log.step(action)
        term = env.recorder_manager.get_term("k")
    rows = expected(log, range(4))
    rows = {key: value for key, value in rows.items() if not 5 <= key[1] < 30}
    check(term, rows, log)
    check_ends(term, log, range(4), rows)


def test_a_recording_that_starts_late_knows_the_whole_episode():
    cfg = TransitionRecorderCfg(func=Keeper, channels=CHANNELS, autostart=False)
    with ManagerBasedRlEnv(cart_cfg(4, recorders={"k": cfg})) as env:
        log = StepLog(env)
        log.reset()
        for k, action in enumerate(actions(40)):
            if k == 13:
                env.recorder_manager.start("k")
            log.step(action)
        term = env.recorder_manager.get_term("k")
    rows = {key: value for key, value in expected(log, range(4)).items() if key[1] >= 13}
    check(term, rows, log)
    check_ends(term, log, range(4), rows)


def test_an_unknown_channel_suggests_the_nearest():
    class Wrong(TransitionRecorder):
        def record(self, rows):
            rows["rewards"]

    cfg = TransitionRecorderCfg(func=Wrong, channels=("reward",))
    with ManagerBasedRlEnv(cart_cfg(2, recorders={"k": cfg})) as env:
        env.reset()
        with pytest.raises(KeyError, match="Did you mean 'reward'"):
            env.step(actions(1, 2)[0])


class Blocks(TransitionRecorder):
    """Keeps blocks, from the thread that they come in."""

    def __init__(self, cfg: Any, env: Any) -> None:
        super().__init__(cfg, env)
        self.rows_of: dict[int, list[np.ndarray]] = defaultdict(list)
        self.order: list[str] = []
        self.fail = False

    def process(self, batch):
        if self.fail:
            raise RuntimeError("my own mistake")
        self.order.append("block")
        for env_index, env_id in enumerate(batch.info.envs):
            self.rows_of[env_id].append(batch["next_obs/actor"][:, env_index].copy())

    def close(self):
        self.order.append("closed")


def test_blocks_come_to_process_in_a_thread_and_flush_waits_for_them():
    cfg = TransitionRecorderCfg(func=Blocks, channels=CHANNELS, block_steps=8)
    with ManagerBasedRlEnv(cart_cfg(3, recorders={"k": cfg})) as env:
        log = run(env, 20)
        term = env.recorder_manager.get_term("k")
        term.flush(timeout=PATIENCE_S)
        assert sum(len(rows) for rows in term.rows_of[0]) == 20
    assert term.order[-1] == "closed"
    for i in range(3):
        truth = [row["next_obs/actor"] for e in log.episodes[i] for row in e.rows]
        np.testing.assert_array_equal(np.concatenate(term.rows_of[i]), np.stack(truth))


def test_an_error_in_process_comes_back_in_the_next_step():
    cfg = TransitionRecorderCfg(func=Blocks, channels=("reward", "next_obs"), block_steps=1)
    env = ManagerBasedRlEnv(cart_cfg(3, recorders={"k": cfg}))
    env.reset()
    env.step(actions(1, 3)[0])
    term = env.recorder_manager.get_term("k")
    term.fail = True
    with pytest.raises(DataError, match="my own mistake"):
        for action in actions(100, 3):
            env.step(action)
    with pytest.raises(ExceptionGroup):
        env.close()


def test_what_is_recorded_leaves_the_rollout_as_it_was():
    def trace(recorders) -> list[torch.Tensor]:
        with ManagerBasedRlEnv(cart_cfg(4, seed=3, recorders=recorders)) as env:
            assert env.cfg.final_obs is False
            env.reset()
            return [env.step(action)[0]["actor"].clone() for action in actions(30)]

    cfg = TransitionRecorderCfg(func=Keeper, channels=CHANNELS)
    for a, b in zip(trace({}), trace({"k": cfg}), strict=True):
        assert torch.equal(a, b)
