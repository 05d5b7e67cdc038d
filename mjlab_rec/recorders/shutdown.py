"""Closing what is open when the process ends, also by SIGTERM."""

from __future__ import annotations

import atexit
import logging
import signal
import threading
import weakref
from types import FrameType
from typing import Protocol

logger = logging.getLogger(__name__)


class Closable(Protocol):
    """Something that must be closed before the process ends."""

    def close(self) -> None:
        """Write what is left; may be called twice."""


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(term: Closable) -> None:
    """Close this when the process ends, if it has not been closed by then.

    To be called when everything that closing needs has been loaded, graphics for instance: what
    registered with ``atexit`` before this call still works then.

    Also makes SIGTERM end the process by way of Python's own exit, unless somebody handles it
    already. Nothing can be done about SIGKILL.
    """
    # Registered last it is called first.
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    _open.add(term)


def closed(term: Closable) -> None:
    """This one needs no closing any more."""
    _open.discard(term)


def _close_all() -> None:
    for term in list(_open):
        try:
            getattr(term, "_recorder_close", term.close)()
        except Exception:
            logger.exception("Closing %s at exit failed.", type(term).__name__)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
