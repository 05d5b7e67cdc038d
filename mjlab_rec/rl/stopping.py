"""Ending a training between two iterations, when Ctrl-C or SIGTERM asks for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_SAME_PRESS_S = 0.1  # Launchers forward the Ctrl-C that the terminal has already sent.


class StopSignals:
    """Inside a ``with`` block, notes Ctrl-C and SIGTERM instead of interrupting what is going on.

    A second Ctrl-C interrupts at once. Make it before environments: recorders then call these
    handlers, instead of having their own.

    Args:
        on_signal: Called with the first signal.
    """

    def __init__(self, on_signal: Callable[[int], None] = lambda number: None) -> None:
        self.received: int | None = None
        """The signal that came first."""
        self._on_signal = on_signal
        self._at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int | None:
        """128 + signal, as a shell would say; None without a signal."""
        return None if self.received is None else 128 + self.received

    def __enter__(self) -> StopSignals:
        # Python calls handlers in its main thread only, and sets them there only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: of a library that is not Python, which could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self.received is not None and now - self._at >= _SAME_PRESS_S
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None:
            self.received, self._at = number, now
            self._on_signal(number)
