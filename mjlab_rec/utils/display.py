"""Whether this machine can open a window."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

# Run in a separate process: the window library ends the whole process if it fails.
_PROBE = "import sys, glfw; sys.exit(not glfw.init())"
_PROBE_TIMEOUT_S = 60.0


def why_no_display() -> str | None:
    """Return why no window can be opened, in a sentence; None if one probably can."""
    if sys.platform != "linux":
        return None
    display, wayland = (os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not display and not wayland:
        return "There is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)."
    if not wayland and not _responds(display):
        return f"The display {display} that DISPLAY names does not respond."
    return None


def why_no_window() -> str | None:
    """Return the same for MuJoCo's window, which on macOS needs `mjpython`."""
    if sys.platform == "darwin" and not _under_mjpython():
        return "On macOS a window needs the script to be run by `mjpython` instead of `python`."
    return why_no_display()


@functools.cache
def _responds(display: str) -> bool:
    """Return whether windows can be opened on an X display."""
    try:
        probe = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROBE],
            env={**os.environ, "DISPLAY": display},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def _under_mjpython() -> bool:
    import mujoco.viewer

    return mujoco.viewer._MJPYTHON is not None
