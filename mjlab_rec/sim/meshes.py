"""Triangles of shapes and of a model's geoms, for viewers that draw only triangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np

from mjlab_rec.sim.debug_shapes import ARROW, BOX, CYLINDER, ELLIPSOID

_SIDES = 16  # of what is round
_HEAD = 0.25  # length of an arrow's head, in lengths of the arrow
_HEAD_WIDTH = 1.75  # its radius, in radii of the shaft
_GEOM = mujoco.mjtGeom


@dataclass(frozen=True)
class Triangles:
    """A surface. Corners with an edge between them are not shared, so that it looks sharp."""

    vertices: np.ndarray
    """(n, 3) float32."""

    faces: np.ndarray
    """(m, 3) uint32, counterclockwise from outside."""

    def normals(self) -> np.ndarray:
        """Directions that point outwards at each corner, (n, 3) float32."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        across = np.cross(b - a, c - a)  # its length is twice the area
        total = np.zeros_like(self.vertices)
        for i in range(3):
            np.add.at(total, self.faces[:, i], across)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


@cache
def unit_triangles(kind: int) -> Triangles:
    """Return a shape of size 1, in the frame that ``Shapes`` describes."""
    if kind == BOX:
        return _box()
    if kind == ELLIPSOID:
        angles = np.linspace(0.0, np.pi, _SIDES // 2 + 1)
        return _turned(np.sin(angles), -np.cos(angles))
    if kind == CYLINDER:
        return _joints((0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0))
    if kind == ARROW:
        neck = 1.0 - _HEAD
        tip = ((_HEAD_WIDTH, neck), (0.0, 1.0))
        return _joints((0.0, 0.0), (1.0, 0.0), (1.0, neck), *tip)
    raise ValueError(f"There is no shape of kind {kind}.")


def geom_triangles(model: mujoco.MjModel, geom: int) -> Triangles:
    """Return the surface of a geom that can move, in the geom's body's frame."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind in (_GEOM.mjGEOM_MESH, _GEOM.mjGEOM_SDF):
        mesh = _mesh(model, int(model.geom_dataid[geom]))
    elif kind == _GEOM.mjGEOM_CAPSULE:
        mesh = _capsule(float(size[0]), float(size[1]))
    elif kind == _GEOM.mjGEOM_SPHERE:
        mesh = _scaled(unit_triangles(ELLIPSOID), np.repeat(size[:1], 3))
    elif kind == _GEOM.mjGEOM_CYLINDER:
        mesh = _scaled(unit_triangles(CYLINDER), size[[0, 0, 1]])
    elif kind == _GEOM.mjGEOM_ELLIPSOID:
        mesh = _scaled(unit_triangles(ELLIPSOID), size)
    elif kind == _GEOM.mjGEOM_BOX:
        mesh = _scaled(unit_triangles(BOX), size)
    else:  # Planes and height fields cannot move.
        mesh = Triangles(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32))
    turn = np.empty(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    vertices = mesh.vertices @ turn.reshape(3, 3).T + model.geom_pos[geom]
    return Triangles(vertices.astype(np.float32), mesh.faces)


def merged(meshes: Sequence[Triangles]) -> Triangles:
    """Return several surfaces as one."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return Triangles(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate(faces).astype(np.uint32),
    )


def _scaled(mesh: Triangles, size: np.ndarray) -> Triangles:
    return Triangles((mesh.vertices * size).astype(np.float32), mesh.faces)


def _joints(*outline: tuple[float, float]) -> Triangles:
    """Turn a line of (radius, z) around z, with an edge at each of its corners."""
    pieces = zip(outline[:-1], outline[1:], strict=True)
    return merged([_turned(*np.array(piece).T) for piece in pieces])


def _turned(radius: np.ndarray, z: np.ndarray) -> Triangles:
    """Turn a smooth line of radii and heights, from below, around z."""
    angle = np.linspace(0.0, 2 * np.pi, _SIDES, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    vertices = np.concatenate(
        [
            radius[:, None, None] * ring,
            np.broadcast_to(z[:, None, None], (len(z), _SIDES, 1)),
        ],
        axis=-1,
    )
    number = np.arange(len(z) * _SIDES).reshape(len(z), _SIDES)
    following = np.roll(number, -1, axis=1)
    a, b, c, d = number[:-1], following[:-1], number[1:], following[1:]
    # At a radius of 0 one of the two triangles has no area.
    faces = np.concatenate(
        [
            np.stack([a, b, d], axis=-1)[radius[:-1] > 1e-9],
            np.stack([a, d, c], axis=-1)[radius[1:] > 1e-9],
        ]
    )
    return Triangles(vertices.reshape(-1, 3).astype(np.float32), faces.reshape(-1, 3).astype("u4"))


def _capsule(radius: float, half: float) -> Triangles:
    angles = np.linspace(0.0, np.pi, _SIDES // 2 + 1)
    angles = np.insert(angles, _SIDES // 4, np.pi / 2)  # The middle ring twice: a sphere in halves.
    z = -radius * np.cos(angles)
    middle = _SIDES // 4 + 1
    z[:middle] -= half
    z[middle:] += half
    return _turned(radius * np.sin(angles), z)


def _box() -> Triangles:
    sides = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            corners = np.zeros((4, 3), np.float32)
            corners[:, axis] = sign
            corners[:, u] = np.array([-1, 1, 1, -1]) * sign
            corners[:, v] = [-1, -1, 1, 1]
            sides.append(Triangles(corners, np.array([[0, 1, 2], [0, 2, 3]], np.uint32)))
    return merged(sides)


def _mesh(model: mujoco.MjModel, mesh: int) -> Triangles:
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    start, corners = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    return Triangles(
        model.mesh_vert[start : start + corners].copy(),
        model.mesh_face[first : first + count].astype(np.uint32),
    )
