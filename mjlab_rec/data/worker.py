"""A thread that works on items in order. Callers get its errors later."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mjlab_rec.data.schema import DataError

Item = TypeVar("Item")

_END = object()

WRITER_NICENESS = 5
"""Niceness of threads that write: the simulation's threads go first, so that writing a block does
not slow down a step. It is low, because a kill loses a block until it is written."""


def be_nice(niceness: int) -> None:
    """Give the calling thread a niceness, if it has a lower one. Linux only."""
    if niceness and sys.platform == "linux":
        with contextlib.suppress(OSError):
            niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, 0))
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class Worker(Generic[Item]):
    """Does `work` on items in another thread, in the order in which they were submitted.

    After an error no more work is done, but items are still taken and passed to `release`, so that
    callers that wait for one of them do not hang. ``check``, ``submit`` and ``wait`` raise the
    error.

    Args:
        name: Name of the thread, for debuggers and error messages.
        work: Called with each item.
        doing: What the work is, for error messages: "writing" or "drawing".
        release: Called with each item afterwards, also if `work` failed or was skipped.
        finish: Called in the thread at the end, also after an error.
        capacity: ``ready`` is True while fewer items than this are unfinished. None: no limit.
        max_hz: Maximum number of items per second, unless a caller waits. None: no limit.
        niceness: Niceness of the thread. Linux only: elsewhere it would apply to the whole process.
        clock: Returns the time in seconds.
        pause: Waits for an event, at most this many seconds; returns whether it was set.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Item], None],
        *,
        doing: str = "writing",
        release: Callable[[Item], None] | None = None,
        finish: Callable[[], None] | None = None,
        capacity: int | None = None,
        max_hz: float | None = None,
        niceness: int = 0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._work, self._release, self._finish = work, release, finish
        self._doing = doing
        self._capacity = capacity
        self._period = 0.0 if max_hz is None else 1.0 / max_hz
        self._niceness = niceness
        self._clock, self._pause = clock, pause
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # One entry for each unfinished item. A counter with a lock could deadlock if a signal
        # handler submits while its own thread holds the lock.
        self._unfinished: deque[None] = deque()
        self._hurry = threading.Event()  # A caller waits: no pauses.
        self._pid = os.getpid()
        # A daemon, or Python would wait for it at exit before exit handlers can finish it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that the thread runs in."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise the thread's error, if it had one."""
        if self.forked:
            raise DataError(
                f"{self.name}: this process was forked from one that is {self._doing}, and the"
                " thread that does it exists only there. Make a new environment in each process,"
                " or start processes with multiprocessing's 'spawn'."
            )
        if self.error is not None:
            raise DataError(f"{self.name}: {self._doing} failed: {self.error}") from self.error

    def ready(self) -> bool:
        """Whether there is room for another item. For callers that may skip items."""
        return self._capacity is None or len(self._unfinished) < self._capacity

    def submit(self, item: Item) -> None:
        """Add an item, whether or not there is room; returns immediately."""
        self.check()
        if not self._thread.is_alive():
            raise DataError(
                f"{self.name}: {self._doing} has been finished; nothing more can be added."
            )
        self._unfinished.append(None)
        self._items.put(item)

    def pause_until(self, moment: float) -> None:
        """For `work`: wait until then, unless a caller waits or there is another item.

        Args:
            moment: Time of the clock, in seconds.
        """
        rest = moment - self._clock()
        if rest > 0 and len(self._unfinished) < 2:
            self._pause(self._hurry, rest)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything submitted so far is done, without pauses between items.

        Raises DataError if that takes longer than `timeout` seconds. The work continues.
        """
        self.check()
        if self._thread.is_alive():
            done = _Mark()
            self._hurry.set()
            self._items.put(done)
            if not done.wait(timeout):
                raise DataError(
                    f"{self.name}: {self._doing} is not done after {timeout:g} seconds:"
                    f" {len(self._unfinished)} are left. Wait longer, or find out what blocks it."
                )
        self.check()

    def finish(self) -> None:
        """Wait until everything submitted is done, and end the thread. May be called twice."""
        if self.forked or not self._thread.is_alive():
            return
        self._hurry.set()
        self._items.put(_END)
        self._thread.join()

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        be_nice(self._niceness)
        while (item := self._items.get()) is not _END:
            if isinstance(item, _Mark):
                self._hurry.clear()
                item.set()
                continue
            began = self._clock()
            if self.error is None:
                self._guard(self._work, item)
            if self._release is not None:
                self._guard(self._release, item)
            rest = self._period - (self._clock() - began)
            if rest > 0 and self.error is None:
                self._pause(self._hurry, rest)
            self._unfinished.popleft()
        if self._finish is not None:
            self._guard(self._finish)

    def _guard(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function and keep its error, if it is the first one."""
        try:
            function(*args)
        except BaseException as error:
            self.error = self.error or error


class _Mark(threading.Event):
    """An entry of the queue that is set when the thread reaches it."""
