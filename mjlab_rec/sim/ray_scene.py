"""The geoms that rays can hit, as warp arrays, and a map of those that never move.

A ray must not be compared with thousands of boxes of a terrain. So the ground is divided into
cells, and each knows the geoms that do not move and are above or below it. A vertical ray visits
one cell, another ray those that it crosses. Planes are everywhere, and moving geoms have a list of
their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
import warp as wp

_MAX_CELLS_PER_SIDE = 2048
_CELLS_PER_GEOM = 16.0
# A cell also knows geoms this far outside of it, in meters, so that rounding loses none.
_MARGIN = 1.0e-3

POSE_FIELDS = frozenset(
    {"geom_pos", "geom_quat", "body_pos", "body_quat", "geom_size", "geom_dataid"}
)
"""Model fields that move or change geoms. With a value per world, no geom counts as fixed."""
RAY_FIELDS = POSE_FIELDS | {"geom_rgba", "mat_rgba", "geom_matid"}
"""Model fields that rays depend on."""


@wp.struct
class RayScene:
    """Geoms of the model, in the form that kernels read."""

    kind: wp.array(dtype=int)  # type: ignore[valid-type]
    group: wp.array(dtype=int)  # type: ignore[valid-type]
    body: wp.array(dtype=int)  # type: ignore[valid-type]
    radius: wp.array(dtype=float)  # type: ignore[valid-type]
    # With a row for all worlds, or one per world.
    size: wp.array2d(dtype=wp.vec3)  # type: ignore[valid-type]
    data_id: wp.array2d(dtype=int)  # type: ignore[valid-type]
    material: wp.array2d(dtype=int)  # type: ignore[valid-type]
    color: wp.array2d(dtype=wp.vec4)  # type: ignore[valid-type]
    material_color: wp.array2d(dtype=wp.vec4)  # type: ignore[valid-type]
    # Poses: of fixed geoms, and of all geoms per world.
    is_fixed: wp.array(dtype=int)  # type: ignore[valid-type]
    fixed_pos: wp.array(dtype=wp.vec3)  # type: ignore[valid-type]
    fixed_mat: wp.array(dtype=wp.mat33)  # type: ignore[valid-type]
    pos: wp.array2d(dtype=wp.vec3)  # type: ignore[valid-type]
    mat: wp.array2d(dtype=wp.mat33)  # type: ignore[valid-type]
    # Cells over the ground, row by row. From cell_start[i] to cell_start[i + 1] are the geoms of
    # cell i, the highest first, and their lowest and highest points.
    corner: wp.vec2
    cell: wp.vec2
    columns: int
    rows: int
    cell_start: wp.array(dtype=int)  # type: ignore[valid-type]
    cell_geoms: wp.array(dtype=int)  # type: ignore[valid-type]
    cell_heights: wp.array(dtype=wp.vec2)  # type: ignore[valid-type]
    # Height fields and meshes.
    hfield_size: wp.array(dtype=wp.vec4)  # type: ignore[valid-type]
    hfield_rows: wp.array(dtype=int)  # type: ignore[valid-type]
    hfield_columns: wp.array(dtype=int)  # type: ignore[valid-type]
    hfield_start: wp.array(dtype=int)  # type: ignore[valid-type]
    hfield_data: wp.array(dtype=float)  # type: ignore[valid-type]
    mesh: wp.array(dtype=wp.uint64)  # type: ignore[valid-type]
    mesh_radius: wp.array(dtype=float)  # type: ignore[valid-type]


@dataclass(frozen=True)
class BuiltScene:
    """A `RayScene`, what must stay alive for it, and the geoms outside its map."""

    scene: Any
    meshes: list[Any]
    planes: np.ndarray  # ids of planes that do not move, which are everywhere
    moving: np.ndarray  # ids of geoms whose pose differs between worlds
    radii: np.ndarray  # how far each geom reaches from its centre


def build_scene(
    model: mujoco.MjModel,
    per_world: Callable[[str], torch.Tensor | None],
    device: wp.Device,
) -> BuiltScene:
    """Copy the geoms of a model to a device.

    Args:
        model: The compiled model.
        per_world: Returns the live tensor of a model field with a value per world, else None.
        device: Where the rays are computed.
    """

    def array(values: Any, dtype: Any) -> wp.array:
        values = np.ascontiguousarray(values)
        if values.shape[0] == 0:  # Kernels never read it, but its type must be right.
            values = np.zeros((1, *values.shape[1:]), values.dtype)
        return wp.array(values, dtype=dtype, device=device)

    def rows(name: str, dtype: Any) -> wp.array:
        live = per_world(name)
        if live is not None and live.numel():
            return wp.from_torch(live, dtype)
        values = getattr(model, name)
        if values.shape[0] == 0:
            values = np.zeros((1, *values.shape[1:]), values.dtype)
        return array(values[None].astype(np.int32 if dtype is int else np.float32), dtype)

    fixed = fixed_geoms(model)
    if any(per_world(name) is not None for name in POSE_FIELDS):
        fixed = np.zeros_like(fixed)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    is_plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    mapped = np.flatnonzero(fixed & ~is_plane)
    scene: Any = RayScene()
    scene.kind = array(model.geom_type, int)
    scene.group = array(np.clip(model.geom_group, 0, mujoco.mjNGROUP - 1), int)
    scene.body = array(model.geom_bodyid, int)
    reach = _radii(model, per_world)
    scene.radius = array(reach.astype(np.float32), float)
    scene.size = rows("geom_size", wp.vec3)
    scene.data_id = rows("geom_dataid", int)
    scene.material = rows("geom_matid", int)
    scene.color = rows("geom_rgba", wp.vec4)
    scene.material_color = rows("mat_rgba", wp.vec4)
    scene.is_fixed = array(fixed.astype(np.int32), int)
    scene.fixed_pos = array(data.geom_xpos, wp.vec3)
    scene.fixed_mat = array(data.geom_xmat.reshape(-1, 3, 3), wp.mat33)
    _add_cells(scene, model, data, mapped, array)
    scene.hfield_size = array(model.hfield_size, wp.vec4)
    scene.hfield_rows = array(model.hfield_nrow, int)
    scene.hfield_columns = array(model.hfield_ncol, int)
    scene.hfield_start = array(model.hfield_adr, int)
    scene.hfield_data = array(model.hfield_data, float)
    any_mesh = per_world("geom_dataid") is not None
    meshes, radii = _make_meshes(model, any_mesh, device)
    scene.mesh = array(np.array([mesh.id if mesh else 0 for mesh in meshes], np.uint64), wp.uint64)
    scene.mesh_radius = array(np.array(radii, np.float32), float)
    planes, moving = np.flatnonzero(fixed & is_plane), np.flatnonzero(~fixed)
    return BuiltScene(scene, meshes, planes, moving, reach)


def fixed_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Which geoms are at the same place in every world and at all times."""
    is_fixed = model.body_weldid == 0
    for body in range(1, model.nbody):  # Parents come before their children.
        parent = model.body_parentid[body]
        is_fixed[body] &= is_fixed[parent] and model.body_mocapid[body] < 0
    return is_fixed[model.geom_bodyid]


