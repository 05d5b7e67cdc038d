"""The choice of a viewer: the one requested, or what works on this machine."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any, get_args

from mjlab_rec.utils.display import why_no_window
from mjlab_rec.utils.string import nearest
from mjlab_rec.viewer import ViewerName

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.playback import Viewer

logger = logging.getLogger(__name__)


def choose_viewer(name: ViewerName, env: ManagerBasedRlEnv, **options: Any) -> Viewer | None:
    """See ``make_viewer``."""
    if name not in get_args(ViewerName):
        raise ValueError(f"Unknown viewer {name!r}. {nearest(str(name), get_args(ViewerName))}")
    if name == "auto":
        name = best_viewer()
    if name == "native":
        from mjlab_rec.viewer.native import NativeViewer

        return NativeViewer(env, **options)
    if name == "web":
        from mjlab_rec.viewer.web import WebViewer

        return WebViewer(env, **options)
    return None


def best_viewer() -> ViewerName:
    """Return what "auto" means on this machine."""
    no_window = why_no_window()
    if no_window is None:
        return "native"
    missing = [name for name in ("viser", "mjviser") if importlib.util.find_spec(name) is None]
    if not missing:
        return "web"
    logger.warning(
        "No viewer: %s A web page needs %s: pip install 'mjlab_rec[web]'",
        *(no_window, " and ".join(missing)),
    )
    return "none"
