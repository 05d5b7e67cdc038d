"""The thread that writes: what it is given goes to disk in order, what it raises comes back."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mjlab_rec.data.schema import DataError

Item = TypeVar("Item")

_END = object()
_NICENESS = 5


class WriterThread(Generic[Item]):
    """Does `work` on items in another thread, in the order in which they were submitted.

    After an error nothing more is done, but items are still taken and given to `release`, so that
    whoever waits for one of them goes on.

    Args:
        name: Name of the thread, for debuggers and error messages.
        work: Called with each item.
        release: Called with each item afterwards, also if `work` failed or was left out.
    """

    def __init__(
        self, name: str, work: Callable[[Item], None], release: Callable[[Item], None]
    ) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._work = work
        self._release = release
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pid = os.getpid()
        # A daemon, or Python would wait for it at exit before anybody can tell it to finish.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Hand over an item; returns at once."""
        self.check()
        self._items.put(item)

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did."""
        if self.forked:
            raise DataError(
                f"{self.name}: this process was forked from the one that records, and has no"
                " writer thread. Make a new environment in each process, or start them with"
                " multiprocessing's 'spawn'."
            )
        if self.error is not None:
            raise DataError(f"{self.name}: writing failed: {self.error}") from self.error

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that the thread runs in."""
        return os.getpid() != self._pid

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything submitted so far is done."""
        self.check()
        done = threading.Event()
        self._items.put(done)
        if not done.wait(timeout):
            raise DataError(f"{self.name}: not everything was written within {timeout} s.")
        self.check()

    def finish(self) -> None:
        """Wait until everything submitted is done, and end the thread. Idempotent."""
        if self.forked or not self._thread.is_alive():
            return
        self._items.put(_END)
        self._thread.join()

    def _run(self) -> None:
        _step_back()
        while (item := self._items.get()) is not _END:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                if self.error is None:
                    self._work(item)
            except BaseException as error:
                self.error = error
            finally:
                self._release(item)


def _step_back() -> None:
    """Let the simulation's threads go first, so that no step is slow because a block is written.

    Only a little: until a block is written, a kill would lose it. On Linux threads have a priority
    of their own; elsewhere the whole process would step back.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
