"""A grid of square columns of random heights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import FLAT, GROUND, Tile, interpolate
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class BoxRandomGridTerrainCfg(SubTerrainCfg):
    """Square columns of random heights around a platform, which is as high as the highest."""

    grid_width: float
    """Side length of a column, in meters."""

    grid_height_range: tuple[float, float]
    """Greatest height above and below the ground, at difficulty 0 and 1, in meters."""

    platform_width: float = 1.0
    """Side length of the platform in the middle, in meters."""

    holes: bool = False
    """Leave out the corners, so that the columns form a cross as wide as the platform."""

    merge_similar_heights: bool = False
    """Join neighbouring columns of similar height, which takes fewer geoms."""

    height_merge_threshold: float = 0.05
    """Heights are rounded to multiples of this before columns are joined, in meters."""

    max_merge_distance: int = 3
    """The most columns that are joined along x and along y."""

    border_width: float = 0.25
    """Least width of the flat border, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "grid_width", "platform_width", "height_merge_threshold")
        check_positive(self, "max_merge_distance")
        check_not_negative(self, "border_width")
        check_range(self, "grid_height_range")
        inner = inner_size(self, self.border_width)
        check_fits(self, "grid_width", self.grid_width, inner)
        check_fits(self, "platform_width", self.platform_width, inner)

        width, high = self.grid_width, interpolate(self.grid_height_range, difficulty)
        nx, ny = (math.floor(length / width + 1e-9) for length in inner)
        heights = rng.uniform(-high, high, (nx, ny))
        tile = Tile(spec, self.size)
        if high < FLAT and not self.holes:
            tile.slab(0.0)
            return tile.output(0.0)

        # Columns that the platform hides are left out, those that it cuts stay.
        x = tile.center[0] + (np.arange(nx + 1) - nx / 2) * width
        y = tile.center[1] + (np.arange(ny + 1) - ny / 2) * width
        dx, dy, platform = x - tile.center[0], y - tile.center[1], self.platform_width
        free = ~np.outer(_inside(dx, platform), _inside(dy, platform))
        if self.holes:
            free &= np.logical_or.outer(_crosses(dx, platform), _crosses(dy, platform))
        most = self.max_merge_distance if self.merge_similar_heights else 1
        if self.merge_similar_heights:
            heights = np.round(heights / self.height_merge_threshold) * self.height_merge_threshold
        tile.border((nx * width, ny * width), (-GROUND, 0.0))
        for i, j, right, up in rectangles(heights, free, most):
            tile.box((x[i], x[right]), (y[j], y[up]), (-GROUND, heights[i, j]))
        tile.block((platform, platform), (-GROUND, high))
        return tile.output(high)


def rectangles(
    values: np.ndarray, free: np.ndarray, most: int
) -> Iterator[tuple[int, int, int, int]]:
    """Cover the free cells with rectangles of equal values, at most ``most`` cells long.

    Yields (first row, first column, row behind the last, column behind the last).
    """
    if most == 1:
        yield from ((i, j, i + 1, j + 1) for i, j in np.argwhere(free))
        return
    free = free.copy()
    for i, j in zip(*np.nonzero(free), strict=True):
        if not free[i, j]:
            continue
        near = np.s_[i : i + most, j : j + most]
        same = free[near] & (np.abs(values[near] - values[i, j]) < 1e-6)
        down = _run(same[:, 0])
        across = _run(np.asarray(same[:down].all(axis=0)))
        free[i : i + down, j : j + across] = False
        yield i, j, i + down, j + across


def _run(flags: np.ndarray) -> int:
    """How many flags are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _inside(edges: np.ndarray, width: float) -> np.ndarray:
    """Which cells between these edges, relative to the middle, are within the width."""
    return (edges[:-1] > -width / 2 - 1e-9) & (edges[1:] < width / 2 + 1e-9)


def _crosses(edges: np.ndarray, width: float) -> np.ndarray:
    """Which cells have their middle within the width."""
    middle = 0.5 * (edges[:-1] + edges[1:])
    return np.abs(middle) <= width / 2 + 1e-9
