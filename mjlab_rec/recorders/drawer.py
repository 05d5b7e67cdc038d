"""The thread that draws: it takes the newest that there is, at its own rate."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mjlab_rec.data.schema import DataError

Item = TypeVar("Item")

_END = object()


class Drawer(Generic[Item]):
    """Draws items in another thread, and says when it would take the next one.

    Whoever has something new asks ``ready`` first and leaves it if the answer is no: what comes
    later is newer. An error ends the drawing and comes back in ``check``.

    Args:
        name: Name of the thread, for debuggers and error messages.
        draw: Called with each item, and whether somebody waits for it.
        finish: Called in the thread when all is over.
        max_hz: Items per second at most; None sets no limit.
        capacity: How many items may wait. More than one makes it a queue, for which ``max_hz``
            has no meaning.
        clock: Seconds on the wall.
        wait: Waits so many seconds for an event and tells whether it was set.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[Item, bool], None],
        finish: Callable[[], None],
        max_hz: float | None = None,
        capacity: int = 1,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._draw, self._finish = draw, finish
        self._period = 0.0 if max_hz is None else 1.0 / max_hz
        self._capacity = capacity
        self._clock, self._wait = clock, wait
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._hurry = threading.Event()  # Somebody waits for a picture: no pause after this one.
        self._free = threading.Semaphore(capacity)
        self._pid = os.getpid()
        # A daemon, or Python would wait for it at exit before anybody can tell it to finish.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that the thread runs in."""
        return os.getpid() != self._pid

    def ready(self) -> bool:
        """Whether it would take an item now; the caller must ``submit`` one if so. Never waits."""
        return self._free.acquire(blocking=False)

    def submit(self, item: Item) -> None:
        """Hand over an item after ``ready`` said yes; returns at once."""
        self._items.put((item, None))

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did."""
        if self.error is not None:
            raise DataError(f"{self.name}: drawing failed: {self.error}") from self.error
        if self.forked:
            raise DataError(
                f"{self.name}: this process was forked from the one that draws, and has no drawing"
                " thread. Make a new environment in each process, or start them with"
                " multiprocessing's 'spawn'."
            )

    def draw_now(self, item: Item) -> None:
        """Draw an item after those that wait already, and wait until it is done."""
        self.check()
        done = threading.Event()
        self._hurry.set()
        self._items.put((item, done))
        done.wait()
        self.check()

    def finish(self) -> None:
        """Draw what waits, and end the thread. Idempotent."""
        if self.forked or not self._thread.is_alive():
            return
        self._hurry.set()
        self._items.put(_END)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._items.get()) is not _END:
            item, done = entry
            began = self._clock()
            try:
                if self.error is None:
                    self._draw(item, done is not None)
            except BaseException as error:
                self.error = error
            if done is not None:
                self._hurry.clear()
                done.set()
                continue
            rest = self._period - (self._clock() - began)
            if rest > 0:
                self._wait(self._hurry, rest)
            self._free.release()
        try:
            self._finish()
        except BaseException as error:
            self.error = self.error or error
