"""Starting warp, and saying so when it compiles kernels. Does not import MuJoCo-Warp."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import warp as wp

_log = logging.getLogger(__name__)

_SLOW_START_S = 6.0
_MUJOCO_WARP = (
    "Compiling MuJoCo-Warp kernels: once per machine and kind of model, 30 s to a minute."
)


def start_warp() -> None:
    """Start warp without its banner and its line for every module that it loads."""
    if hasattr(wp.config, "log_level"):
        wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    else:  # before warp 1.14
        wp.config.quiet = True  # type: ignore[attr-defined]
    wp.init()


@contextmanager
def say_if_compiling(message: str = _MUJOCO_WARP) -> Iterator[None]:
    """Log one line if the start takes long, which means that kernels are compiling."""
    timer = threading.Timer(_SLOW_START_S, _log.warning, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
