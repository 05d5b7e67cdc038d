"""Whatever ends a process, what was recorded until then is in the file, once and true."""

from __future__ import annotations

import logging
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEnv
from long_runs import LONG
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import RecorderManager, RecorderTerm, RecorderTermCfg
from mjlab_rec.managers import recorder_manager as manager_module
from mjlab_rec.recorders import shutdown
from mjlab_rec.recorders.shutdown import close_at_exit, closed
from mjlab_rec.utils import interrupts

RUNS = 100 if LONG else 1  # of each kind, and of each number of signals
NAMES = ("obs/actor", "next_obs/actor", "action", "reward", "terminated")

OPEN = """
kinds = {"a.csv": recorders.CsvRecorderCfg, "a.h5": recorders.Hdf5RecorderCfg}
names = ("obs/actor", "next_obs/actor", "action", "reward", "terminated")

def make():
    cfg = kinds[job["name"]](path=f"{out}/{job['name']}", channels=names, block_steps=3)
    env = ManagerBasedRlEnv(cart_cfg(4, recorders={"log": cfg}))
    env.reset()
    return env
"""
ENDINGS = {
    "uncaught": """
env = make()
while True:
    step(env)
""",
    "with": """
with make() as env:
    while True:
        step(env)
""",
    "caught": """
env = make()
try:
    while True:
        step(env)
except KeyboardInterrupt:
    env.close()
""",
    "forgotten": """
def main():
    env = make()
    try:
        while True:
            step(env)
    except KeyboardInterrupt:
        pass

main()
import gc
gc.collect()
""",
}


# However slow the machine is, a step that another thread is in keeps its row.
PATIENT = """
from mjlab_rec.recorders import shutdown
shutdown._GRACE_S = 1e4
"""


class Truth:
    """What every run records, since all take the same actions: one array (steps, envs, ...)."""

    def __init__(self) -> None:
        self._env = ManagerBasedRlEnv(cart_cfg(4, final_obs=True))
        self._env.reset()
        self._actions = actions(50)
        self._rows: list[dict[str, np.ndarray]] = []

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """The first rows."""
        env = self._env
        while len(self._rows) < count:
            action = self._actions[len(self._rows) % len(self._actions)]
            row: dict[str, Any] = {"obs/actor": env.obs_buf["actor"], "action": action}
            row["step"] = env.episode_length_buf
            row = {name: value.numpy().copy() for name, value in row.items()}
            _, reward, terminated, _, extras = env.step(action)
            after = {"reward": reward, "terminated": terminated}
            after["next_obs/actor"] = extras["final_obs"]["actor"]
            self._rows.append(row | {name: value.numpy().copy() for name, value in after.items()})
        return {
            name: np.stack([row[name] for row in self._rows[:count]]) for name in (*NAMES, "step")
        }


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth()


def check(path: Path, ran: dict[str, Any], truth: Truth) -> None:
    """Compare a file with what is known of its run."""
    with open_rollouts(path) as rollouts:
        table = list(rollouts.episodes.iter_rows(named=True))
        for env in range(4):
            own = [i for i, row in enumerate(table) if row["env"] == env]
            assert [table[i]["number"] for i in own] == list(range(len(own)))
            arrays = [rollouts[i] for i in own]
            count = sum(len(episode["step"]) for episode in arrays)
            # The last step may have been recorded and interrupted before it was counted.
            assert ran["steps"] <= count <= ran["steps"] + 1, (ran, table)
            for name, expected in truth.rows(count).items():
                found = np.concatenate([episode[name] for episode in arrays])
                np.testing.assert_array_equal(found, expected[:, env], err_msg=f"{name} {ran}")


# Ctrl-C.


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["a.csv", "a.h5"])
def test_every_row_is_there_once_and_true_after_ctrl_c(name, ending, runner, truth, tmp_path):
    """Pressed once or twice, at any moment."""
    for number in range(2 * RUNS):
        out = tmp_path / str(number)
        out.mkdir()
        ran = runner.run(
            OPEN + ENDINGS[ending],
            name=name,
            out=str(out),
            signals=[signal.SIGINT] * (1 + number % 2),
            gap=(0.002, 0.01, 0.1)[number % 3],
            at=1 + 3 * number % 40,
            seed=number,
            quick=True,
        )
        check(out / name, ran, truth)


@pytest.fixture(autouse=True)
def nothing_is_open():
    """Close what tests of other files have left."""
    shutdown._close_all()


