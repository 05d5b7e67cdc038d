"""Recorders are started, paused and stopped from other threads while the environment steps."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from rollout_log import StepLog
from waiting import until
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import CsvRecorderCfg, Hdf5RecorderCfg, NpzRecorderCfg, manual

CHANNELS = ("obs/actor", "next_obs/actor", "action", "reward", "terminated")


def check(rollouts, log: StepLog) -> int:
    """Compare every row with what happened; returns how many there are."""
    count = 0
    for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
        arrays = rollouts[i]
        began = row["start"] - int(arrays["step"][0])
        (episode,) = [e for e in log.episodes[row["env"]] if e.start == began and e.rows]
        assert len(set(arrays["step"].tolist())) == len(arrays["step"])
        for at, step in enumerate(arrays["step"].tolist()):
            count += 1
            for name in CHANNELS:
                np.testing.assert_array_equal(arrays[name][at], episode.rows[step][name])
    return count


@pytest.mark.parametrize(
    ("make", "name"),
    [(Hdf5RecorderCfg, "a.h5"), (CsvRecorderCfg, "a.csv"), (NpzRecorderCfg, "a.npz")],
)
def test_requests_of_other_threads_take_effect_between_two_steps(make, name, tmp_path):
    cfg = make(path=str(tmp_path / name), channels=CHANNELS, block_steps=3)
    over = threading.Event()
    errors: list[BaseException] = []

    def disturb(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            if over.wait(chance.random() * 0.004):
                break
            request = chance.choice(["start", "start", "start", "pause", "stop"])
            try:
                getattr(env.recorder_manager, request)("log")
            except BaseException as error:
                errors.append(error)

    with ManagerBasedRlEnv(cart_cfg(3, recorders={"log": cfg})) as env:
        log = StepLog(env)
        log.reset()
        threads = [threading.Thread(target=disturb, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for action in actions(300, 3):
            log.step(action)
        over.set()
        for thread in threads:
            thread.join()
        log.step(actions(1, 3)[0])  # The last requests take effect before it.
        env.recorder_manager.start("log")
        for action in actions(5, 3):
            log.step(action)
    assert not errors
    files = env.recorder_manager.get_term("log").files
    rows = 0
    for file in files:
        with open_rollouts(file) as rollouts:
            rows += check(rollouts, log)
    assert rows >= 3 * 5


def test_flush_from_another_thread_waits_for_the_end_of_a_step(tmp_path):
    cfg = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=CHANNELS)
    with ManagerBasedRlEnv(cart_cfg(3, recorders={"log": cfg})) as env:
        term, said = env.recorder_manager.get_term("log"), []

        def flush(timeout: float | None) -> None:
            try:
                term.flush(timeout=timeout)
            except DataError as error:
                said.append(str(error))

        env.reset()
        for action in actions(5, 3):
            env.step(action)
        impatient = threading.Thread(target=flush, args=(0.01,))
        impatient.start()
        impatient.join()
        assert "no step ended within 0.01 s" in said[0]
        patient = threading.Thread(target=flush, args=(None,))
        patient.start()
        until(lambda: len(term._requests) == 2)
        env.step(actions(1, 3)[0])
        patient.join()
        assert len(said) == 1
        with open_rollouts(tmp_path / "a.h5") as rollouts:
            assert rollouts.rows >= 3 * 6 - 3


def test_fire_from_another_thread_records_from_the_next_step(tmp_path):
    cfg = Hdf5RecorderCfg(
        path=str(tmp_path / "a.h5"), channels=CHANNELS, trigger=manual(), length=2
    )
    with ManagerBasedRlEnv(cart_cfg(3, recorders={"log": cfg})) as env:
        log = StepLog(env)
        log.reset()
        for k, action in enumerate(actions(12, 3)):
            if k == 5:
                thread = threading.Thread(target=env.recorder_manager.get_term("log").fire)
                thread.start()
                thread.join()
            log.step(action)
    with open_rollouts(tmp_path / "a.h5") as rollouts:
        assert check(rollouts, log) == 3 * 2
        assert set(rollouts.episodes["start"]) <= {5, 6}
