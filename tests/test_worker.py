"""The worker thread: order, rate, errors and forks."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from waiting import PATIENCE_S

from mjlab_rec.data.schema import DataError
from mjlab_rec.data.worker import WRITER_NICENESS, Worker


@pytest.fixture
def gate():
    """An event that the workers of a test wait for; it is set at the end."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_items_are_processed_in_order_in_one_other_thread():
    done, threads = [], set()

    def work(item):
        done.append(item)
        threads.add(threading.get_ident())

    worker = Worker("w", work)
    for item in range(200):
        worker.submit(item)
    worker.wait()
    assert done == list(range(200))
    worker.submit("last")
    worker.finish()
    assert done[-1] == "last"
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_an_error_is_raised_later_and_items_are_still_released():
    released = []

    def work(item):
        if item == "bad":
            raise OSError("no space")

    worker = Worker("Recorder", work, release=released.append)
    for item in ("good", "bad"):
        worker.submit(item)
    with pytest.raises(DataError, match="Recorder: writing failed: no space") as caught:
        worker.wait()
    assert isinstance(caught.value.__cause__, OSError)
    for call in (worker.check, lambda: worker.submit("more"), worker.wait):
        with pytest.raises(DataError, match="no space"):
            call()
    worker.finish()
    assert released == ["good", "bad"]


def test_after_an_error_waiting_items_are_skipped(gate):
    done, released, ended = [], [], []

    def work(item):
        gate.wait(PATIENCE_S)
        done.append(item)
        raise RuntimeError("first")

    def finish():
        ended.append(True)
        raise RuntimeError("second")

    worker = Worker("w", work, doing="drawing", release=released.append, finish=finish)
    for item in range(3):
        worker.submit(item)
    gate.set()
    worker.finish()
    assert (done, released, ended) == ([0], [0, 1, 2], [True])
    with pytest.raises(DataError, match="w: drawing failed: first"):
        worker.check()


def test_a_release_that_fails_does_not_leave_others_waiting():
    def release(item):
        raise RuntimeError("not released")

    worker = Worker("w", lambda item: None, release=release)
    worker.submit(1)
    with pytest.raises(DataError, match="not released"):
        worker.wait(PATIENCE_S)
    worker.finish()


def test_a_timeout_reports_what_is_not_done_and_the_work_continues(gate):
    done = []

    def work(item):
        gate.wait(PATIENCE_S)
        done.append(item)

    worker = Worker("Recorder", work)
    worker.submit("a")
    worker.submit("b")
    with pytest.raises(DataError, match="Recorder: writing is not done after 0 seconds: 2 are"):
        worker.wait(0)
    gate.set()
    worker.wait(PATIENCE_S)
    assert done == ["a", "b"]
    worker.finish()


def test_a_finished_worker_does_not_wait_and_refuses_items():
    worker = Worker("w", lambda item: None)
    worker.finish()
    worker.finish()
    worker.wait()
    with pytest.raises(DataError, match="w: writing has been finished"):
        worker.submit(1)


def test_there_is_room_for_capacity_items(gate):
    worker = Worker("w", lambda item: gate.wait(PATIENCE_S), capacity=2)
    room = []
    for item in range(3):
        room.append(worker.ready())
        worker.submit(item)  # accepted: required work must not be lost
    assert room == [True, True, False]
    gate.set()
    worker.wait()
    assert worker.ready()
    worker.finish()
    unlimited = Worker("w", lambda item: None)
    assert unlimited.ready()
    unlimited.finish()


def test_max_hz_limits_the_rate_of_items():
    now, pauses, done = [100.0], [], []
    paused = threading.Event()

    def work(item):
        now[0] += 0.01 if item == "a" else 0.5
        done.append(item)

    def pause(event, seconds):
        paused.set()
        pauses.append((seconds, event.wait(PATIENCE_S)))
        return pauses[-1][1]

    worker = Worker(
        "plot",
        work,
        finish=lambda: done.append("end"),
        capacity=1,
        max_hz=10.0,
        clock=lambda: now[0],
        pause=pause,
    )
    assert worker.ready()
    worker.submit("a")
    assert paused.wait(PATIENCE_S)
    assert not worker.ready()  # It was worked on, but the next one is not due.
    worker.submit("b")
    worker.wait(PATIENCE_S)  # A caller waits, so the item does not wait for its time.
    assert done == ["a", "b"]
    ((seconds, was_told),) = pauses
    assert seconds == pytest.approx(0.09) and was_told
    assert worker.ready()
    worker.submit("c")  # Takes longer than the time between two.
    worker.finish()
    assert done == ["a", "b", "c", "end"] and len(pauses) == 1


def test_pause_until_waits_unless_a_caller_or_an_item_waits(gate):
    now, pauses = [0.0], []

    def pause(event, seconds):
        pauses.append((round(seconds, 6), event.is_set()))
        return event.is_set()

    def work(item):
        now[0] += 1.0
        if item == "alone":
            worker.pause_until(now[0] + 0.5)
            worker.pause_until(now[0] - 0.5)  # Work is already late.
        elif item == "first":
            gate.wait(PATIENCE_S)
            worker.pause_until(now[0] + 0.5)

    worker = Worker("w", work, clock=lambda: now[0], pause=pause)
    worker.submit("alone")
    worker.wait(PATIENCE_S)
    assert [seconds for seconds, _ in pauses] == [0.5]
    worker.submit("first")
    worker.submit("second")
    gate.set()
    worker.finish()
    assert len(pauses) == 1


def test_a_forked_child_gets_an_error_and_does_not_wait(monkeypatch):
    worker = Worker("Recorder", lambda item: None)
    own = os.getpid()
    monkeypatch.setattr("os.getpid", lambda: own + 1)
    assert worker.forked
    for call in (worker.check, lambda: worker.submit(1), worker.wait):
        with pytest.raises(DataError, match="Recorder: this process was forked.*'spawn'"):
            call()
    worker.finish()
    monkeypatch.undo()
    worker.check()
    worker.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_only_the_thread_gets_a_higher_niceness():
    found = []
    before = os.getpriority(os.PRIO_PROCESS, 0)

    def work(item):
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    for niceness in (0, WRITER_NICENESS):
        worker = Worker("w", work, niceness=niceness)
        worker.submit(None)
        worker.finish()
    assert found == [before, max(before, WRITER_NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
