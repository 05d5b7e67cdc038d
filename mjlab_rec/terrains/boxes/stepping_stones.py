"""Stones over a pit."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import Tile, interpolate
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput

_SLIVER = 0.05  # Stones narrower than this after clipping are left out, in meters.


@dataclass(kw_only=True)
class BoxSteppingStonesTerrainCfg(SubTerrainCfg):
    """A grid of stones over a pit, around a platform. With the difficulty the gaps grow."""

    stone_size_range: tuple[float, float] = (0.4, 0.8)
    """Side length of a stone at difficulty 1 and 0, in meters."""

    stone_distance_range: tuple[float, float] = (0.2, 0.5)
    """The first number is the least gap at difficulty 0, in meters, which with the largest stones
    fixes the grid. The second has no effect: gaps grow because stones shrink."""

    stone_height: float = 0.2
    """Height of border, platform and stones above the ground, in meters."""

    stone_height_variation: float = 0.1
    """Greatest deviation of a stone's height at difficulty 1, in meters."""

    stone_size_variation: float = 0.1
    """Greatest deviation of a stone's side length at difficulty 1, in meters."""

    floor_depth: float = 2.0
    """Depth of the pit below the ground, in meters."""

    displacement_range: float = 0.1
    """Greatest displacement of a stone at difficulty 1, in meters."""

    platform_width: float = 1.0
    """Least side length of the platform in the middle, in meters. It extends to one gap before the
    first stone."""

    border_width: float = 0.25
    """Width of the border, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "platform_width", "floor_depth")
        check_not_negative(self, "stone_height_variation", "stone_size_variation")
        check_not_negative(self, "stone_height", "displacement_range", "border_width")
        check_range(self, "stone_size_range", above=True)
        check_range(self, "stone_distance_range")
        inner = inner_size(self, self.border_width)
        check_fits(self, "platform_width", self.platform_width, inner)
        check_fits(self, "stone_size_range", max(self.stone_size_range), inner)

        side = interpolate(self.stone_size_range, 1.0 - difficulty)
        centers, platform = zip(*(self._layout(length, side) for length in inner), strict=True)
        tile = Tile(spec, self.size)
        tile.slab(-self.floor_depth)
        tile.border(inner, (-self.floor_depth, self.stone_height))
        tile.block(platform, (-self.floor_depth, self.stone_height))

        shape = (len(centers[0]), len(centers[1]))
        place = np.stack(np.meshgrid(*centers, indexing="ij"), axis=-1)
        place += difficulty * rng.uniform(-1.0, 1.0, (*shape, 2)) * self.displacement_range
        size = side + difficulty * rng.uniform(-1.0, 1.0, (*shape, 2)) * self.stone_size_variation
        rise = difficulty * rng.uniform(-1.0, 1.0, shape) * self.stone_height_variation
        free = ~(np.abs(place) <= 0.5 * np.array(platform)).all(axis=-1)
        limit = 0.5 * np.array(inner)
        low, high = (np.clip(place + sign * size / 2, -limit, limit) for sign in (-1, 1))
        free &= (high - low >= _SLIVER).all(axis=-1)
        for (x0, y0), (x1, y1), up in zip(low[free], high[free], rise[free], strict=True):
            (cx, cy), top = tile.center, self.stone_height + up
            tile.box((cx + x0, cx + x1), (cy + y0, cy + y1), (-self.floor_depth, top))
        return tile.output(self.stone_height)

    def _layout(self, length: float, side: float) -> tuple[np.ndarray, float]:
        """Centers of the stones along an axis, from the middle, and the platform's length.

        The first and the last stone are on the border, whatever the difficulty.
        """
        pitch = max(self.stone_size_range) + self.stone_distance_range[0]
        count = max(2, int(length / pitch) + 1)
        centers = np.linspace(-length / 2, length / 2, count)
        gap = max(0.0, length / (count - 1) - side)
        # The platform ends one gap before the first stone that it leaves whole.
        nearest = self.platform_width / 2 + gap + side / 2
        first = min(int(np.searchsorted(centers, nearest - 1e-9)), count - 1)
        half = max(self.platform_width / 2, centers[first] - side / 2 - gap)
        return centers, 2.0 * half
