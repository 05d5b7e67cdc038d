"""Waves along both axes."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import interpolate
from mjlab_rec.terrains.checks import check_not_negative, check_positive, check_range
from mjlab_rec.terrains.heights.grid import add_height_field, height_grid
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class HfWaveTerrainCfg(SubTerrainCfg):
    """The sum of a wave along x and one along y, about the height of the ground."""

    amplitude_range: tuple[float, float]
    """Greatest height above and below the ground at difficulty 0 and 1, in meters."""

    num_waves: int = 1
    """Number of waves along y. Those along x are as long."""

    horizontal_scale: float = 0.1
    """Distance between the points of the height field, in meters."""

    vertical_scale: float = 0.005
    """Heights are multiples of this, in meters."""

    base_thickness_ratio: float = 0.25
    """Thickness of the ground under the lowest point, as a fraction of the difference between the
    highest and the lowest; at least 0.2 m."""

    border_width: float = 0.0
    """Width of the flat border, in meters: 0, or at least horizontal_scale."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "num_waves", "vertical_scale")
        check_not_negative(self, "base_thickness_ratio")
        check_range(self, "amplitude_range")
        grid = height_grid(self, self.border_width, self.horizontal_scale)
        rows, columns = grid.inner_shape
        phase = 2.0 * np.pi * self.num_waves / rows
        along_y, along_x = np.sin(phase * np.arange(rows)), np.cos(phase * np.arange(columns))
        amplitude = 0.5 * interpolate(self.amplitude_range, difficulty)
        heights = amplitude * (along_y[:, None] + along_x[None, :])
        heights = grid.with_border(heights, self.vertical_scale)
        return add_height_field(spec, grid, heights, self.base_thickness_ratio)
