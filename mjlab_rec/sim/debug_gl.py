"""Shapes in the scenes that MuJoCo draws: its window's, and those of pictures and videos."""

from __future__ import annotations

import logging
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.sim.debug_shapes import ARROW, BOX, CYLINDER, ELLIPSOID, Ghost, Shapes
from mjlab_rec.sim.ghosts import GhostPoser

logger = logging.getLogger(__name__)

_TYPES = {
    ARROW: mujoco.mjtGeom.mjGEOM_ARROW,
    CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    ELLIPSOID: mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    BOX: mujoco.mjtGeom.mjGEOM_BOX,
}
_DECORATION = int(mujoco.mjtCatBit.mjCAT_DECOR)  # casts no shadow
_DYNAMIC = int(mujoco.mjtCatBit.mjCAT_DYNAMIC)


class ShapeDrawer:
    """Adds shapes to scenes of one model. Use it from one thread only.

    Args:
        model: The model whose scenes are drawn.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._poser = GhostPoser()
        self._options, self._perturbation = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._options.sitegroup[:] = 0  # A ghost is its geoms.
        self._options.flags[mujoco.mjtVisFlag.mjVIS_TENDON] = False
        self._warned = False

    def draw(self, scene: Any, shapes: Shapes) -> None:
        """Add shapes to what is in an ``MjvScene``, as far as there is room."""
        count = max(0, min(len(shapes), scene.maxgeom - scene.ngeom))
        pos, size = shapes.pos.astype(np.float64), shapes.size.astype(np.float64)
        size[shapes.kind == ARROW, 2] *= 2.0  # MuJoCo draws an arrow half as long as its size.
        mat = shapes.mat.astype(np.float64).reshape(-1, 9)
        first = scene.ngeom
        scene.ngeom += count
        for i in range(count):
            geom = scene.geoms[first + i]
            geom_type = _TYPES[int(shapes.kind[i])]
            mujoco.mjv_initGeom(geom, geom_type, size[i], pos[i], mat[i], shapes.rgba[i])
            geom.size = size[i]  # mjv_initGeom expects sizes in the order of a model's.
            geom.category = _DECORATION
        full = count < len(shapes)
        for ghost in shapes.ghosts:
            full |= not self._draw_ghost(scene, ghost)
        if full:
            self._warn(f"There is room for {scene.maxgeom} shapes; some are not drawn.")

    def _draw_ghost(self, scene: Any, ghost: Ghost) -> bool:
        model = ghost.model
        if not _same_parts(model, self._model):
            self._warn(
                "A ghost's model has other meshes than the scene, so it is not drawn here. Make it"
                " from a copy of env.sim.mj_model."
            )
            return True
        if scene.ngeom + model.ngeom > scene.maxgeom:
            return False
        first, data = scene.ngeom, self._poser.pose(ghost)
        mujoco.mjv_addGeoms(model, data, self._options, self._perturbation, _DYNAMIC, scene)
        for i in range(first, scene.ngeom):
            geom = scene.geoms[i]
            geom.category = _DECORATION
            geom.rgba[3] = ghost.alpha
            geom.pos += ghost.offset
        return True

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("Debug shapes: %s", message)


def _same_parts(model: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether numbers of meshes and materials mean the same in both models."""
    names = ("ngeom", "nmesh", "nmeshface", "nmat", "ntex", "nhfield", "nflex", "nskin")
    return all(getattr(model, name) == getattr(other, name) for name in names)
