"""Runs that signals end: one process imports everything once, and forks a process for each run.

As a script it reads jobs from stdin, one line of JSON each, and answers each with a line of JSON.
A forked process continues as if it had just been started: its code runs in the script's outermost
frame, and Python ends it as it ends any program.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from waiting import PATIENCE_S

TESTS = Path(__file__).parent


class Runner:
    """Starts runs, from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "exit_runs.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        )

    def run(self, code: str, **job: Any) -> dict[str, Any]:
        """Run code and send it signals; returns its code, output and the steps it has taken.

        In the code, ``out`` is a folder, ``step(env)`` takes and counts a step, and ``job`` has
        the values given. ``signals`` are the numbers of the signals to send, ``at`` the step after
        which to send the first, ``gap`` the most seconds that go by before each. ``quick`` leaves
        out what Python does after ``atexit``, and the exit code.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"code": code, **job}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process that starts the runs."""
        self._process.communicate()


def serve() -> tuple[dict[str, Any], mmap.mmap] | None:
    """Fork a process for each job; returns the job in these processes, and None at the end."""
    for line in sys.stdin:
        job = json.loads(line)
        steps = mmap.mmap(-1, 8)
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os.dup2(output.fileno(), 2)
                os.dup2(2, 1)
                os.setpgid(0, 0)
                return job, steps
            code = send_signals(child, job, steps)
            output.seek(0)
            answer = {"code": code, "steps": taken(steps), "output": output.read()}
        print(json.dumps(answer), flush=True)
    return None


def taken(steps: mmap.mmap) -> int:
    """Steps that a run has counted."""
    return int.from_bytes(steps[:], "little")


def send_signals(child: int, job: dict[str, Any], steps: mmap.mmap) -> int:
    """Send a run its signals and wait for its end; returns its exit code."""
    chance = random.Random(job.get("seed", 0))
    deadline = time.monotonic() + PATIENCE_S
    signals, ended = list(job.get("signals", ())), 0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if signals and taken(steps) >= job["at"]:
            time.sleep(chance.random() * job.get("gap", 0.002))
            os.kill(child, signals.pop(0))
        else:
            time.sleep(0.0005 if signals else 0.002)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGUSR1)  # Its threads' tracebacks, into its output.
            time.sleep(1.0)
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Some shells have it ignored.
    sys.path.insert(0, str(TESTS))
    import mjbatch  # noqa: F401
    import torch
    from worlds import actions, cart_cfg  # noqa: F401

    import mjlab_rec.commands.play  # noqa: F401
    import mjlab_rec.recorders as recorders  # noqa: F401
    from mjlab_rec.data.formats import writer_class
    from mjlab_rec.envs import ManagerBasedRlEnv  # noqa: F401

    torch.set_num_threads(1)
    # Not "csv": Polars starts threads when it is imported, and a fork copies the locks they hold.
    writer_class("hdf5")
    ACTIONS = actions(50)
    given = serve()
    if given is not None:
        job, counter = given
        out = job.get("out", "")
        faulthandler.register(signal.SIGUSR1)
        if job.get("quick"):
            atexit.register(os._exit, 0)  # After everything that matters here.

        def step(env: Any) -> None:
            """Take a step and count it."""
            done = taken(counter)
            env.step(ACTIONS[done % len(ACTIONS)])
            counter[:] = (done + 1).to_bytes(8, "little")

        exec(compile(job["code"], "<run>", "exec"))
