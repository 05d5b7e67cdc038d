"""Shapes on the web page that terms, sensors and the terrain draw."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from mjlab_rec.sim.debug_shapes import KINDS, Ghost, Shapes, no_shapes
from mjlab_rec.sim.ghosts import GhostPart, GhostPoser, by_model, ghost_parts
from mjlab_rec.sim.meshes import Triangles, unit_triangles

_ROOT = "/debug"


class WebShapes:
    """Draws shapes on a viser page: a mesh for each kind, with an instance for each shape.

    Args:
        server: The ``viser.ViserServer``.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._instances: dict[str, _Instances] = {}
        self._poser = GhostPoser()
        self._parts: dict[int, tuple[mujoco.MjModel, list[GhostPart]]] = {}

    def draw(self, shapes: Shapes | None, offset: np.ndarray) -> None:
        """Show these shapes, moved by an offset (3,), and no others."""
        shapes = no_shapes() if shapes is None else shapes
        drawn = set()
        for kind, name in enumerate(KINDS):
            some = shapes.chosen(shapes.kind == kind)
            if len(some):
                path = f"{_ROOT}/{name}"
                drawn.add(path)
                instances = self._of(path, unit_triangles(kind))
                instances.show(some.pos + offset, some.mat, some.size, some.rgba)
        for number, ghosts in enumerate(by_model(shapes.ghosts)):
            drawn |= self._draw_ghosts(f"{_ROOT}/ghosts/{number}", ghosts, offset)
        for path, instances in self._instances.items():
            if path not in drawn:
                instances.hide()

    def close(self) -> None:
        """Remove all shapes from the page."""
        self._server.scene.remove_by_name(_ROOT)
        self._instances.clear()

    def _draw_ghosts(self, root: str, ghosts: list[Ghost], offset: np.ndarray) -> set[str]:
        """Draw ghosts of one model; returns the paths that are used."""
        model = ghosts[0].model
        if id(model) not in self._parts:
            self._parts[id(model)] = model, ghost_parts(model)
        parts = self._parts[id(model)][1]
        pos = np.empty((len(ghosts), model.nbody, 3))
        mat = np.empty((len(ghosts), model.nbody, 3, 3))
        for row, ghost in enumerate(ghosts):
            data = self._poser.pose(ghost)
            pos[row] = data.xpos + ghost.offset + offset
            mat[row] = data.xmat.reshape(-1, 3, 3)
        rgba, size = np.empty((len(ghosts), 4)), np.ones((len(ghosts), 3))
        rgba[:, 3] = [ghost.alpha for ghost in ghosts]
        drawn = set()
        for number, part in enumerate(parts):
            path = f"{root}/{number}"
            drawn.add(path)
            rgba[:, :3] = part.color
            self._of(path, part.mesh).show(pos[:, part.body], mat[:, part.body], size, rgba)
        return drawn

    def _of(self, path: str, mesh: Triangles) -> _Instances:
        known = self._instances.get(path)
        if known is None or known.mesh is not mesh:
            self._instances[path] = known = _Instances(self._server, path, mesh)
        return known


class _Instances:
    """Copies of one mesh, each with its own place, size and colour."""

    def __init__(self, server: Any, path: str, mesh: Triangles) -> None:
        self.mesh = mesh
        self._server = server
        self._path = path
        self._handle: Any = None

    def show(self, pos: np.ndarray, mat: np.ndarray, size: np.ndarray, rgba: np.ndarray) -> None:
        from viser.transforms import SO3

        values = {
            "batched_positions": pos.astype(np.float32),
            "batched_wxyzs": SO3.from_matrix(mat.astype(np.float64)).wxyz.astype(np.float32),
            "batched_scales": size.astype(np.float32),
            "batched_colors": (rgba[:, :3] * 255.0).round().astype(np.uint8),
            "batched_opacities": rgba[:, 3].astype(np.float32),
        }
        if self._handle is None:
            self._handle = self._server.scene.add_batched_meshes_simple(
                *(self._path, self.mesh.vertices, self.mesh.faces),
                **values,
                lod="off",
                cast_shadow=False,
                receive_shadow=False,
            )
            return
        for name, value in values.items():
            setattr(self._handle, name, value)
        self._handle.visible = True

    def hide(self) -> None:
        if self._handle is not None:
            self._handle.visible = False
