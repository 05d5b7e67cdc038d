"""Whether this machine can open a window."""

from __future__ import annotations

import os
import sys


def why_no_window() -> str | None:
    """Why no window can be opened, in a sentence; None if nothing speaks against it."""
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "There is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)."
    if sys.platform == "darwin" and not _under_mjpython():
        return "On macOS a window needs the script to be run by `mjpython` instead of `python`."
    return None


def _under_mjpython() -> bool:
    import mujoco.viewer

    return mujoco.viewer._MJPYTHON is not None
