"""Slopes up to a platform, or down to one."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import interpolate
from mjlab_rec.terrains.checks import check_not_negative, check_positive, check_range
from mjlab_rec.terrains.heights.grid import add_height_field, height_grid
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class HfPyramidSlopedTerrainCfg(SubTerrainCfg):
    """A rounded pyramid: slopes on all sides of a platform in the middle."""

    slope_range: tuple[float, float]
    """Rise over run straight up to the middle of a side, at difficulty 0 and 1. It falls off
    towards the corners."""

    platform_width: float = 1.0
    """Side length of the platform, in meters."""

    inverted: bool = False
    """Whether the slopes lead down to the platform."""

    border_width: float = 0.0
    """Width of the flat border, in meters: 0, or at least horizontal_scale."""

    horizontal_scale: float = 0.1
    """Distance between the points of the height field, in meters."""

    vertical_scale: float = 0.005
    """Heights are multiples of this, in meters."""

    base_thickness_ratio: float = 1.0
    """Thickness of the ground under the lowest point, as a fraction of the height of the slopes; at
    least 0.2 m."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "platform_width", "vertical_scale")
        check_not_negative(self, "base_thickness_ratio")
        check_range(self, "slope_range")
        grid = height_grid(self, self.border_width, self.horizontal_scale)
        x_length, y_length = grid.inner_lengths
        # From 0 at the edges to 1 in the middle, and what of it the platform cuts off.
        rows, columns = (1.0 - np.abs(np.linspace(-1.0, 1.0, n)) for n in grid.inner_shape)
        cut = [max(0.0, 1.0 - self.platform_width / length) for length in (x_length, y_length)]
        peak = 0.5 * min(x_length, y_length) * interpolate(self.slope_range, difficulty)
        heights = peak * np.minimum(np.outer(rows, columns), cut[0] * cut[1])
        if self.inverted:
            heights = -heights
        heights = grid.with_border(heights, self.vertical_scale)
        top = heights[grid.shape[0] // 2, grid.shape[1] // 2]
        return add_height_field(spec, grid, heights, self.base_thickness_ratio, float(top))
