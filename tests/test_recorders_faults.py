"""What goes wrong around a recording ends in a clear error or as documented, never silently."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rollout_log import StepLog, compare
from waiting import until
from worlds import actions, cart_cfg

from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import RewardTermCfg
from mjlab_rec.recorders import (
    Channel,
    CsvRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorder,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
)

CHANNELS = ["obs/actor", "next_obs/actor", "action", "reward", "terminated"]
ASKED = ("obs/actor", "next_obs/actor", "action", "reward", "terminated")
ROOT = Path(__file__).parent


def make(recorder, **overrides):
    return ManagerBasedRlEnv(cart_cfg(4, recorders={"log": recorder}, **overrides))


class Gate:
    """A disk that writes only as many blocks as it is allowed to."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.writers: list[MemoryWriter] = []

    def recorder(self):
        gate = self

        class Slow(MemoryWriter):
            def write(self, block):
                gate.allowed.acquire()
                super().write(block)

        class Recorder(MemoryRecorder):
            def writer(self):
                def build(info, options):
                    gate.writers.append(Slow(info, options))
                    return gate.writers[-1]

                return build

        return Recorder

    def open(self) -> None:
        """Let everything through."""
        self.allowed.release(10_000)

    def open_when(self, true: Callable[[], bool]) -> None:
        """Let everything through as soon as something is so."""
        try:
            until(true)
        finally:
            self.open()

    def read(self):
        from mjlab_rec.data.rollouts import Rollouts

        return Rollouts(MemoryReader(self.writers[-1]))


def test_a_slow_disk_is_waited_for_and_the_wait_is_reported():
    gate = Gate()
    cfg = MemoryRecorderCfg(func=gate.recorder(), channels=ASKED, block_steps=2, num_blocks=2)
    with make(cfg) as env:
        term = env.recorder_manager.get_term("log")
        opener = threading.Thread(target=gate.open_when, args=(lambda: term.stalled_s > 0,))
        opener.start()
        log = StepLog(env, state=False)
        log.reset()
        for action in actions(20):
            log.step(action)
        assert term.stalled_s > 0
        assert term.dropped_rows == 0
    opener.join()
    compare(gate.read(), log.finished(), CHANNELS)


def test_dropping_loses_whole_blocks_counts_them_and_marks_the_gap():
    gate = Gate()
    cfg = MemoryRecorderCfg(
        func=gate.recorder(),
        channels=ASKED,
        block_steps=3,
        block_seconds=1e9,
        num_blocks=2,
        overflow="drop",
    )
    with make(cfg) as env:
        term = env.recorder_manager.get_term("log")
        log = StepLog(env, state=False)
        log.reset()
        for k, action in enumerate(actions(31)):
            if k == 13:
                gate.open()
            if k >= 13:  # From here on the disk is never behind.
                until(lambda: not term._store._free.empty())
            log.step(action)
        assert term.stalled_s == 0
        dropped = term.dropped_rows
    assert term.dropped_rows == dropped  # Also of what is finished.
    assert dropped == 3 * 3  # One block is stuck, the other is filled again and again.
    rollouts = gate.read()
    assert rollouts.gaps == dropped
    seen = set()
    for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
        arrays = rollouts[i]
        episode = log.episodes[row["env"]][row["number"]]
        for k, step in enumerate(arrays["step"].tolist()):
            seen.add((row["env"], episode.start + step))
            for name in CHANNELS:
                np.testing.assert_array_equal(arrays[name][k], episode.rows[step][name])
    assert {k for _, k in seen} == set(range(31)) - set(range(3, 12))
    assert len(seen) == 4 * (31 - dropped)


def test_overflow_can_be_an_error():
    gate = Gate()
    cfg = MemoryRecorderCfg(
        func=gate.recorder(),
        channels=ASKED,
        block_steps=2,
        block_seconds=1e9,
        num_blocks=2,
        overflow="error",
    )
    env = make(cfg)
    env.reset()
    with pytest.raises(DataError, match="the disk is too slow: no block is free"):
        for action in actions(20):
            env.step(action)
    gate.open()
    env.close()
    assert gate.read().rows >= 4 * 4


def failing(after: int):
    class Failing(MemoryWriter):
        def write(self, block):
            if len(self.blocks) == after:
                raise OSError(28, "No space left on device")
            super().write(block)

    class Recorder(MemoryRecorder):
        def writer(self):
            return Failing

    return Recorder


