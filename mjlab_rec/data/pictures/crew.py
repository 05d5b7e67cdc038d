"""Threads that share the work on a list of items with the thread that waits for it."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
import weakref
from collections.abc import Callable

from mjlab_rec.data.worker import be_nice
from mjlab_rec.utils.threads import usable_cores

_MOST = 8


class Crew:
    """Calls a function for each of many items, in several threads.

    The calling thread works, too. So the work is also done where no threads can be started, such as
    at the end of a program, and in a forked process, which has none of its parent's threads.

    Args:
        name: Name of the threads, for debuggers.
        threads: How many work, the caller included. None: one per core.
        niceness: Niceness of the threads.
    """

    def __init__(self, name: str, threads: int | None = None, niceness: int = 0) -> None:
        self._given = threads
        self._name, self._niceness = name, niceness
        self._pid = 0  # of the process in which the threads run
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stop: Callable[[], object] = lambda: None

    @functools.cached_property
    def threads(self) -> int:
        """How many work, the caller included."""
        return self._given or min(_MOST, usable_cores())

    def each(self, work: Callable[[int], object], count: int) -> None:
        """Call ``work`` with each number below `count`; raises its first error."""
        job = _Job(work, count)
        helpers = min(self.threads, count) - 1
        if helpers > 0:
            self._start()
            for _ in range(helpers):
                self._jobs.put(job)
        job.take_part()
        job.wait()

    def close(self) -> None:
        """End the threads. They start again if there is more work."""
        self._pid = 0
        self._stop()

    def _start(self) -> None:
        # A process that was forked while another thread held the lock must not wait for it.
        if self._pid == os.getpid() or not self._lock.acquire(blocking=False):
            return
        try:
            if self._pid != os.getpid():
                self._start_threads()
        finally:
            self._lock.release()

    def _start_threads(self) -> None:
        self._jobs = queue.SimpleQueue()
        started = 0
        with contextlib.suppress(RuntimeError):  # A program that ends cannot start threads.
            for _ in range(self.threads - 1):
                threading.Thread(
                    target=_help, args=(self._jobs, self._niceness), name=self._name, daemon=True
                ).start()
                started += 1
        self._stop = weakref.finalize(self, _end, self._jobs, started)
        self._pid = os.getpid()


class _Job:
    def __init__(self, work: Callable[[int], object], count: int) -> None:
        self._work, self._count = work, count
        self._next = self._active = 0
        self._error: BaseException | None = None
        self._failed = count  # The first item that had an error.
        self._idle = threading.Condition()

    def take_part(self) -> None:
        """Work until all items are taken, or one had an error."""
        while (item := self._take()) is not None:
            error = None
            try:
                self._work(item)
            except BaseException as raised:
                error = raised
            with self._idle:
                # Items are taken in order, so the first error does not depend on the threads.
                if error is not None and item < self._failed:
                    self._error, self._failed = error, item
                self._active -= 1
                if not self._active:
                    self._idle.notify_all()

    def wait(self) -> None:
        """Wait for the items that other threads have taken; raises the first item's error."""
        with self._idle:
            while self._active:
                self._idle.wait()
        if self._error is not None:
            raise self._error

    def _take(self) -> int | None:
        with self._idle:
            if self._next >= self._count or self._error is not None:
                return None
            self._next += 1
            self._active += 1
            return self._next - 1


def _help(jobs: queue.SimpleQueue[_Job | None], niceness: int) -> None:
    be_nice(niceness)
    while (job := jobs.get()) is not None:
        job.take_part()
        del job  # It refers to the memory of its items.


def _end(jobs: queue.SimpleQueue[_Job | None], count: int) -> None:
    for _ in range(count):
        jobs.put(None)
