"""An OpenGL context to draw in, on machines with or without a display."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import platform
import subprocess
import sys
import weakref
from typing import Any

import mujoco

from mjlab_rec.utils.extras import UnavailableError

_OFFSCREEN = int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN)
_FONT = int(mujoco.mjtFontScale.mjFONTSCALE_100)

# A backend that fails leaves libraries loaded that break the next one, and a second failure aborts
# the process. So each backend is tested in a separate process.
_PROBE = """
import importlib, sys
import mujoco
source = importlib.import_module(sys.argv[1])
gl = source.GLContext(8, 8)
gl.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 100).free()
try:
    from OpenGL import GL
    print(GL.glGetString(GL.GL_RENDERER).decode())
except Exception:
    pass
gl.free()
"""
_PROBE_TIMEOUT_S = 120.0
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")


class GlContext:
    """An off-screen buffer in which MuJoCo draws images of a fixed size.

    The environment variable MUJOCO_GL (egl, osmesa, glfw) chooses the backend. Without it, the
    first that works is used: EGL, OSMesa, or the display if there is one.
    """

    def __init__(
        self, model: mujoco.MjModel, width: int, height: int, backend: str | None = None
    ) -> None:
        self.backend = find_backend() if backend is None else backend
        self._gl: Any = importlib.import_module(_module(self.backend)).GLContext(width, height)
        self._gl.make_current()
        self.mjr = mujoco.MjrContext(model, _FONT)
        mujoco.mjr_setBuffer(_OFFSCREEN, self.mjr)
        # EGL shuts itself down at exit, after which contexts cannot be freed.
        atexit.register(_close_if_alive, weakref.ref(self))

    def make_current(self) -> None:
        """Direct this thread's drawing here; needed before each use, because others draw too."""
        self._gl.make_current()

    def close(self) -> None:
        """Free the context's memory. Idempotent."""
        if self._gl is not None:
            self._gl.make_current()
            self.mjr.free()
            self._gl.free()
            self._gl = None


def _close_if_alive(reference: weakref.ref[GlContext]) -> None:
    context = reference()
    if context is not None:
        context.close()


def find_backend() -> str:
    """Return the first backend that works, or raise an error with what was tried and the cure."""
    failures = []
    for backend in _candidates():
        failure = _why_not(backend)
        if failure is None:
            return backend
        failures.append(f"{backend or 'default'}: {failure}")
    chosen = os.environ.get("MUJOCO_GL")
    choice = f" MUJOCO_GL={chosen} rules out other backends: unset it." if chosen else ""
    raise UnavailableError(
        f"Cannot render, because OpenGL does not work ({'; '.join(failures)}).{choice} On Debian or"
        " Ubuntu, `apt install libegl1 libegl-mesa0 libgl1-mesa-dri` (EGL) or"
        " `apt install libosmesa6` (OSMesa) provides it; neither needs a display."
    )


def _candidates() -> list[str]:
    """Return the backends to try, in order; all but egl and osmesa are left to MuJoCo."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen or platform.system() != "Linux":
        return [chosen]
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    # The display comes last: its library must be used from a program's main thread, but images are
    # drawn in any thread.
    return ["egl", "osmesa", "glfw"] if has_display else ["egl", "osmesa"]


def _module(backend: str) -> str:
    """Return the module whose GLContext draws with a backend."""
    return f"mujoco.{backend}" if backend in ("egl", "osmesa") else "mujoco"


def is_software(backend: str) -> bool:
    """Return whether the processor draws with this backend, and not a graphics card."""
    drawn_by = _probe(backend)[1].lower()
    return any(word in drawn_by for word in _SOFTWARE)


def _why_not(backend: str) -> str | None:
    """Return a backend's error in one line; None if it works."""
    return _probe(backend)[0]


@functools.cache
def _probe(backend: str) -> tuple[str | None, str]:
    """Return a backend's error, None if it works, and the name of what draws."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, _module(backend)],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return "it does not respond", ""
    if probe.returncode == 0:
        return None, probe.stdout.strip()
    said = [line for line in probe.stderr.splitlines() if line and not line.startswith(" ")]
    return said[-1] if said else f"it ends with exit code {probe.returncode}", ""
