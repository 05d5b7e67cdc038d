"""Finishing recordings when the process ends, whatever ends it.

**At exit.** A recorder with something open is kept alive, with its environment, until it is closed:
by ``env.close()``, or when the process ends. If the program drops its last reference to an
environment, the environment is therefore not freed before that, and none of its data is lost.

**Ctrl-C** raises KeyboardInterrupt, but never inside a recorder: if it arrives during a hook or
``close()``, it is raised right afterwards; if it arrives in ``__del__`` or a callback of weakref,
where Python would drop it, after the next hook. Two within 0.1 s count as one, because launchers
forward the signal that the terminal has already sent. If it arrives while recordings are being
finished, by ``close()`` or at exit, a warning says so; another Ctrl-C, at least a second after the
warning, abandons them. The same applies to a hook that waits for a disk. If a SIGINT handler was
installed before the first recorder opened something, it is called at these moments instead. A
handler that is installed later is left alone, and so is an ignored SIGINT. When nothing is open,
the previous handler is restored.

**SIGTERM and SIGHUP** end the process through Python's normal exit, with status 128 + number, while
a recorder has something open; not during a hook or where Python would drop the exception, but after
the next hook. This requires that they are neither handled nor ignored (as under nohup) when this
module is imported, or later when a recorder opens something. When nothing is open, they end the
process as usual.

**Threads.** Python handles signals only in its main thread, whichever thread an environment is in;
this module must therefore first be imported there. At Python's exit, or after SIGTERM or SIGHUP, a
thread that steps an environment ends with SystemExit where its next step would begin. The process
waits for threads that keep Python from exiting, but after SIGTERM or SIGHUP only for a second; then
the recordings are finished and the process ends. After a Ctrl-C Python waits for them as usual.
Hooks of a closed recorder are no longer called.

**Processes.** A forked process does not close what its parent has opened. Signals end it as usual,
however early they come.

SIGKILL, ``os._exit`` and crashes cannot be handled.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.interrupts import (
    drops_exceptions,
    finishing,
    interrupts,
    uninterrupted,
)

if TYPE_CHECKING:
    from mjlab_rec.managers.recorder_manager import RecorderTerm

logger = logging.getLogger(__name__)

_SAME_PRESS_S = 0.1  # Ctrl-C's closer together than this count as one.
_PATIENCE_S = 1.0  # After a warning, how long Ctrl-C does not abandon the recordings.
_GRACE_S = 1.0  # For threads that end by themselves after the main thread.

# Recorders with something open, and the process that opened it.
_open: dict[int, tuple[RecorderTerm, int]] = {}


def close_at_exit(term: RecorderTerm) -> None:
    """Close this recorder when the process ends, unless it is closed by then.

    Call this once everything that closing needs, such as graphics, is loaded: what registered with
    ``atexit`` before this call still works then.
    """
    _open[id(term)] = term, os.getpid()
    # Registered last, it is called first; registered twice, because a Ctrl-C may come before the
    # first call has begun.
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    atexit.register(_at_exit)
    _signals.begin()


def closed(term: RecorderTerm) -> None:
    """Stop tracking this recorder; call this when it has nothing open any more."""
    _open.pop(id(term), None)
    if not _open_here():
        _signals.end()


def _open_here() -> list[RecorderTerm]:
    """Recorders that this process has open."""
    pid = os.getpid()
    return [term for term, owner in list(_open.values()) if owner == pid]


@finishing
def _at_exit() -> None:
    if _open_here():
        interrupts.ending = True
        interrupts.wait_for_threads(_GRACE_S)  # A step in progress keeps its rows.
        _close_all()


@finishing
def _close_all() -> None:
    if _open_here():
        _signals.begin()  # They may have been opened in another thread.
    for term in _open_here():
        try:
            term.close_for_good()
        except Exception as error:
            # A full disk is no fault of the program: no traceback.
            trace = None if _is_expected(error) else error
            name = type(term).__name__
            logger.error("%s could not finish its recording: %s", name, error, exc_info=trace)
        finally:
            closed(term)


def _is_expected(error: BaseException | None) -> bool:
    """Whether an error and its causes can occur in a correct program."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_expected, error.exceptions))
    return error is None or (
        isinstance(error, (DataError, OSError)) and _is_expected(error.__cause__)
    )