@pytest.mark.parametrize("overflow", ["block", "error"])
def test_an_error_of_the_writer_comes_back_in_the_next_hook_and_in_close(overflow):
    cfg = MemoryRecorderCfg(
        func=failing(after=2), channels=ASKED, block_steps=2, num_blocks=3, overflow=overflow
    )
    env = make(cfg)
    env.reset()
    term = env.recorder_manager.get_term("log")
    with pytest.raises(DataError) as caught:
        for action in actions(500):
            if overflow == "error":  # The disk is never too slow.
                until(lambda: not term._store._free.empty())
            env.step(action)
    assert "Recorder: writing failed: [Errno 28] No space left on device" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__notes__ == ["in record_post_step of recorder 'log'"] or (
        caught.value.__notes__ == ["in record_pre_reset of recorder 'log'"]
    )
    with pytest.raises(ExceptionGroup) as group:
        env.close()
    assert group.group_contains(DataError, match="No space left on device")
    env.close()  # Nothing is left to do.


@pytest.mark.parametrize("overflow", ["block", "drop"])
def test_recording_goes_on_once_the_disk_has_room_again(overflow, caplog):
    """What could not be written is a gap; all that is written is true."""
    full = threading.Event()

    class Disk(MemoryWriter):
        def write(self, block):
            if full.is_set():
                raise OSError(28, "No space left on device")
            super().write(block)

    class Recorder(MemoryRecorder):
        def writer(self):
            return Disk

    cfg = MemoryRecorderCfg(func=Recorder, channels=ASKED, block_steps=2, overflow=overflow)
    env = make(cfg)
    log, failures = StepLog(env, state=False), 0
    log.reset()
    for k, action in enumerate(actions(60)):
        (full.set if k == 20 else full.clear if k == 40 else bool)()
        try:
            log.step(action)
        except DataError as error:
            assert "No space left on device" in str(error)
            failures += 1
            env.reset()
            log.reset()
        env.recorder_manager.get_term("log")._store._thread.wait()
    term = env.recorder_manager.get_term("log")
    if overflow == "block":
        assert failures > 2
        with pytest.raises(ExceptionGroup) as group:
            env.close()
        assert group.group_contains(DataError, match="No space left on device")
    else:
        assert failures == 0
        env.close()
        assert caplog.text.count("Rows are dropped until writing works again") == 1
    rollouts, seen = term.rollouts, set()
    assert 0 < rollouts.gaps <= term.dropped_rows
    for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
        arrays = rollouts[i]
        began = row["start"] - int(arrays["step"][0])
        (episode,) = [e for e in log.episodes[row["env"]] if e.start == began and e.rows]
        for at, step in enumerate(arrays["step"].tolist()):
            seen.add(began + step)
            for name in CHANNELS:
                np.testing.assert_array_equal(arrays[name][at], episode.rows[step][name])
    assert seen >= set(range(18)) | set(range(48, 58))
    assert not seen & set(range(24, 38))


def test_a_step_that_fails_leaves_no_trace_in_the_rows():
    """It fails after episodes have ended in it and their last values were read."""

    class Trap(MemoryRecorder):
        def record_post_reset(self, env_ids):
            super().record_post_reset(env_ids)
            if self._env.common_step_counter in (4, 7):
                raise RuntimeError("trap")

    recorders = {
        "log": MemoryRecorderCfg(channels=ASKED, block_steps=3),
        "trap": MemoryRecorderCfg(func=Trap, channels=("reward",)),
    }
    with ManagerBasedRlEnv(cart_cfg(4, recorders=recorders)) as env:
        env.reset()
        failed, rows = [], {}
        for k, action in enumerate(actions(20)):
            obs = env.obs_buf["actor"].clone()
            try:
                _, reward, terminated, _, extras = env.step(action)
            except RuntimeError:
                failed.append(k)
                continue
            rows[k] = (obs, action, reward, terminated, extras["final_obs"]["actor"])
        assert failed == [3, 6]
        rollouts = env.recorder_manager.get_term("log").rollouts
        seen = set()
        for i, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            arrays = rollouts[i]
            first = row["start"] - int(arrays["step"][0])
            for at, step in enumerate(arrays["step"].tolist()):
                obs, action, reward, terminated, following = rows[first + step]
                env = row["env"]
                seen.add((env, first + step))
                np.testing.assert_array_equal(arrays["obs/actor"][at], obs[env])
                np.testing.assert_array_equal(arrays["next_obs/actor"][at], following[env])
                assert arrays["reward"][at] == reward[env]
                assert arrays["terminated"][at] == terminated[env]
    # The step after a failed one is left out too: what it started from was not read.
    assert {k for _, k in seen} == set(range(20)) - {3, 4, 6, 7}


