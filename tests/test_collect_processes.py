"""Processes that play shards: their start and end, with processes that do not exist."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from collect_tasks import a_plan
from rich.console import Console

from mjlab_rec.collecting import Folder, processes
from mjlab_rec.collecting.board import Board
from mjlab_rec.collecting.folder import CollectError
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.interrupts import end_by_exit, uninterrupted

PLAN = a_plan(episodes=4, num_envs=1, per_env=1)


class FakeProcess:
    """A process that exists in this list of calls only."""

    calls: list[tuple[str, Any]] = []

    def __init__(self, target: Any, args: Any, name: str, daemon: bool) -> None:
        self.name, self.sentinel = name, -1

    def start(self) -> None:
        self.calls.append(("start", signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.calls.append((name, self.name))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    class Context:
        Pipe = staticmethod(multiprocessing.Pipe)
        Process = FakeProcess

    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: Context)
    monkeypatch.setattr(FakeProcess, "calls", [])
    return FakeProcess.calls


def test_ctrl_c_does_not_reach_a_process_from_its_first_moment(calls, tmp_path):
    """It would print a traceback for each, while they import their packages."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    processes._Process(0, lambda number: None, Folder(tmp_path)).end()  # type: ignore[arg-type]
    assert calls[0][0] == "start" and signal.SIGINT in calls[0][1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_process_that_ends_is_waited_for_before_it_is_ended(calls, tmp_path):
    """Else its exit code would be that of the signal."""
    process = processes._Process(0, lambda number: None, Folder(tmp_path))  # type: ignore[arg-type]
    assert process.received() == [] and process.ended
    assert [name for name, _ in calls[1:3]] == ["join", "terminate"]


def test_more_signals_do_not_interrupt_a_process_that_is_ending(tmp_path, monkeypatch):
    """Such as those that come while it removes what it was writing, or when all is done."""
    handlers: dict[Any, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)

    def make(number: int) -> Any:
        handlers[signal.SIGTERM](signal.SIGTERM, None)

    ours, theirs = multiprocessing.Pipe()
    with ours, theirs, pytest.raises(SystemExit, match="143"):
        processes._work(make, 0, str(tmp_path), theirs)
    assert handlers[signal.SIGTERM] == signal.SIG_IGN
    handlers.clear()
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    processes._work(lambda number: None, 0, str(tmp_path), theirs)  # type: ignore[arg-type, return-value]
    theirs.close()
    assert handlers[signal.SIGTERM] == signal.SIG_IGN


def test_a_signal_comes_again_where_python_would_drop_its_exception(monkeypatch):
    sent: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    monkeypatch.setattr(threading.Timer, "start", threading.Timer.run)
    monkeypatch.setattr("mjlab_rec.utils.interrupts._AGAIN_S", 0.0)

    class Dropped:
        def __del__(self) -> None:
            end_by_exit(signal.SIGTERM, sys._getframe())

    Dropped()
    assert sent == [(os.getpid(), signal.SIGTERM)]
    uninterrupted(lambda: end_by_exit(signal.SIGTERM, sys._getframe()))()
    assert len(sent) == 2
    with pytest.raises(SystemExit, match="143"):
        end_by_exit(signal.SIGTERM, sys._getframe())


def test_an_error_is_the_same_in_the_first_process():
    """Such as those of recorders that cannot close because the disk is full."""
    first, second = CollectError("the disk is full"), KeyError("a bug")
    sent = pickle.loads(pickle.dumps(processes._sendable(ExceptionGroup("all", [first, second]))))
    assert isinstance(sent, ExceptionGroup)
    assert isinstance(sent.exceptions[0], DataError) and str(sent.exceptions[0]) == str(first)
    assert type(sent.exceptions[1]) is RuntimeError and "KeyError" in str(sent.exceptions[1])


def test_all_processes_are_told_to_end_before_any_is_waited_for(calls, tmp_path, monkeypatch):
    """They may take a while, and SLURM kills what does not end soon."""

    def interrupted(ready: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait", interrupted)
    board = Board(PLAN.shards, PLAN.shards, Console(quiet=True))
    with contextlib.suppress(KeyboardInterrupt):
        processes.collect_in_processes(
            lambda number: None,  # type: ignore[arg-type, return-value]
            Folder(tmp_path),
            list(PLAN.shards),
            3,
            board,
        )
    names = [name for name, _ in calls]
    assert names[3:6] == ["terminate"] * 3 and names.count("join") >= 3


def test_a_process_ends_quietly_if_the_first_one_is_gone(tmp_path, monkeypatch):
    ours, theirs = multiprocessing.Pipe()
    ours.send(PLAN.shards[0])

    def do_shard(work: Any, folder: Any, shard: Any, tell: Callable[[int, int], None]) -> None:
        ours.close()
        tell(1, 1)

    monkeypatch.setattr(processes, "do_shard", do_shard)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    processes._work(lambda number: None, 0, str(tmp_path), theirs)  # type: ignore[arg-type, return-value]
    theirs.close()


def test_a_process_ends_quietly_if_what_it_sent_was_never_read(tmp_path, monkeypatch):
    """Reading fails as it does if the other end was closed with unread data in it."""
    sent: list[Any] = []
    given: list[Any] = [PLAN.shards[0]]

    def recv() -> Any:
        if given:
            return given.pop()
        raise ConnectionResetError

    connection: Any = SimpleNamespace(send=sent.append, recv=recv)
    monkeypatch.setattr(processes, "do_shard", lambda *args: "about")
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    processes._work(lambda number: None, 0, str(tmp_path), connection)  # type: ignore[arg-type, return-value]
    assert sent == [("done", "about")]