class Noting(RecorderTerm):
    """Notes what begins and ends, and has something open."""

    def __init__(self, cfg: Any, env: Any) -> None:
        super().__init__(cfg, env)
        close_at_exit(self)

    def note(self, what: str) -> None:
        log: list[str] = self._env.log  # type: ignore[attr-defined]
        log.append(f"{what} begins")
        within = self.cfg.params.get(what)
        if within is not None:
            within()
        log.append(f"{what} ends")

    def record_pre_step(self) -> None:
        self.note("pre_step")

    def record_post_step(self) -> None:
        self.note("post_step")

    def record_exception(self, error: BaseException) -> None:
        self.note(type(error).__name__)

    def close(self) -> None:
        self.note("close")
        closed(self)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(shutdown, "time", clock)
    monkeypatch.setattr(shutdown._signals, "_raised", float("-inf"))
    return clock


def noting(env: Any, **within: Any) -> RecorderManager:
    return RecorderManager({"a": RecorderTermCfg(func=Noting, params=within)}, env)


def take_step(manager: RecorderManager) -> None:
    """What an environment does."""
    try:
        manager.record_pre_step()
        manager.record_post_step()
    except BaseException as error:
        manager.record_exception(error)
        raise


def test_a_ctrl_c_at_any_moment_leaves_no_hook_half_done(clock):
    """Python looks for signals where a function begins, and after it has called one in C."""
    files = {module.__file__ for module in (interrupts, manager_module, shutdown)}
    left = -1

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and frame.f_code.co_filename in files:
            left -= 1
            if left == 0:
                press()

    before, handler = sys.getprofile(), signal.getsignal(signal.SIGINT)
    for number in range(1, 10_000):
        env = FakeEnv()
        manager = noting(env)
        interrupted, left = 0, number
        clock.now += 10
        sys.setprofile(profile)
        try:
            try:
                take_step(manager)
                take_step(manager)
            finally:
                manager.close()
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.setprofile(before)
        shutdown._close_all()  # As at exit.
        began = [entry.removesuffix(" begins") for entry in env.log[::2]]
        assert env.log[1::2] == [f"{what} ends" for what in began], number
        assert began.count("close") == 1 and began[-1] == "close", (number, env.log)
        assert signal.getsignal(signal.SIGINT) is handler, number
        assert interrupts.interrupts.depth == 0 and interrupts.interrupts.then is None, number
        if left > 0:
            break
        assert interrupted == 1, number
    assert number > 50 and not interrupted


@pytest.mark.parametrize("hook", ["pre_step", "post_step"])
def test_ctrl_c_in_a_hook_comes_right_after_it(hook, clock):
    env = FakeEnv()
    manager = noting(env, **{hook: press})
    with pytest.raises(KeyboardInterrupt):
        take_step(manager)
    expected = {
        "pre_step": ["pre_step begins", "pre_step ends"]
        + ["KeyboardInterrupt begins", "KeyboardInterrupt ends"],
        # The step is complete: it did not fail.
        "post_step": ["pre_step begins", "pre_step ends", "post_step begins", "post_step ends"],
    }
    assert env.log == expected[hook]
    manager.close()


def test_ctrl_c_while_closing_waits_and_says_so(clock, caplog):
    def twice() -> None:
        press()
        clock.now += 0.5
        press()

    env = FakeEnv()
    manager = noting(env, close=twice)
    with pytest.raises(KeyboardInterrupt):
        manager.close()
    assert env.log == ["close begins", "close ends"]
    (record,) = caplog.records
    assert "Recordings are being finished" in record.getMessage()
    assert record.levelno == logging.WARNING


def test_ctrl_c_a_second_after_the_warning_abandons_the_recordings(clock):
    def again() -> None:
        press()
        clock.now += 1.0
        press()

    env = FakeEnv()
    cfg = RecorderTermCfg(func=Noting, params={"close": again})
    manager = RecorderManager({"a": cfg, "b": RecorderTermCfg(func=Noting)}, env)
    with pytest.raises(KeyboardInterrupt):
        manager.close()
    assert env.log == ["close begins"]
    shutdown._close_all()
    assert env.log == ["close begins"]


def test_a_hook_that_hangs_can_be_abandoned(clock, caplog):
    warnings = []

    def hang() -> None:
        for _ in range(3):
            press()
            warnings.append(len(caplog.records))
            clock.now += 1.0

    env = FakeEnv()
    manager = noting(env, post_step=hang)
    with pytest.raises(KeyboardInterrupt):
        take_step(manager)
    assert "post_step ends" not in env.log
    assert warnings == [0, 1] and "Recordings are being finished" in caplog.text
    manager.close()


