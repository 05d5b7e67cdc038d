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
