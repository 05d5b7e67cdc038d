"""A grid of square columns with tilted tops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import FLAT, Tile
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainGeometry, TerrainOutput

_LEVEL = 0.2  # Mean height of the columns, and that of border and platform, in meters.


@dataclass(kw_only=True)
class BoxTiltedGridTerrainCfg(SubTerrainCfg):
    """Square columns of random height whose tops are tilted, around a level platform."""

    grid_width: float = 1.0
    """Side length of a column, in meters."""

    tilt_range_deg: float = 15.0
    """Greatest tilt about x and about y at difficulty 1, in degrees."""

    height_range: float = 0.1
    """Difference between the highest and the lowest column at difficulty 1, in meters."""

    platform_width: float = 1.0
    """Least side length of the platform in the middle, in meters. It covers whole columns."""

    border_width: float = 0.25
    """Least width of the border, in meters."""

    floor_depth: float = 2.0
    """How far the columns reach below the ground, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "grid_width", "platform_width", "floor_depth")
        check_not_negative(self, "tilt_range_deg", "height_range", "border_width")
        if self.tilt_range_deg >= 80.0:
            raise ValueError(
                "BoxTiltedGridTerrainCfg.tilt_range_deg must be below 80 degrees, got"
                f" {self.tilt_range_deg}."
            )
        inner = inner_size(self, self.border_width)
        check_fits(self, "grid_width", self.grid_width, inner)
        check_fits(self, "platform_width", self.platform_width, inner)

        width, z = self.grid_width, (-self.floor_depth, _LEVEL)
        nx, ny = (math.floor(length / width + 1e-9) for length in inner)
        angle = math.radians(self.tilt_range_deg * difficulty)
        slopes = np.tan(rng.uniform(-angle, angle, (nx, ny, 2)))
        rises = rng.uniform(-0.5, 0.5, (nx, ny)) * self.height_range * difficulty
        tile = Tile(spec, self.size)
        if max(np.abs(slopes).max() * width, np.abs(rises).max()) < FLAT:
            tile.slab(_LEVEL)
            return tile.output(_LEVEL)
        x, y = ((np.arange(n + 1) - n / 2) * width for n in (nx, ny))
        (in_x, x_ends), (in_y, y_ends) = (_covered(e, self.platform_width) for e in (x, y))
        tile.border((nx * width, ny * width), z)
        tile.block((2.0 * x_ends, 2.0 * y_ends), z)
        number = len(spec.meshes)
        for i, j in zip(*np.nonzero(~np.outer(in_x, in_y)), strict=True):
            middle = (
                tile.center[0] + float(x[i]) + width / 2,
                tile.center[1] + float(y[j]) + width / 2,
            )
            name = f"terrain_column_{number}"
            _add_column(tile, name, middle, width, z[0], _LEVEL + float(rises[i, j]), slopes[i, j])
            number += 1
        return tile.output(_LEVEL)


def _covered(edges: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    """Which cells a platform in the middle touches, and how far these reach."""
    touched = (edges[:-1] < width / 2 - 1e-6) & (edges[1:] > -width / 2 + 1e-6)
    return touched, float(edges[1:][touched].max())


def _add_column(
    tile: Tile,
    name: str,
    middle: tuple[float, float],
    width: float,
    bottom: float,
    top: float,
    slope: np.ndarray,
) -> None:
    """Add a column whose top rises along x and y by these slopes."""
    half = 0.5 * width
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    tops = top + corners @ slope
    # The bottom is at equal height, or MuJoCo would reject a top below it.
    bottom = min(bottom, float(tops.min()) - 0.1)
    vertices = np.concatenate(
        (np.column_stack((corners, np.full(4, bottom))), np.column_stack((corners, tops)))
    )
    tile.spec.add_mesh(name=name, uservert=vertices.flatten().tolist(), userface=_FACES)
    geom = tile.body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, pos=[*middle, 0.0])
    tile.geometries.append(TerrainGeometry(geom=geom, top=top))


# Triangles of a column, counterclockwise from outside; 0 to 3 are the bottom's corners.
_SIDES = [(a, b, b + 4, a, b + 4, a + 4) for a, b in ((0, 1), (1, 2), (2, 3), (3, 0))]
_FACES = [0, 2, 1, 0, 3, 2, 4, 5, 6, 4, 6, 7, *(corner for side in _SIDES for corner in side)]
