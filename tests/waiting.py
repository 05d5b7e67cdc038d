"""Waiting for other threads, processes and pages: until something is so, however long it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

PATIENCE_S = 300.0
"""What takes longer is considered to hang. A busy machine needs a hundredth of it."""


def until(true: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until something that another thread or process does has happened."""
    for _ in patiently(seconds):
        if true():
            return


def patiently(seconds: float = PATIENCE_S, pause_s: float = 0.005) -> Iterator[None]:
    """Let a loop try again and again, with pauses; fail when it has taken this long."""
    end, tick = time.monotonic() + seconds, threading.Event()
    while True:
        yield
        assert time.monotonic() < end, "It did not happen in time."
        tick.wait(pause_s)
