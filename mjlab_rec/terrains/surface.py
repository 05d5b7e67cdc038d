"""The height of the ground on a tile, seen from above."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from mjlab_rec.terrains.heights.resample import resample_linear
from mjlab_rec.terrains.sub_terrain import TerrainGeometry

_SPACING = 0.05  # Distance of points on boxes, in meters.
_BOX, _MESH = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_MESH
_CORNERS = np.array([(x, y, z) for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], dtype=float)
# Two triangles for each of a box's faces.
_FACES = np.array(
    [
        *[(0, 1, 3), (0, 3, 2), (4, 5, 7), (4, 7, 6), (0, 1, 5), (0, 5, 4)],
        *[(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 3, 7), (1, 7, 5)],
    ]
)


def surface(
    spec: mujoco.MjSpec,
    geometries: list[TerrainGeometry],
    size: tuple[float, float],
    spacing: float | None = None,
) -> np.ndarray:
    """Height of the highest ground at points of a tile, (rows along y, columns along x).

    The points are evenly spaced from corner to corner. Where there is nothing the height is -inf.

    Args:
        spec: The model of the tile.
        geometries: The geoms of the tile, with its corner at x = y = 0.
        size: Length of the tile along x and y.
        spacing: Distance between points. None: those of the height field, if the tile is one.
    """
    fields = [g for g in geometries if g.hfield is not None and g.geom is not None]
    others = [g.geom for g in geometries if g.hfield is None and g.geom is not None]
    if spacing is None and len(fields) == 1 and not others:
        return field_heights(fields[0])
    step = min(spacing or _SPACING, _SPACING)
    shape = math.ceil(size[1] / step - 1e-9) + 1, math.ceil(size[0] / step - 1e-9) + 1
    heights = np.full(shape, -np.inf)
    for field in fields:
        np.maximum(heights, resample_linear(field_heights(field), shape), out=heights)
    x, y = np.linspace(0.0, size[0], shape[1]), np.linspace(0.0, size[1], shape[0])
    for geom in others:
        _raise_to(heights, x, y, geom, spec)
    return heights


def field_heights(geometry: TerrainGeometry) -> np.ndarray:
    """Heights of the points of a height field in meters, (rows along y, columns along x)."""
    if geometry.heights is not None:
        return geometry.heights
    field, geom = geometry.hfield, geometry.geom
    assert field is not None and geom is not None
    values = np.asarray(field.userdata, dtype=float).reshape(field.nrow, field.ncol)
    span = values.max() - values.min()
    # As MuJoCo does when it compiles.
    return geom.pos[2] + field.size[2] * (values - values.min()) / (span or 1.0)


def _raise_to(
    heights: np.ndarray, x: np.ndarray, y: np.ndarray, geom: mujoco.MjsGeom, spec: mujoco.MjSpec
) -> None:
    """Raise heights to the top of a geom wherever it is."""
    if geom.type == _BOX and abs(geom.quat[0]) > 1.0 - 1e-12:
        columns, rows = (
            _reached(at, geom.pos[i] - geom.size[i], geom.pos[i] + geom.size[i])
            for i, at in enumerate((x, y))
        )
        part = heights[rows, columns]
        np.maximum(part, geom.pos[2] + geom.size[2], out=part)
        return
    mesh = spec.mesh(geom.meshname) if geom.type == _MESH else None
    if geom.type == _BOX:
        vertices, faces = _CORNERS * geom.size, _FACES
    elif mesh is not None and len(mesh.uservert) and len(mesh.userface):
        vertices, faces = np.reshape(mesh.uservert, (-1, 3)), np.reshape(mesh.userface, (-1, 3))
    else:
        kind = mujoco.mjtGeom(geom.type).name.removeprefix("mjGEOM_").lower()
        raise ValueError(
            f"flat patches cannot be found on a {kind}: only on boxes, height fields and meshes of"
            " vertices and faces. Leave flat_patch_sampling out, or return"
            " TerrainOutput(flat_patches=...)."
        )
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, geom.quat)
    vertices = vertices @ turn.reshape(3, 3).T + geom.pos
    for triangle in vertices[faces]:
        _raise_to_triangle(heights, x, y, triangle)


def _raise_to_triangle(
    heights: np.ndarray, x: np.ndarray, y: np.ndarray, triangle: np.ndarray
) -> None:
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = triangle
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    if abs(area) < 1e-12:
        return  # It stands upright.
    columns = _reached(x, min(x0, x1, x2), max(x0, x1, x2))
    rows = _reached(y, min(y0, y1, y2), max(y0, y1, y2))
    dx, dy = x[columns][None, :] - x0, y[rows][:, None] - y0
    first = (dx * (y2 - y0) - dy * (x2 - x0)) / area
    second = (dy * (x1 - x0) - dx * (y1 - y0)) / area
    within = (first >= -1e-9) & (second >= -1e-9) & (first + second <= 1.0 + 1e-9)
    z = np.where(within, z0 + first * (z1 - z0) + second * (z2 - z0), -np.inf)
    part = heights[rows, columns]
    np.maximum(part, z, out=part)


def _reached(at: np.ndarray, low: float, high: float) -> slice:
    """The sorted coordinates between two ends."""
    start, stop = np.searchsorted(at, (low - 1e-9, high + 1e-9))
    return slice(int(start), int(stop))