@pytest.mark.parametrize("reset", [False, True])
def test_a_step_without_a_row_after_a_failed_one_is_said_once(caplog, reset):
    fails = True

    def reward(env):
        if fails:
            raise RuntimeError("trap")
        return torch.ones(2)

    cfg = cart_cfg(2, recorders={"log": MemoryRecorderCfg()})
    cfg.rewards = {"trap": RewardTermCfg(func=reward, weight=1.0)}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for _ in range(2):
            fails = True
            with pytest.raises(RuntimeError, match="trap"):
                env.step(torch.zeros(2, 1))
            fails = False
            if reset:
                env.reset()
            for action in actions(2, 2):
                env.step(action)
        rollouts = env.recorder_manager.get_term("log").rollouts
    said = [text for text in caplog.messages if "Reset the environments" in text]
    assert len(said) == (0 if reset else 1)
    assert sum(rollouts.episodes["rows"]) == 2 * 2 * (2 if reset else 1)


def test_a_failing_recorder_can_be_left_behind(caplog):
    cfg = MemoryRecorderCfg(
        func=failing(after=1), channels=ASKED, block_steps=2, on_error="disable"
    )
    good = MemoryRecorderCfg(channels=ASKED, block_steps=2)
    with ManagerBasedRlEnv(cart_cfg(4, recorders={"bad": cfg, "good": good})) as env:
        log = StepLog(env, state=False)
        log.reset()
        for action in actions(60):
            log.step(action)
        compare(env.recorder_manager.get_term("good").rollouts, log.finished(), CHANNELS)
    assert "Recorder 'bad' failed" in caplog.text
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    ("make_cfg", "name"),
    [
        (CsvRecorderCfg, "a.csv"),
        (Hdf5RecorderCfg, "a.h5"),
        (NpzRecorderCfg, "a.npz"),
        (NpzRecorderCfg, "a"),
        (ParquetRecorderCfg, "a.parquet"),
    ],
)
def test_a_bad_path_is_refused_at_the_first_reset(make_cfg, name, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with make(make_cfg(path=str(blocked / name))) as env:
        with pytest.raises(DataError, match="Cannot record to"):
            env.reset()
    with make(make_cfg(path="")) as env, pytest.raises(DataError, match="No path was given"):
        env.reset()
    path = tmp_path / name
    with make(make_cfg(path=str(path))) as env:
        env.reset()
        env.step(actions(1)[0])
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with make(make_cfg(path=str(path))) as env, pytest.raises(DataError, match="if_exists"):
        env.reset()
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_two_recorders_on_one_path(tmp_path):
    path = str(tmp_path / "a.h5")
    recorders = {"a": Hdf5RecorderCfg(path=path), "b": Hdf5RecorderCfg(path=path)}
    for if_exists in ("error", "overwrite", "append"):
        recorders["b"].if_exists = if_exists
        env = ManagerBasedRlEnv(cart_cfg(4, recorders=recorders))
        with pytest.raises(DataError, match="is being written by another recorder"):
            env.reset()
        env.close()
        Path(path).unlink()


def test_nan_and_infinity_are_recorded_as_they_are(tmp_path):
    def odd(env):
        value = torch.zeros(env.num_envs, 3)
        value[:, 0], value[:, 1], value[:, 2] = torch.nan, torch.inf, -torch.inf
        return value

    channels = (Channel(name="odd", func=odd, when="before"), "reward")
    recorders = {
        "csv": CsvRecorderCfg(path=str(tmp_path / "a.csv"), channels=channels),
        "hdf5": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=channels),
        "npz": NpzRecorderCfg(path=str(tmp_path / "a.npz"), channels=channels),
        "parquet": ParquetRecorderCfg(path=str(tmp_path / "a.parquet"), channels=channels),
    }
    with ManagerBasedRlEnv(cart_cfg(2, recorders=recorders)) as env:
        env.reset()
        for action in actions(5, 2):
            env.step(action)
    for path in ("a.csv", "a.h5", "a.npz", "a.parquet"):
        with open_rollouts(tmp_path / path) as rollouts:
            np.testing.assert_array_equal(
                rollouts[0]["odd"], np.tile(np.float32([np.nan, np.inf, -np.inf]), (5, 1))
            )


