"""An OpenGL context to draw in, on a screen's machine or a server without one."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from typing import Any

import mujoco

_OFFSCREEN = int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN)
_FONT = int(mujoco.mjtFontScale.mjFONTSCALE_100)


class GlContext:
    """A place for MuJoCo to draw images of a fixed size.

    The environment variable MUJOCO_GL (egl, osmesa, glfw) chooses what to draw with. Without it,
    the display is used if there is one, then EGL, then OSMesa: whatever works first.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        failures = []
        for backend in _backends():
            try:
                self._gl, self.mjr = _open(backend, model, width, height)
            except Exception as error:  # Each backend has its own ways to fail.
                failures.append(f"{backend}: {error or type(error).__name__}")
            else:
                self.backend = backend
                return
        chosen = os.environ.get("MUJOCO_GL")
        choice = f" MUJOCO_GL={chosen} allows nothing else: unset it." if chosen else ""
        raise RuntimeError(
            f"Cannot render, because OpenGL does not work ({'; '.join(failures)}).{choice} On"
            " Debian or Ubuntu, `apt install libegl1 libegl-mesa0 libgl1-mesa-dri` (EGL) or"
            " `apt install libosmesa6` (OSMesa) provides it; neither needs a display."
        )

    def make_current(self) -> None:
        """Direct this thread's drawing here; needed before each use, as others draw too."""
        self._gl.make_current()

    def close(self) -> None:
        """Free what the context holds. Idempotent."""
        if self._gl is not None:
            self._gl.make_current()
            self.mjr.free()
            self._gl.free()
            self._gl = None


def _backends() -> list[str]:
    """What to try, in this order; "default" is what MuJoCo itself picks."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen in ("egl", "osmesa"):
        return [chosen]
    if chosen or platform.system() != "Linux":
        return ["default"]
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return ["default", "egl", "osmesa"] if has_display else ["egl", "osmesa"]


def _open(
    backend: str, model: mujoco.MjModel, width: int, height: int
) -> tuple[Any, mujoco.MjrContext]:
    platform_before = os.environ.get("PYOPENGL_PLATFORM")
    modules_before = set(sys.modules)
    try:
        source = mujoco if backend == "default" else importlib.import_module(f"mujoco.{backend}")
        gl = source.GLContext(width, height)
        gl.make_current()
        mjr = mujoco.MjrContext(model, _FONT)
        mujoco.mjr_setBuffer(_OFFSCREEN, mjr)
        if mjr.currentBuffer != _OFFSCREEN:
            raise RuntimeError("it has no offscreen framebuffer")
        return gl, mjr
    except Exception:
        # PyOpenGL binds itself to the first backend it is loaded for; the next one needs it anew.
        for name in set(sys.modules) - modules_before:
            if name.partition(".")[0] == "OpenGL" or name.startswith(f"mujoco.{backend}"):
                del sys.modules[name]
        if platform_before is None:
            os.environ.pop("PYOPENGL_PLATFORM", None)
        raise
