"""Renderers of a simulation: the interface, and the choice of an implementation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np

from mjlab_rec.sim.debug_shapes import Shapes
from mjlab_rec.sim.gl import find_backend
from mjlab_rec.sim.gl_renderer import GlRenderer
from mjlab_rec.sim.viewer_config import RendererName, ViewerConfig
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene
    from mjlab_rec.sim.simulation import Simulation

_log = logging.getLogger(__name__)


class Renderer(Protocol):
    """Draws environments as a ``ViewerConfig`` says.

    It reads the simulation's state and never changes it, so rendering does not affect a rollout. An
    image takes two steps: ``capture`` is quick and must run in the thread that steps the
    simulation; ``draw`` is slow and may run in another thread, in parallel with the simulation.
    """

    def capture(self, env_ids: Sequence[int], shapes: Sequence[Shapes] | None = None) -> Any:
        """Capture what these environments look like now, with shapes to draw into each image.

        Call it in the thread that steps the simulation. The result stays valid while the simulation
        continues, and is for this renderer's ``draw`` only.
        """
        ...

    def draw(self, shot: Any) -> np.ndarray:
        """Draw an image of each environment captured: uint8 (environments, height, width, 3).

        Call it always in the same thread, which may differ from ``capture``'s.
        """
        ...

    def render(self, env_idx: int | None = None, shapes: Shapes | None = None) -> np.ndarray:
        """Draw an environment now (None: ``cfg.env_idx``): uint8 (height, width, 3)."""
        ...

    def close(self) -> None:
        """Free the graphics memory; call it in the thread that draws. Idempotent."""
        ...


def make_renderer(
    sim: Simulation, cfg: ViewerConfig, scene: Scene, name: RendererName | None = None
) -> Renderer:
    """Make a renderer; raises an error now, not at the first image, if something is missing.

    Args:
        sim: The simulation to draw.
        cfg: Size, camera, and what is shown.
        scene: The simulation's scene.
        name: "gl" draws with MuJoCo and OpenGL, "warp" with MuJoCo-Warp's ray tracer, which needs
            no OpenGL. "auto" uses OpenGL if it works, unless it must draw very many faces without a
            graphics card, for which the ray tracer is faster. None means
            ``cfg.renderer``.
    """
    name = cfg.renderer if name is None else name
    known = get_args(RendererName)
    if name not in known:
        raise ValueError(f"Unknown renderer {name!r} in ViewerConfig. {nearest(name, known)}")
    if name == "warp":
        return _warp_renderer(sim, cfg, scene)
    try:
        find_backend()
    except UnavailableError as error:
        if name == "gl":
            raise
        return _fall_back(error, sim, cfg, scene)
    renderer = GlRenderer(sim, cfg, scene)
    return _faster(renderer, sim, cfg, scene) if name == "auto" else renderer


def _faster(opengl: GlRenderer, sim: Simulation, cfg: ViewerConfig, scene: Scene) -> Renderer:
    """Return the ray tracer if that is faster and works, else the given renderer."""
    if not opengl.is_slow:
        return opengl
    try:
        renderer = _warp_renderer(sim, cfg, scene)
    except UnavailableError:
        return opengl
    _log.info(
        "Drawing with the renderer 'warp': without a graphics card it is faster for meshes with so"
        " many faces. ViewerConfig(renderer='gl') shows more."
    )
    opengl.close()
    return renderer


def _fall_back(gl_error: Exception, sim: Simulation, cfg: ViewerConfig, scene: Scene) -> Renderer:
    """Make the ray tracer, because OpenGL does not work."""
    try:
        renderer = _warp_renderer(sim, cfg, scene)
    except UnavailableError as error:
        raise UnavailableError(
            f"There are two renderers, and neither works. 'gl': {gl_error} 'warp': {error}"
        ) from error
    _log.warning("Drawing with the renderer 'warp', which shows less than 'gl'. %s", gl_error)
    return renderer


def _warp_renderer(sim: Simulation, cfg: ViewerConfig, scene: Scene) -> Renderer:
    try:
        from mjlab_rec.sim.warp_renderer import WarpRenderer
    except ImportError as error:
        raise UnavailableError(
            f"The renderer 'warp' needs MuJoCo-Warp ({error}):"
            " pip install --upgrade 'mujoco-warp>=3.14'."
        ) from error
    return WarpRenderer(sim, cfg, scene)