def test_a_forked_child_neither_hangs_nor_touches_the_file(tmp_path):
    path = tmp_path / "a.h5"
    with make(Hdf5RecorderCfg(path=str(path), channels=ASKED, block_steps=2)) as env:
        log = StepLog(env, state=False)
        log.reset()
        for action in actions(5):
            log.step(action)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            said = "nothing"
            try:
                with contextlib.suppress(RuntimeError):
                    env.step(actions(1)[0])  # Would wait for threads that are not there.
                env.recorder_manager.record_post_step()
            except DataError as error:
                said = str(error)
            finally:
                env.close()
                os.write(writer, said.encode())
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        assert "this process was forked" in said
        for action in actions(5, seed=1):
            log.step(action)
    with open_rollouts(path) as rollouts:
        compare(rollouts, log.finished(), CHANNELS)


SCRIPT = """
import signal
from mjlab_rec.recorders import *
asked = ("obs/actor", "next_obs/actor", "action", "reward", "terminated")
recorders = {
    "csv": CsvRecorderCfg(path=out + "/a.csv", channels=asked, block_steps=7),
    "hdf5": Hdf5RecorderCfg(path=out + "/a.h5", channels=asked, block_steps=7),
    "demos": Hdf5RecorderCfg(path=out + "/b.h5", channels=asked, layout="episodes"),
    "npz": NpzRecorderCfg(path=out + "/a.npz", channels=asked),
    "parquet": ParquetRecorderCfg(path=out + "/a.parquet", channels=asked),
}
env = ManagerBasedRlEnv(cart_cfg(4, recorders=recorders))
env.reset()
for k, action in enumerate(actions(1000)):
    if k == 100:
        exec(job["end"])
    env.step(action)
raise SystemExit("nothing ended it")
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("os.kill(os.getpid(), signal.SIGINT)", -2),
        ("raise RuntimeError('a bug of the user')", 1),
        ("sys.exit(0)", 0),
    ],
)
def test_nothing_is_lost_when_the_process_ends(end, code, runner, tmp_path):
    ran = runner.run(SCRIPT, end=end, out=str(tmp_path))
    assert ran["code"] in (code, 130 if code == -2 else code), ran
    for path in ("a.csv", "a.h5", "b.h5", "a.npz", "a.parquet"):
        with open_rollouts(tmp_path / path) as rollouts:
            assert rollouts.rows == 100 * 4, path


def test_a_users_own_handler_of_sigterm_stays(runner):
    script = """
handler = lambda *args: print("mine")
signal.signal(signal.SIGTERM, handler)
env = ManagerBasedRlEnv(cart_cfg(2, recorders={"log": recorders.MemoryRecorderCfg()}))
env.reset()
assert signal.getsignal(signal.SIGTERM) is handler
"""
    ran = runner.run(script)
    assert ran["code"] == 0, ran


@pytest.mark.parametrize("name", ["a.h5", "a.csv", "a.parquet"])
def test_a_full_disk_is_a_clear_error_and_what_was_written_stays_readable(name, runner, tmp_path):
    """A limit on file sizes stands for a full disk."""
    script = """
import resource, sys
sys.dont_write_bytecode = True  # Python would leave cut files in __pycache__.
from mjlab_rec.recorders import *
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 19, 3 << 19))
log = globals()[job["kind"]](
    path=f"{out}/{job['name']}", channels=("state", "reward"), block_steps=20
)
env = ManagerBasedRlEnv(cart_cfg(64, recorders={"log": log}))
env.reset()
try:
    for action in actions(2000, 64):
        env.step(action)
    env.recorder_manager.get_term("log").flush()
except Exception as error:
    print("step:", error)
try:
    env.close()
except BaseException as error:
    print("close:", error)
"""
    kind = {"a.h5": "Hdf5", "a.csv": "Csv", "a.parquet": "Parquet"}[name] + "RecorderCfg"
    ran = runner.run(script, kind=kind, name=name, out=str(tmp_path))
    assert ran["code"] == 0, ran
    assert "writing failed" in ran["output"], ran
    assert "File too large" in ran["output"], ran
    if name != "a.parquet":
        with open_rollouts(tmp_path / name) as rollouts:
            assert rollouts.rows > 20 * 64
            assert np.isfinite(rollouts[0]["state"]).all()