def _radii(model: mujoco.MjModel, per_world: Callable[[str], torch.Tensor | None]) -> np.ndarray:
    """How far geoms reach from their centres; more than far enough where that is not known."""
    kinds = mujoco.mjtGeom
    is_mesh = np.isin(model.geom_type, (kinds.mjGEOM_MESH, kinds.mjGEOM_SDF))
    unknown = np.isin(model.geom_type, (kinds.mjGEOM_PLANE, kinds.mjGEOM_HFIELD))
    if per_world("geom_size") is not None:
        unknown |= ~is_mesh
    if per_world("geom_dataid") is not None:
        unknown |= is_mesh
    return np.where(unknown, 1.0e15, model.geom_rbound * (1.0 + 1.0e-5) + 1.0e-6)


def _add_cells(
    scene: Any, model: mujoco.MjModel, data: mujoco.MjData, geoms: np.ndarray, array: Any
) -> None:
    """Map geoms to the cells that they cover, seen from above."""
    center, half = model.geom_aabb[geoms, :3], model.geom_aabb[geoms, 3:]
    axes = data.geom_xmat[geoms].reshape(-1, 3, 3)
    middle = data.geom_xpos[geoms] + np.einsum("gij,gj->gi", axes, center)
    reach = np.einsum("gij,gj->gi", np.abs(axes), half) + _MARGIN
    heights = np.zeros((model.ngeom, 2))
    heights[geoms, 0], heights[geoms, 1] = (middle - reach)[:, 2], (middle + reach)[:, 2]
    low, high = (middle - reach)[:, :2], (middle + reach)[:, :2]
    corner = low.min(axis=0) if len(geoms) else np.zeros(2)
    extent = high.max(axis=0) - corner if len(geoms) else np.ones(2)
    side = math.sqrt(float(extent.prod()) / max(1.0, _CELLS_PER_GEOM * len(geoms)))
    counts = np.clip(np.ceil(extent / max(side, 1.0e-6)), 1, _MAX_CELLS_PER_SIDE).astype(int)
    cell = extent / counts
    first = np.clip(np.floor((low - corner) / cell), 0, counts - 1).astype(int)
    last = np.clip(np.floor((high - corner) / cell), 0, counts - 1).astype(int)
    cells: list[np.ndarray] = [np.zeros(0, int)]
    ids: list[np.ndarray] = [np.zeros(0, int)]
    # From the highest down: a ray from above then meets the nearest geom first.
    for i in np.argsort(-(middle + reach)[:, 2], kind="stable"):
        column = np.arange(first[i, 0], last[i, 0] + 1)
        row = np.arange(first[i, 1], last[i, 1] + 1)
        covered = (row[:, None] * counts[0] + column).ravel()
        cells.append(covered)
        ids.append(np.full(len(covered), geoms[i]))
    cell_of, geom_of = np.concatenate(cells), np.concatenate(ids)
    order = np.argsort(cell_of, kind="stable")
    starts = np.searchsorted(cell_of[order], np.arange(counts.prod() + 1))
    scene.corner = wp.vec2(*corner)
    scene.cell = wp.vec2(*cell)
    scene.columns, scene.rows = int(counts[0]), int(counts[1])
    scene.cell_start = array(starts.astype(np.int32), int)
    scene.cell_geoms = array(geom_of[order].astype(np.int32), int)
    scene.cell_heights = array(heights[geom_of[order]].astype(np.float32), wp.vec2)


def _make_meshes(
    model: mujoco.MjModel, all_of_them: bool, device: wp.Device
) -> tuple[list[Any | None], list[float]]:
    """Make searchable meshes, of those that geoms use or of all, and say how far each reaches."""
    kinds = (mujoco.mjtGeom.mjGEOM_MESH, mujoco.mjtGeom.mjGEOM_SDF)
    has_mesh = np.isin(model.geom_type, kinds)
    used = set(model.geom_dataid[has_mesh].tolist())
    meshes: list[Any | None] = []
    radii: list[float] = []
    for i in range(model.nmesh):
        first, number = model.mesh_vertadr[i], model.mesh_vertnum[i]
        points = model.mesh_vert[first : first + number]
        radii.append(float(np.linalg.norm(points, axis=1).max()) * (1.0 + 1.0e-6))
        if i not in used and not all_of_them:
            meshes.append(None)
            continue
        first, number = model.mesh_faceadr[i], model.mesh_facenum[i]
        meshes.append(
            wp.Mesh(
                wp.array(points, dtype=wp.vec3, device=device),
                wp.array(model.mesh_face[first : first + number].ravel(), dtype=int, device=device),
            )
        )
    return meshes, radii
