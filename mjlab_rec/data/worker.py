"""A thread that works on items in order, at its own pace; what it raises comes back."""

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

STEP_BACK = 5
"""Niceness that lets the simulation's threads go first, so that no step is slow because a block is
written. Only a little: until a block is written, a kill would lose it."""


class Worker(Generic[Item]):
    """Does `work` on items in another thread, in the order in which they were submitted.

    After an error no more work is done, but items are still taken and given to `release`, so that
    callers that wait for one of them go on. The error comes back in ``check``, ``submit`` and
    ``wait``.

    Args:
        name: Name of the thread, for debuggers and error messages.
        work: Called with each item.
        doing: What the work is, for error messages: "writing" or "drawing".
        release: Called with each item afterwards, also if `work` failed or was left out.
        finish: Called in the thread when all is over, also after an error.
        capacity: How many submitted items may be unfinished while ``ready`` says yes. None sets no
            limit.
        max_hz: Items per second at most, unless a caller waits; None sets no limit.
        niceness: How far the thread steps back behind others. Linux only: elsewhere the whole
            process would.
        clock: Seconds on the wall.
        pause: Waits for an event, at most this many seconds, and tells whether it was set.
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
        # Counts without a lock, which a signal handler that submits could find taken by its own
        # thread: one entry for each item that is not finished.
        self._unfinished: deque[None] = deque()
        self._hurry = threading.Event()  # A caller waits: no pauses.
        self._pid = os.getpid()
        # A daemon, or Python would wait for it at exit before anybody can tell it to finish.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that the thread runs in."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did."""
        if self.forked:
            raise DataError(
                f"{self.name}: this process was forked from the one that is {self._doing}, and has"
                " no thread for it. Make a new environment in each process, or start them with"
                " multiprocessing's 'spawn'."
            )
        if self.error is not None:
            raise DataError(f"{self.name}: {self._doing} failed: {self.error}") from self.error

    def ready(self) -> bool:
        """Whether there is room for another item. Callers that need only the newest one ask."""
        return self._capacity is None or len(self._unfinished) < self._capacity

    def submit(self, item: Item) -> None:
        """Hand over an item, whether or not there is room; returns at once."""
        self.check()
        if not self._thread.is_alive():
            raise DataError(f"{self.name}: {self._doing} has been finished; nothing can be added.")
        self._unfinished.append(None)
        self._items.put(item)

    def pause_until(self, moment: float) -> None:
        """For `work`: step back until then, unless a caller waits or another item is there.

        Args:
            moment: What the clock says then.
        """
        rest = moment - self._clock()
        if rest > 0 and len(self._unfinished) < 2:
            self._pause(self._hurry, rest)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything submitted so far is done, without pauses between items.

        Raises DataError if that takes longer than `timeout` seconds; the work goes on.
        """
        self.check()
        if self._thread.is_alive():
            done = _Mark()
            self._hurry.set()
            self._items.put(done)
            if not done.wait(timeout):
                raise DataError(
                    f"{self.name}: {self._doing} is not done after {timeout:g} seconds:"
                    f" {len(self._unfinished)} are left. Wait longer, or find out what holds it up."
                )
        self.check()

    def finish(self) -> None:
        """Wait until everything submitted is done, and end the thread. Idempotent."""
        if self.forked or not self._thread.is_alive():
            return
        self._hurry.set()
        self._items.put(_END)
        self._thread.join()

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        if self._niceness and sys.platform == "linux":
            with contextlib.suppress(OSError):
                niceness = max(self._niceness, os.getpriority(os.PRIO_PROCESS, 0))
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
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
        """Call a function; the first error of all is kept."""
        try:
            function(*args)
        except BaseException as error:
            self.error = self.error or error


class _Mark(threading.Event):
    """A place in the queue, set when it is reached."""