def test_two_ctrl_c_in_a_moment_are_one(clock):
    manager = noting(FakeEnv())
    with pytest.raises(KeyboardInterrupt):
        press()
    clock.now += 0.05
    press()
    clock.now += 0.1
    with pytest.raises(KeyboardInterrupt):
        press()
    manager.close()


def test_an_error_that_a_ctrl_c_hides_is_logged(clock, caplog):
    def fail() -> None:
        press()
        raise DataError("the disk is full")

    manager = noting(FakeEnv(), post_step=fail)
    with pytest.raises(KeyboardInterrupt):
        take_step(manager)
    assert "A signal replaces this error" in caplog.text
    assert "the disk is full" in caplog.text
    manager.close()


def test_a_users_handler_is_called_after_the_hook_and_comes_back(clock):
    env = FakeEnv()
    before = signal.signal(signal.SIGINT, lambda *_: env.log.append("mine"))
    try:
        mine = signal.getsignal(signal.SIGINT)
        manager = noting(env, post_step=press)
        take_step(manager)
        assert env.log[-2:] == ["post_step ends", "mine"]
        press()
        assert env.log[-1] == "mine"
        manager.close()
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_is_set_later_is_left_alone(clock):
    env = FakeEnv()
    before = signal.getsignal(signal.SIGINT)
    manager = noting(env)
    ours = signal.getsignal(signal.SIGINT)

    def chained(number: int, frame: Any) -> None:
        env.log.append("mine")
        ours(number, frame)  # type: ignore[operator]

    try:
        signal.signal(signal.SIGINT, chained)
        manager.close()
        assert signal.getsignal(signal.SIGINT) is chained
        manager = noting(env)
        with pytest.raises(KeyboardInterrupt):
            press()
        assert env.log[-1] == "mine"
        manager.close()
        assert signal.getsignal(signal.SIGINT) is chained
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_ctrl_c_stays_ignored(clock):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        manager = noting(FakeEnv())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        manager.close()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# SIGTERM and SIGHUP, threads and processes.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_end_by_way_of_pythons_exit(number, runner, truth, tmp_path):
    code = OPEN + "import atexit; atexit.register(print, 'at exit')" + ENDINGS["uncaught"]
    ran = runner.run(code, name="a.csv", out=str(tmp_path), signals=[number], at=20)
    assert (ran["code"], ran["output"]) == (128 + number, "at exit\n")
    check(tmp_path / "a.csv", ran, truth)


def test_sighup_stays_ignored_under_nohup(runner, truth, tmp_path):
    code = f"""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
import importlib
importlib.reload(sys.modules["mjlab_rec.recorders.shutdown"])
{OPEN}
env = make()
for _ in range(20):
    step(env)
os.kill(os.getpid(), signal.SIGHUP)
for _ in range(20):
    step(env)
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["steps"]) == (0, 40), ran["output"]
    check(tmp_path / "a.csv", ran, truth)


@pytest.mark.parametrize(
    ("number", "daemon", "main"),
    [
        (signal.SIGTERM, True, "thread.join()"),
        (signal.SIGTERM, False, "thread.join()"),
        (signal.SIGTERM, False, "pass"),
        (signal.SIGHUP, True, "while True: signal.pause()"),
    ],
)
def test_signals_save_what_another_thread_records(number, daemon, main, runner, truth, tmp_path):
    code = f"""{OPEN}{PATIENT}
import threading

def work():
    env = make()
    while True:
        step(env)

thread = threading.Thread(target=work, daemon={daemon})
thread.start()
{main}
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path), signals=[number], at=20)
    assert ran["code"] == 128 + number, ran["output"]
    assert "Traceback" not in ran["output"]
    check(tmp_path / "a.csv", ran, truth)


@pytest.mark.parametrize("main", ["pass", "while True: signal.pause()"])
def test_a_thread_that_waits_does_not_keep_the_process_from_ending(main, runner, truth, tmp_path):
    code = f"""{OPEN}
import threading

def work():
    env = make()
    for _ in range(20):
        step(env)
    threading.Event().wait()

threading.Thread(target=work).start()
{main}
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path), signals=[signal.SIGTERM], at=20)
    assert ran["code"] == 143, ran["output"]
    check(tmp_path / "a.csv", ran, truth)


DROPPED = {
    "del": """
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        os.getpid()

Last()
""",
    "weakref": """
code = "def remove():\\n os.kill(os.getpid(), signal.SIGINT)\\n os.getpid()"
exec(compile(code, weakref.__file__, "exec"))
remove()
""",
}


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("where", DROPPED)
def test_a_signal_is_raised_later_where_python_would_drop_it(
    where, number, runner, truth, tmp_path
):
    code = f"""{OPEN}
