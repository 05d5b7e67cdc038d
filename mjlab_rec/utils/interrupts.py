"""Functions that signals do not interrupt, because they must not be left half done."""

from __future__ import annotations

import _weakrefset
import logging
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import wraps
from threading import get_ident
from types import FrameType
from typing import ParamSpec, TypeVar
from weakref import WeakSet

logger = logging.getLogger(__name__)

_PAUSE_S = 0.002
_AGAIN_S = 0.05
_WEAKREF_FILES = {weakref.__file__, _weakrefset.__file__}

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Interrupts:
    """What signal handlers need to know about a process, and what they postpone.

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
        """Called once, when the outermost of them ends; it may raise."""
        self.ending = False
        """Whether the process is ending."""
        self._threads: WeakSet[threading.Thread] = WeakSet()  # Those that have begun a step.
        os.register_at_fork(after_in_child=self._begin_process)

    def leave(self, error: BaseException | None) -> None:
        """Do what was postponed, even if the function that it waited for has failed."""
        then, self.then = self.then, None
        if then is None:
            return
        try:
            then()
        except BaseException:
            if error is not None:  # Code that catches the signal's exception never sees this one.
                logger.error("A signal replaces this error:", exc_info=error)
            raise

    def begin_step(self) -> None:
        """Raise SystemExit if the process is ending and this is not its main thread.

        A thread that keeps running while Python finalizes would crash the process.
        """
        if get_ident() != self.main:
            self._threads.add(threading.current_thread())
            if self.ending:
                raise SystemExit

    def wait_for_threads(self, seconds: float) -> None:
        """Wait until the threads that began a step have ended, but no longer than this."""
        # Counted in pauses, because a clock goes on while the whole process is stopped. Not with
        # join(): if it is interrupted, Python 3.11 considers the thread ended.
        for _ in range(math.ceil(seconds / _PAUSE_S)):
            if not any(thread in self._threads for thread in threading.enumerate()):
                break
            time.sleep(_PAUSE_S)

    def _begin_process(self) -> None:
        """Discard what belongs to the process that this one was forked from."""
        self.main = get_ident()
        self.depth = self.finishing = 0
        self.then, self.ending = None, False
        self._threads.clear()


interrupts = Interrupts()
"""The state of this process."""


# Python checks for signals when a function begins and after it calls one written in C, not in
# between: no handler, whatever it raises, can run between a change of depth and its `try`.


def uninterrupted(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function that signals must not interrupt; it costs about 0.2 us per call.

    A handler that finds ``interrupts.depth`` above 0 stores its action in ``then``.
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
    """Decorate a function that signals must not interrupt although it may take a while.

    It may finish files, for example: the user is told that Ctrl-C has to wait for it.
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


def end_by_exit(number: int, frame: FrameType | None) -> None:
    """End the process with status 128 + number through Python's exit: a handler of a signal.

    It waits for functions that must not be interrupted. More signals do not interrupt the exit.
    """
    if interrupts.depth or drops_exceptions(frame):
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def drops_exceptions(frame: FrameType | None) -> bool:
    """Whether Python ignores exceptions here: in ``__del__``, and in callbacks of weakref."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename in _WEAKREF_FILES:
            return True
        frame = frame.f_back
    return False
