"""A thread that works on the newest of what it is given, and leaves out what it has no time for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Does `work` on items in another thread. An item that is not begun is replaced by the next.

    Args:
        name: Name of the thread.
        work: Called with an item. What it raises comes back from ``offer``.
    """

    def __init__(self, name: str, work: Callable[[Item], None]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._item: list[Item] = []
        self._busy = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it has not finished what it was given."""
        return self._busy

    def offer(self, item: Item) -> None:
        """Hand over an item; returns at once."""
        with self._changed:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._item = [item]
            self._busy = True
            self._changed.notify()

    def close(self) -> None:
        """Finish the item in work, and end the thread; log what went wrong. Idempotent."""
        with self._changed:
            self._ended = True
            self._item = []
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            logger.error("%s failed.", self._thread.name, exc_info=error)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._item and not self._ended:
                    self._busy = False
                    self._changed.wait()
                if self._ended:
                    self._busy = False
                    return
                item = self._item.pop()
            try:
                self._work(item)
            except BaseException as error:
                self._error = error
