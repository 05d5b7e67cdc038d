"""Functions that signals do not break off, since they must not be left half done."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import ParamSpec, TypeVar
from weakref import WeakSet

logger = logging.getLogger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Interrupts:
    """What the handlers of signals have to know of a process, and leave for later.

    Python calls these handlers in its main thread only.
    """

    def __init__(self) -> None:
        self.main = threading.main_thread().ident
        """The main thread."""
        self.depth = 0
        """How many functions are running in the main thread that must not be interrupted."""
        self.finishing = 0
        """How many of them may take a while."""
        self.then: Callable[[], None] | None = None
        """Called once, when the outermost of them is over; it may raise."""
        self.ending = False
        """Whether the process is ending."""
        self._threads: WeakSet[threading.Thread] = WeakSet()  # Those that have begun a step.
        os.register_at_fork(after_in_child=self._begin_process)

    def leave(self, error: BaseException | None) -> None:
        """Do what was put off until now, also if the function that was waited for has failed."""
        then, self.then = self.then, None
        if then is None:
            return
        try:
            then()
        except BaseException:
            if error is not None:  # Whoever catches the signal's never sees it.
                logger.error("A signal takes the place of this error:", exc_info=error)
            raise

    def begin_step(self) -> None:
        """End this thread by SystemExit if the process is ending and it is not the main one.

        A thread that went on while Python takes itself apart would crash the process.
        """
        if get_ident() != self.main:
            self._threads.add(threading.current_thread())
            if self.ending:
                raise SystemExit

    def wait_for_threads(self, seconds: float) -> None:
        """Wait until the threads that began a step have ended, but not for longer than this."""
        until = time.monotonic() + seconds
        # Not by join(): where one is interrupted, Python 3.11 takes the thread for ended.
        while any(thread in self._threads for thread in threading.enumerate()):
            if time.monotonic() > until:
                break
            time.sleep(0.002)

    def _begin_process(self) -> None:
        """Forget what belongs to the process that this one was forked from."""
        self.main = get_ident()
        self.depth = self.finishing = 0
        self.then, self.ending = None, False
        self._threads.clear()


interrupts = Interrupts()
"""Those of this process."""


# Python looks for signals where a function begins and after it has called one that is written in C,
# not in between: no handler, whatever it raises, comes between a change of depth and its `try`.


def uninterrupted(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function that signals must not break off; it costs some 0.2 us.

    A handler that finds ``interrupts.depth`` above 0 leaves what it wants to do in ``then``.
    """

    @wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if get_ident() != interrupts.main:
            return function(*args, **kwargs)
        failure = None
        interrupts.depth += 1
        try:
            return function(*args, **kwargs)
        except Exception as error:
            failure = error
            raise
        finally:
            interrupts.depth -= 1
            if interrupts.then is not None and not interrupts.depth:
                interrupts.leave(failure)
            failure = None  # It refers to this frame.

    return wrapper


def finishing(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function that signals must not break off though it may take a while.

    For example one that finishes files: the user is told that a Ctrl-C has to wait for it.
    """

    @uninterrupted
    @wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if get_ident() != interrupts.main:
            return function(*args, **kwargs)
        interrupts.finishing += 1
        try:
            return function(*args, **kwargs)
        finally:
            interrupts.finishing -= 1

    return wrapper