import os, signal, weakref

env = make()
try:
    step(env)
{textwrap.indent(DROPPED[where].replace("SIGINT", number), "    ")}
    first = taken(counter)
    step(env)
except (KeyboardInterrupt, SystemExit):
    print("raised after", first, "and", taken(counter))
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["output"]) == (0, "raised after 1 and 1\n")
    check(tmp_path / "a.csv", ran, truth)


def test_a_thread_may_still_be_stepping_at_exit(runner, truth, tmp_path):
    code = f"""{OPEN}{PATIENT}
import threading
import time

def work():
    env = make()
    while True:
        step(env)

threading.Thread(target=work, daemon=True).start()
while taken(counter) < 20:
    time.sleep(0.001)  # Without it, the other thread waits for Python's lock most of the time.
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["output"]) == (0, "")
    check(tmp_path / "a.csv", ran, truth)


def test_with_nothing_open_a_signal_ends_the_process_as_ever(runner, tmp_path):
    code = f"""{OPEN}
env = make()
step(env)
env.close()
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["output"]) == (-signal.SIGTERM, "")


def test_a_forked_process_leaves_the_recording_alone(runner, truth, tmp_path):
    code = f"""{OPEN}
import multiprocessing, time
context = multiprocessing.get_context("fork")
env = make()
for _ in range(20):
    step(env)
waiting = context.Process(target=time.sleep, args=(60,))
waiting.start()
waiting.terminate()
waiting.join()
assert waiting.exitcode == -signal.SIGTERM
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
for _ in range(20):
    step(env)
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["steps"]) == (0, 40), ran["output"]
    check(tmp_path / "a.csv", ran, truth)


def test_a_forked_process_ends_by_a_signal_that_comes_at_once(runner, tmp_path):
    code = """
import time
env = make()
for _ in range(20):
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(3)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    step(env)
env.close()
"""
    ran = runner.run(f"{OPEN}{code}", name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["steps"]) == (0, 20), ran["output"]


def test_a_forked_process_may_record_on_its_own(runner, truth, tmp_path):
    code = f"""{OPEN}
other = make()  # Of another name, open in the parent.
job["name"] = "a.h5"
child = os.fork()
if child:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    other.close()
    os._exit(code)
env = make()
while True:
    step(env)
    if taken(counter) == 20:
        os.kill(os.getpid(), signal.SIGTERM)
"""
    ran = runner.run(code, name="a.csv", out=str(tmp_path))
    assert (ran["code"], ran["steps"]) == (143, 20), ran["output"]
    check(tmp_path / "a.h5", ran, truth)


# Python's exit.


def test_an_environment_that_is_forgotten_is_closed_at_exit(runner, truth, tmp_path):
    code = f"""{OPEN}
def main():
    env = make()
    for _ in range(20):
        step(env)

main()
import gc
gc.collect()
"""
    ran = runner.run(code, name="a.h5", out=str(tmp_path))
    assert (ran["code"], ran["steps"], ran["output"]) == (0, 20, "")
    check(tmp_path / "a.h5", ran, truth)


@pytest.mark.parametrize("name", ["a.csv", "a.h5"])
def test_a_full_disk_at_exit_is_told_in_one_line(name, runner, tmp_path):
    """A limit on file sizes stands for a full disk."""
    code = f"""
import resource, sys
sys.dont_write_bytecode = True  # Python would leave cut files in __pycache__.
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))
{OPEN}
cfg = kinds[job["name"]](path=f"{{out}}/{{job['name']}}", channels=("state",),
    block_steps=1000, block_seconds=1e9)
env = ManagerBasedRlEnv(cart_cfg(64, recorders={{"log": cfg}}))
env.reset()
for action in actions(300, 64):
    env.step(action)
"""
    ran = runner.run(code, name=name, out=str(tmp_path))
    assert ran["code"] == 0
    (line,) = (line for line in ran["output"].splitlines() if "has no rows" not in line)
    assert "could not finish its recording" in line and "File too large" in line


def test_a_fault_of_the_program_at_exit_has_a_traceback(caplog):
    def fail() -> None:
        raise DataError("writing failed") from KeyError("x")

    noting(FakeEnv(), close=fail)
    noting(FakeEnv())
    shutdown._close_all()
    assert "Noting could not finish its recording: writing failed" in caplog.text
    assert "KeyError: 'x'" in caplog.text
    assert shutdown._open == {}
