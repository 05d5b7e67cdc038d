"""Viewers of an environment, in a window or on a web page, and camera settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mjlab_rec.sim.viewer_config import ViewerConfig as ViewerConfig

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.playback import Viewer

ViewerName = Literal["auto", "native", "web", "none"]


def make_viewer(name: ViewerName, env: ManagerBasedRlEnv, **options: Any) -> Viewer | None:
    """Make a viewer for ``Playback``, or return None.

    Args:
        name: "native" is a window, "web" a page for a browser, "none" nothing. "auto" is a window
            if there is a display, else a page if viser is installed, else nothing.
        env: The environment to show.
        options: Passed on to ``NativeViewer`` or ``WebViewer``.
    """
    from mjlab_rec.viewer.choice import choose_viewer

    return choose_viewer(name, env, **options)


_OTHERWISE = {
    "NativeMujocoViewer": "make_viewer('native', env) with Playback",
    "ViserPlayViewer": "make_viewer('web', env) with Playback",
    "BaseViewer": "the protocol mjlab_rec.viewer.playback.Viewer",
    "OffscreenRenderer": "a VideoRecorderCfg in the environment's recorders, or env.render()",
}


def __getattr__(name: str) -> Any:
    """Say what there is instead of mjlab's classes."""
    if name in _OTHERWISE:
        raise ImportError(f"mjlab_rec.viewer has no {name}. Use {_OTHERWISE[name]}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