class _Signals:
    """Handlers of SIGINT, SIGTERM and SIGHUP, and the signals that they defer."""

    def __init__(self) -> None:
        self._handler: Callable[..., Any] | None = None  # our SIGINT handler, while it is set
        self._before: Any = None  # the handler that it replaced
        self._raised = float("-inf")  # when a Ctrl-C was last passed on
        self._forking = threading.local()
        self._begin_process()
        os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork)
        os.register_at_fork(after_in_child=self._begin_process)
        os.register_at_fork(after_in_child=self._after_fork)

    def _before_fork(self) -> None:
        """Hold signals back: Python forgets those that a new process gets before it runs."""
        held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, held)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _begin_process(self) -> None:
        self._waiting: int | None = None  # the deferred signal
        self._pressed: float | None = None  # when it came, if it was a Ctrl-C
        self._warned: float | None = None  # when Ctrl-C caused a warning

    def end_by_exit(self) -> None:
        """Let SIGTERM and SIGHUP end the process through Python's exit, unless handled."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._terminate)

    @uninterrupted
    def begin(self) -> None:
        """Install the handlers: something is open in this process from now on."""
        self.end_by_exit()
        if threading.current_thread() is not threading.main_thread() or self._handler is not None:
            return
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            self._handler, self._before = partial(self._interrupt, before), before
            signal.signal(signal.SIGINT, self._handler)

    def end(self) -> None:
        """Restore the previous SIGINT handler: nothing is open any more."""
        if threading.current_thread() is not threading.main_thread():
            return  # It is removed at a Ctrl-C, or used again.
        if interrupts.depth:
            interrupts.then = self._settle
        else:
            self._give_back()

    @uninterrupted
    def _give_back(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None and signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, before: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if before is signal.default_int_handler and now - self._raised < _SAME_PRESS_S:
            return
        if not interrupts.depth and not drops_exceptions(frame):
            self._pass_on(before, frame)
        elif self._warned is not None and now - self._warned >= _PATIENCE_S:
            for term in _open_here():
                _open.pop(id(term), None)
            self._pass_on(before, frame)
        else:
            long = self._pressed is not None and now - self._pressed >= _PATIENCE_S
            if self._warned is None and (interrupts.finishing or long):
                logger.warning(
                    "Recordings are being finished. Ctrl-C takes effect after that; another one, at"
                    " least a second from now, abandons them."
                )
                self._warned = now
            if self._pressed is None:
                self._pressed = now
            self._defer(number)

    def _pass_on(self, before: Callable[..., Any], frame: FrameType | None) -> None:
        """Do what a Ctrl-C does without this module."""
        if self._waiting not in (None, signal.SIGINT):
            self._end(self._waiting)
        self._waiting = self._pressed = self._warned = None
        if not _open_here():
            self.end()
        if before is signal.default_int_handler:
            self._raised = time.monotonic()
        before(signal.SIGINT, frame)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if interrupts.depth or (_open_here() and drops_exceptions(frame)):
            self._defer(number)
        elif interrupts.ending or _open_here():
            self._end(number)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _defer(self, number: int) -> None:
        if self._waiting in (None, signal.SIGINT):
            self._waiting = number
        interrupts.then = self._settle

    def _settle(self) -> None:
        """Handle the deferred signal: the main thread has left the recorders."""
        if not _open_here():
            self.end()
        number = self._waiting
        if number == signal.SIGINT:
            exiting = not threading.main_thread().is_alive()
            ignore = (lambda *_: None) if exiting else self._before  # The process is ending anyway.
            self._pass_on(ignore, None)
        elif number is not None:
            self._end(number)

    def _end(self, number: int) -> None:
        """End the process through Python's exit."""
        self._waiting = None
        if threading.main_thread().is_alive():
            if not interrupts.ending:
                interrupts.ending = True
                threading.Thread(target=_signal_again, args=(number,), daemon=True).start()
            raise SystemExit(128 + number)
        # Python's exit has begun, and may wait for other threads forever.
        _at_exit()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(128 + number)


def _signal_again(number: int) -> None:
    """Send a signal again if other threads keep the process from ending."""
    main = threading.main_thread()
    main.join()
    time.sleep(_GRACE_S)
    if any(not (t.daemon or t is main) for t in threading.enumerate()):
        os.kill(os.getpid(), number)


_signals = _Signals()
_signals.end_by_exit()
