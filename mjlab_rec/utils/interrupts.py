"""Regions of code that signals do not break off, since nothing in them may be left half done."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, get_ident, main_thread
from threading import enumerate as enumerate_threads
from weakref import WeakSet

logger = logging.getLogger(__name__)


class Uninterrupted:
    """A region of code that signal handlers do not break off, if they ask whether they may.

    ``with uninterrupted:`` costs some 0.2 us and may be nested. Python calls signal handlers in
    the main thread only, so in other threads it has no effect. A handler that finds ``active``
    leaves what it wants to do in ``then``; that is called when the region is left.
    """

    def __init__(self) -> None:
        self.then: Callable[[], None] | None = None
        """Called once, when the outermost region is left; it may raise."""
        self.ending = False
        """Whether the process is ending."""
        self._main = main_thread().ident
        self._threads: WeakSet[Thread] = WeakSet()
        self._depth = 0
        self._finishing = 0
        os.register_at_fork(after_in_child=self._begin_process)

    @property
    def active(self) -> bool:
        """Whether the main thread is in such a region."""
        return self._depth > 0

    @property
    def is_finishing(self) -> bool:
        """Whether the main thread is in a region that may take a while."""
        return self._finishing > 0

    def begin_step(self) -> None:
        """End this thread by SystemExit if the process is ending and it is not the main one.

        Where ``ending`` is true, a thread that goes on while Python comes to its end would crash.
        """
        if get_ident() != self._main:
            self._threads.add(current_thread())
            if self.ending:
                raise SystemExit

    def wait_for_threads(self, seconds: float) -> None:
        """Wait until the threads that began a step have ended, but not for longer than this."""
        until = time.monotonic() + seconds
        # Not by join(): where one is interrupted, Python 3.11 takes the thread for ended.
        while any(thread in self._threads for thread in enumerate_threads()):
            if time.monotonic() > until:
                break
            time.sleep(0.002)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """A region that may take a while, since files are finished in it."""
        here = get_ident() == self._main
        with self:
            self._finishing += here
            try:
                yield
            finally:
                self._finishing -= here

    # Python looks for signals where a function begins and after each call, not in between: a
    # handler never sees a region that is half entered.

    def __enter__(self) -> None:
        if get_ident() == self._main:
            self._depth += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if get_ident() == self._main and self._depth:
            depth = self._depth = self._depth - 1
            if self.then is not None and not depth:
                self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        then, self.then = self.then, None
        if then is None:
            return
        try:
            then()
        except BaseException:
            if isinstance(error, Exception):  # Whoever catches the signal's never sees it.
                logger.error("A signal takes the place of this error:", exc_info=error)
            raise

    def _begin_process(self) -> None:
        """Forget the regions of the process that this one was forked from."""
        self._main = get_ident()
        self._threads.clear()
        self._depth = self._finishing = 0
        self.then, self.ending = None, False


uninterrupted = Uninterrupted()
"""The regions of this process."""
