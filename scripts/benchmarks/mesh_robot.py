"""A robot of detailed meshes, like those that come from CAD programs, made by computation."""

from __future__ import annotations

import mujoco
import numpy as np

_LEGS = {"front_left": (0.2, 0.12), "front_right": (0.2, -0.12)}
_LEGS |= {"back_left": (-0.2, 0.12), "back_right": (-0.2, -0.12)}
_PARTS = 1 + 2 * len(_LEGS)
_ORANGE, _GREY = (0.8, 0.4, 0.1, 1.0), (0.3, 0.3, 0.3, 1.0)
_BUMPS = 0.06  # Height of the bumps on the meshes, as a fraction of their radius.


def mesh_robot(faces: int) -> mujoco.MjSpec:
    """Return a robot with four legs whose meshes have about this many faces in all.

    It hangs in the air and touches nothing; its joints swing.

    Args:
        faces: Number of faces, all visible.
    """
    spec = mujoco.MjSpec()
    vertices, triangles = _bumpy_ball(faces / _PARTS)
    trunk = spec.worldbody.add_body(name="trunk")
    _add_part(spec, trunk, "trunk", vertices * (0.3, 0.12, 0.08), triangles, _GREY)
    for name, (x, y) in _LEGS.items():
        thigh = trunk.add_body(name=f"{name}_thigh", pos=(x, y, -0.02))
        shin = thigh.add_body(name=f"{name}_shin", pos=(0.0, 0.0, -0.25))
        for body, color, width in (
            (thigh, (0.8, 0.4, 0.1, 1), 0.045),
            (shin, (0.3, 0.3, 0.3, 1), 0.03),
        ):
            body.add_joint(
                name=body.name, axis=(0, 1, 0), stiffness=5.0, damping=0.05, springref=20.0
            )
            shape = vertices * (width, width, 0.14) - (0.0, 0.0, 0.12)
            _add_part(spec, body, body.name, shape, triangles, color)
    return spec


def _add_part(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    vertices: np.ndarray,
    triangles: np.ndarray,
    color: tuple[float, ...],
) -> None:
    mesh = spec.add_mesh(name=name, uservert=vertices.ravel(), userface=triangles.ravel())
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=name,
        rgba=color,
        mass=0.5,
        contype=0,
        conaffinity=0,
    )


def _bumpy_ball(faces: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and triangles of a ball of radius 1 with bumps."""
    rings = max(4, round(np.sqrt(faces / 4)))
    around = 2 * rings
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    turn = np.arange(around) * 2 * np.pi / around
    a, b = (grid.ravel() for grid in np.meshgrid(polar, turn, indexing="ij"))
    points = np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)], axis=1)
    points *= 1.0 + _BUMPS * (np.cos(8 * a) * np.cos(8 * b))[:, None]
    poles = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    top, bottom = len(points), len(points) + 1
    index = np.arange(len(points)).reshape(len(polar), around)
    right = np.roll(index, -1, axis=1)
    sides = [
        np.stack([index[:-1], index[1:], right[1:]], axis=-1).reshape(-1, 3),
        np.stack([index[:-1], right[1:], right[:-1]], axis=-1).reshape(-1, 3),
        np.stack([np.full(around, top), index[0], right[0]], axis=-1),
        np.stack([np.full(around, bottom), right[-1], index[-1]], axis=-1),
    ]
    return np.concatenate([points, poles]), np.concatenate(sides).astype(np.int32)
