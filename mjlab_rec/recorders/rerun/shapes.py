"""Shapes in Rerun that terms, sensors and the terrain draw: an entity for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.recorders.rerun.columns import Columns, Frames
from mjlab_rec.recorders.rerun.scene import WORLD
from mjlab_rec.recorders.rows import EnvSelection
from mjlab_rec.sim.debug_shapes import (
    ARROW,
    BOX,
    CYLINDER,
    ELLIPSOID,
    KINDS,
    Ghost,
    Shapes,
    no_shapes,
)
from mjlab_rec.sim.debug_visualizer import shapes_of
from mjlab_rec.sim.ghosts import GhostPart, GhostPoser, ghost_parts
from mjlab_rec.utils.math import quat_from_matrix

ROOT = f"{WORLD}/debug"


class ShapesOfSteps:
    """What is drawn in each step: read by the simulation's thread, taken by the writer's.

    Args:
        env: The environment.
        selection: The environments that are shown.
        offsets: How far each is moved, (environments, 3).
    """

    def __init__(self, env: Any, selection: EnvSelection, offsets: np.ndarray) -> None:
        self._env = env
        self._selection = selection
        self._offsets = offsets
        self._shapes: dict[int, Shapes] = {}

    def read(self, active: torch.Tensor | None) -> None:
        """Read what is drawn of the step just taken.

        Args:
            active: Which of all environments are recorded in it, bool; None means all.
        """
        env_ids = list(self._selection.env_ids)
        if active is not None:
            wanted = self._selection.select(active).tolist()
            env_ids = [env for env, on in zip(env_ids, wanted, strict=True) if on]
        shapes = no_shapes()
        if env_ids:
            shapes = shapes_of(self._env, env_ids, apart=bool(self._offsets.any()))
        step = self._env.common_step_counter - 1
        self._shapes[step] = shapes.moved(self._selection.env_ids, self._offsets)

    def take(self, steps: Sequence[int]) -> list[Shapes]:
        """Return what was drawn in these steps, and forget it and all that is older."""
        taken = [self._shapes.pop(step, no_shapes()) for step in steps]
        for step in [step for step in list(self._shapes) if steps and step < steps[-1]]:
            self._shapes.pop(step, None)  # Its rows were dropped.
        return taken


class RerunShapes:
    """Writes the shapes of frames: one call per kind and block, however many shapes there are.

    Args:
        stream: The ``rerun.RecordingStream``.
        columns: Sends columns to it.
    """

    def __init__(self, stream: Any, columns: Columns) -> None:
        import rerun

        self._rr = rerun
        self._stream = stream
        self._columns = columns
        self._poser = GhostPoser()
        self._known: set[int] = set()  # Kinds that were shown: they must be hidden again.
        self._models: dict[int, tuple[str, mujoco.MjModel, list[GhostPart]]] = {}
        self._written: set[str] = set()  # Entities of ghosts.
        self._first: Frames | None = None

    def write(self, frames: Frames, shapes: Sequence[Shapes]) -> None:
        """Write the shapes of each frame."""
        if not len(frames.steps):
            return
        first = np.arange(len(frames.steps)) == 0
        self._first = self._first or Frames(frames.rows[first], frames.steps[first])
        for kind, name in enumerate(KINDS):
            which = [some.kind == kind for some in shapes]
            counts = np.array([mask.sum() for mask in which])
            if kind not in self._known and not counts.any():
                continue
            path = f"{ROOT}/{name}"
            if kind not in self._known:
                self._known.add(kind)
                self._write_once(kind, path)

            def values(field: str, which: Sequence[np.ndarray] = which) -> np.ndarray:
                parts = [getattr(s, field)[mask] for s, mask in zip(shapes, which, strict=True)]
                return np.concatenate(parts)

            parts = {field: values(field) for field in ("pos", "mat", "size", "rgba")}
            self._columns.send(path, frames, self._archetype(kind, **parts), counts)
        for ghost in [ghost for some in shapes for ghost in some.ghosts]:
            if id(ghost.model) not in self._models:
                self._add_model(ghost.model, frames)
        for _, model, parts in self._models.values():
            of_model = [[g for g in some.ghosts if g.model is model] for some in shapes]
            self._write_ghosts(frames, model, parts, of_model)

    def _write_once(self, kind: int, path: str) -> None:
        if kind != ARROW:
            archetype = {CYLINDER: "Cylinders3D", ELLIPSOID: "Ellipsoids3D", BOX: "Boxes3D"}[kind]
            solid = self._rr.components.FillMode.Solid
            fields = getattr(self._rr, archetype).from_fields(fill_mode=solid)
            self._stream.log(path, fields, static=True, strict=True)

    def _archetype(
        self, kind: int, pos: np.ndarray, mat: np.ndarray, size: np.ndarray, rgba: np.ndarray
    ) -> Any:
        rr, colors = self._rr, _bytes(rgba)
        if kind == ARROW:
            vectors = mat[:, :, 2] * size[:, 2:]
            return rr.Arrows3D.columns(
                origins=pos, vectors=vectors, radii=size[:, 0], colors=colors
            )
        placed = {"centers": pos, "quaternions": _quaternions(mat), "colors": colors}
        if kind == CYLINDER:
            return rr.Cylinders3D.columns(lengths=2 * size[:, 2], radii=size[:, 0], **placed)
        archetype = rr.Ellipsoids3D if kind == ELLIPSOID else rr.Boxes3D
        return archetype.columns(half_sizes=size, **placed)

    def _add_model(self, model: mujoco.MjModel, frames: Frames) -> None:
        """Add a model with ghosts; before these frames it has none."""
        root = f"{ROOT}/ghosts/{len(self._models)}"
        parts = ghost_parts(model)
        self._models[id(model)] = root, model, parts
        first = self._first
        if first is None or first.steps[0] >= frames.steps[0]:
            return
        nothing = np.zeros((0, 3), np.float32), np.zeros((0, 4), np.float32)
        for number in range(len(parts)):
            self._send_poses(f"{root}/{number}", first, np.zeros(1, int), *nothing)

    def _write_ghosts(
        self,
        frames: Frames,
        model: mujoco.MjModel,
        parts: list[GhostPart],
        ghosts: list[list[Ghost]],
    ) -> None:
        root = self._models[id(model)][0]
        counts = np.array([len(some) for some in ghosts])
        every = [ghost for some in ghosts for ghost in some]
        pos = np.empty((len(every), model.nbody, 3), np.float32)
        mat = np.empty((len(every), model.nbody, 3, 3), np.float32)
        for row, ghost in enumerate(every):
            data = self._poser.pose(ghost)
            pos[row] = data.xpos + ghost.offset
            mat[row] = data.xmat.reshape(-1, 3, 3)
        for number, part in enumerate(parts):
            path = f"{root}/{number}"
            if every:
                self._write_look(path, part, every[0].alpha)
            turns = _quaternions(mat[:, part.body])
            self._send_poses(path, frames, counts, pos[:, part.body], turns)

    def _write_look(self, path: str, part: GhostPart, alpha: float) -> None:
        """Write the surface of a ghost's part, once."""
        if path in self._written:
            return
        self._written.add(path)
        mesh = part.mesh
        look = self._rr.Mesh3D(
            vertex_positions=mesh.vertices,
            triangle_indices=mesh.faces,
            vertex_normals=mesh.normals(),
            albedo_factor=_bytes(np.array([[*part.color, alpha]], np.float32))[0],
        )
        self._stream.log(path, look, static=True, strict=True)

    def _send_poses(
        self,
        path: str,
        frames: Frames,
        counts: np.ndarray,
        places: np.ndarray,
        turns: np.ndarray,
    ) -> None:
        """Send the poses of a part; a frame without one gets one of size 0.

        Without any pose, Rerun would draw the part at the origin.
        """
        lengths = np.maximum(counts, 1)
        real = np.repeat(counts > 0, lengths)
        shown = np.zeros((len(real), 3), np.float32), np.tile(_UPRIGHT, (len(real), 1))
        shown[0][real], shown[1][real] = places, turns
        scales = np.repeat(real[:, None], 3, axis=1).astype(np.float32)
        columns = self._rr.InstancePoses3D.columns(
            translations=shown[0], quaternions=shown[1], scales=scales
        )
        self._columns.send(path, frames, columns, lengths)


_UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0], np.float32)


def _bytes(rgba: np.ndarray) -> np.ndarray:
    return (rgba * 255.0).round().astype(np.uint8)


def _quaternions(mat: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 3, 3) as quaternions xyzw (n, 4)."""
    if not len(mat):
        return np.zeros((0, 4), np.float32)
    quat = quat_from_matrix(torch.from_numpy(np.ascontiguousarray(mat))).numpy()
    return np.roll(quat, -1, axis=1)
