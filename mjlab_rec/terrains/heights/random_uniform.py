"""Rough ground: a random height at each point."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.checks import check_not_negative, check_positive, check_range
from mjlab_rec.terrains.heights.grid import add_height_field, height_grid
from mjlab_rec.terrains.heights.resample import resample_cubic
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class HfRandomUniformTerrainCfg(SubTerrainCfg):
    """Rough ground with random heights, smoothed if they are further apart than the points."""

    noise_range: tuple[float, float]
    """Least and greatest height, in meters."""

    noise_step: float = 0.005
    """Heights are multiples of this above the least, in meters."""

    downsampled_scale: float | None = None
    """Distance between random heights, in meters; between them the ground is smooth. None:
    horizontal_scale, which is the least."""

    horizontal_scale: float = 0.1
    """Distance between the points of the height field, in meters."""

    vertical_scale: float = 0.005
    """Heights are multiples of this, in meters."""

    base_thickness_ratio: float = 1.0
    """Thickness of the ground under the lowest point, as a fraction of the difference between the
    highest and the lowest; at least 0.2 m."""

    border_width: float = 0.0
    """Width of the flat border, in meters: 0, or at least horizontal_scale."""

    scale_with_difficulty: bool = False
    """Whether heights grow from 0 at difficulty 0 to noise_range at 1. If not, difficulty has no
    effect."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "noise_step", "vertical_scale")
        check_not_negative(self, "base_thickness_ratio")
        check_range(self, "noise_range", low=-np.inf)
        if self.noise_range[0] > self.noise_range[1]:
            raise ValueError(
                "HfRandomUniformTerrainCfg.noise_range must be the least and the greatest height,"
                f" got {self.noise_range}."
            )
        grid = height_grid(self, self.border_width, self.horizontal_scale)
        coarse = self.downsampled_scale or self.horizontal_scale
        if coarse < self.horizontal_scale:
            raise ValueError(
                f"HfRandomUniformTerrainCfg.downsampled_scale is {coarse:g} m, but must be at least"
                f" horizontal_scale, {self.horizontal_scale:g} m."
            )

        scale = difficulty if self.scale_with_difficulty else 1.0
        low, high = (round(scale * h / self.vertical_scale) for h in self.noise_range)
        step = max(1, round(self.noise_step / self.vertical_scale))
        ratio = self.horizontal_scale / coarse
        shape = [max(2, round(n * ratio)) for n in grid.inner_shape]
        heights = rng.choice(np.arange(low, high + 1, step), size=shape) * self.vertical_scale
        heights = resample_cubic(heights, grid.inner_shape)
        heights = grid.with_border(heights, self.vertical_scale)
        return add_height_field(spec, grid, heights, self.base_thickness_ratio)
