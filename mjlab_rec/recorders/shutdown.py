"""Finishing recordings when the process ends, whatever ends it.

**At exit.** A recorder that has something open is kept, with its environment, until it is closed:
by ``env.close()``, or when the process ends. An environment that the program forgets is therefore
not freed before that, and nothing of it is lost.

**Ctrl-C** raises KeyboardInterrupt, but never within a recorder: if it comes during a hook or
``close()``, it is raised right after. Two within a tenth of a second count as one, since launchers
pass on what the terminal has sent already. While recordings are being finished, by ``close()`` or
at exit, a warning says so; another Ctrl-C, at least a second after the warning, abandons them.
The same holds for a hook that waits for a disk. A handler of SIGINT that was there before the first
recorder opened something is called at these moments instead; a handler that is set later is left
alone, and so is a SIGINT that is ignored. When nothing is open, the handler is what it was.

**SIGTERM and SIGHUP** end the process by way of Python's exit, with status 128 + number, while a
recorder has something open; not within a hook, but right after it. They do so only if nothing
handles or ignores them (as under nohup) when this module is imported, or later when a recorder
opens something. When nothing is open, they end the process as they always do.

**Threads.** Python handles signals in its main thread only, whichever thread an environment is in;
this module must therefore be imported there first. At Python's exit, or after SIGTERM or SIGHUP, a
thread that steps an environment ends by SystemExit where its next step would begin. Threads that
keep Python from exiting are waited for, but after SIGTERM or SIGHUP only for a second; then the
recordings are finished and the process ends. After a Ctrl-C Python waits for them as it always
does. Hooks of a recorder that is closed are not called any more.

**Processes.** What a process has opened is not closed by a process that was forked from it.

Nothing can be done about SIGKILL, ``os._exit`` and a crash.
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
from mjlab_rec.utils.interrupts import finishing, interrupts, uninterrupted

if TYPE_CHECKING:
    from mjlab_rec.managers.recorder_manager import RecorderTerm

logger = logging.getLogger(__name__)

_SAME_PRESS_S = 0.1  # Ctrl-C's that follow each other faster are one.
_PATIENCE_S = 1.0  # From a warning on, for so long a Ctrl-C does not abandon what is written.
_GRACE_S = 1.0  # For threads that end on their own when the main thread has ended.

# Recorders that have something open, and the process that opened it.
_open: dict[int, tuple[RecorderTerm, int]] = {}


def close_at_exit(term: RecorderTerm) -> None:
    """Close this recorder when the process ends, if it has not been closed by then.

    To be called when everything that closing needs has been loaded, graphics for instance: what
    registered with ``atexit`` before this call still works then.
    """
    _open[id(term)] = term, os.getpid()
    # Registered last it is called first; and twice, since a Ctrl-C may come before the first call
    # has even begun.
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    atexit.register(_at_exit)
    _signals.begin()


def closed(term: RecorderTerm) -> None:
    """This recorder needs no closing any more; to be called when it has nothing open."""
    _open.pop(id(term), None)
    if not _open_here():
        _signals.end()


def _open_here() -> list[RecorderTerm]:
    """What this process has open."""
    pid = os.getpid()
    return [term for term, owner in list(_open.values()) if owner == pid]


@finishing
def _at_exit() -> None:
    if _open_here():
        interrupts.ending = True
        interrupts.wait_for_threads(_GRACE_S)  # A step that is being taken keeps its rows.
        _close_all()


@finishing
def _close_all() -> None:
    if _open_here():
        _signals.begin()  # They may have been opened in another thread.
    for term in _open_here():
        try:
            term.close_for_good()
        except Exception as error:
            # Nothing of the program is to blame for a full disk.
            trace = None if _is_expected(error) else error
            name = type(term).__name__
            logger.error("%s could not finish its recording: %s", name, error, exc_info=trace)
        finally:
            closed(term)


def _is_expected(error: BaseException | None) -> bool:
    """Whether an error and what caused it can happen to a program without faults."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_expected, error.exceptions))
    return error is None or (
        isinstance(error, (DataError, OSError)) and _is_expected(error.__cause__)
    )


class _Signals:
    """Handlers of SIGINT, SIGTERM and SIGHUP, and what they put off."""

    def __init__(self) -> None:
        self._handler: Callable[..., Any] | None = None  # ours of SIGINT, while it is set
        self._before: Any = None  # the one it took the place of
        self._raised = float("-inf")  # when a Ctrl-C was last passed on
        self._begin_process()
        os.register_at_fork(after_in_child=self._begin_process)

    def _begin_process(self) -> None:
        self._waiting: int | None = None  # the signal that was put off
        self._pressed: float | None = None  # when, if it was a Ctrl-C
        self._warned: float | None = None  # when Ctrl-C was answered by a warning

    def end_by_exit(self) -> None:
        """Let SIGTERM and SIGHUP end the process by way of Python's exit, unless handled."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._terminate)

    @uninterrupted
    def begin(self) -> None:
        """Something is open from now on in this process."""
        self.end_by_exit()
        if threading.current_thread() is not threading.main_thread() or self._handler is not None:
            return
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            self._handler, self._before = partial(self._interrupt, before), before
            signal.signal(signal.SIGINT, self._handler)

    def end(self) -> None:
        """Nothing is open any more: put the handler of SIGINT back that was there."""
        if threading.current_thread() is not threading.main_thread():
            return  # It goes when a Ctrl-C comes, or is used again.
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
        if not interrupts.depth:
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
            self._put_off(number)

    def _pass_on(self, before: Callable[..., Any], frame: FrameType | None) -> None:
        """Do what a Ctrl-C does without us."""
        if self._waiting not in (None, signal.SIGINT):
            self._end(self._waiting)
        self._waiting = self._pressed = self._warned = None
        if not _open_here():
            self.end()
        if before is signal.default_int_handler:
            self._raised = time.monotonic()
        before(signal.SIGINT, frame)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if interrupts.depth:
            self._put_off(number)
        elif interrupts.ending or _open_here():
            self._end(number)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _put_off(self, number: int) -> None:
        if self._waiting in (None, signal.SIGINT):
            self._waiting = number
        interrupts.then = self._settle

    def _settle(self) -> None:
        """The main thread has left the recorders: do what was put off."""
        if not _open_here():
            self.end()
        number = self._waiting
        if number == signal.SIGINT:
            exiting = not threading.main_thread().is_alive()
            ignore = (lambda *_: None) if exiting else self._before  # It ends as it should.
            self._pass_on(ignore, None)
        elif number is not None:
            self._end(number)

    def _end(self, number: int) -> None:
        """End the process by way of Python's exit."""
        self._waiting = None
        if threading.main_thread().is_alive():
            if not interrupts.ending:
                interrupts.ending = True
                threading.Thread(target=_signal_again, args=(number,), daemon=True).start()
            raise SystemExit(128 + number)
        # Python's exit has begun, and may be waiting for other threads for ever.
        _at_exit()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(128 + number)


def _signal_again(number: int) -> None:
    """Send a signal once more if other threads keep the process from ending."""
    main = threading.main_thread()
    main.join()
    time.sleep(_GRACE_S)
    if any(not (t.daemon or t is main) for t in threading.enumerate()):
        os.kill(os.getpid(), number)


_signals = _Signals()
_signals.end_by_exit()
