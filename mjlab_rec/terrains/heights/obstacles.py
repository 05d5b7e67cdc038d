"""Blocks and pits on flat ground, as a height field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import interpolate
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.heights.grid import add_height_field, height_grid
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput
from mjlab_rec.utils.string import nearest

_Mode = Literal["choice", "fixed"]


@dataclass(kw_only=True)
class HfDiscreteObstaclesTerrainCfg(SubTerrainCfg):
    """Rectangular blocks and pits around a flat platform. A later one replaces what it covers."""

    obstacle_height_mode: _Mode = "choice"
    """"choice" makes blocks and pits, of the full height or half of it; "fixed" makes blocks of the
    full height."""

    obstacle_width_range: tuple[float, float]
    """Least and greatest side length, in meters."""

    obstacle_height_range: tuple[float, float]
    """Height of the obstacles at difficulty 0 and 1, in meters."""

    num_obstacles: int
    """Number of obstacles."""

    platform_width: float = 1.0
    """Side length of the square in the middle that stays flat, in meters."""

    horizontal_scale: float = 0.1
    """Distance between the points of the height field, in meters."""

    vertical_scale: float = 0.005
    """Heights are multiples of this, in meters."""

    base_thickness_ratio: float = 1.0
    """Thickness of the ground under the lowest point, as a fraction of the difference between the
    highest and the lowest; at least 0.2 m."""

    border_width: float = 0.0
    """Width of the flat border, in meters: 0, or at least horizontal_scale."""

    square_obstacles: bool = False
    """Whether length and width of an obstacle are equal."""

    origin_z_offset: float = 0.0
    """Height of the place to start from above the platform, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "platform_width", "vertical_scale")
        check_not_negative(self, "num_obstacles", "base_thickness_ratio")
        check_range(self, "obstacle_height_range")
        check_range(self, "obstacle_width_range", above=True)
        if self.obstacle_height_mode not in get_args(_Mode):
            raise ValueError(
                "HfDiscreteObstaclesTerrainCfg: unknown obstacle_height_mode"
                f" {self.obstacle_height_mode!r}."
                f" {nearest(str(self.obstacle_height_mode), get_args(_Mode))}"
            )
        grid = height_grid(self, self.border_width, self.horizontal_scale)
        inner = inner_size(self, self.border_width)
        check_fits(self, "obstacle_width_range", max(self.obstacle_width_range), inner)

        height = interpolate(self.obstacle_height_range, difficulty)
        count, (rows, columns) = self.num_obstacles, grid.inner_shape
        factors = [-1.0, -0.5, 0.5, 1.0] if self.obstacle_height_mode == "choice" else [1.0]
        tops = height * rng.choice(factors, count)
        least, most = (max(1, round(w / self.horizontal_scale)) for w in self.obstacle_width_range)
        sizes = rng.integers(min(least, most), max(least, most) + 1, (count, 2))
        if self.square_obstacles:
            sizes[:, 1] = sizes[:, 0]
        starts = rng.integers(0, (rows, columns), (count, 2))
        heights = np.zeros(grid.inner_shape)
        for top, (row, column), (down, across) in zip(tops, starts, sizes, strict=True):
            heights[row : row + down, column : column + across] = top
        half = self.platform_width / 2
        (dx, dy) = grid.spacing
        in_y, in_x = (
            np.abs(np.arange(n) - (n - 1) / 2) * d <= half for n, d in ((rows, dy), (columns, dx))
        )
        heights[np.ix_(in_y, in_x)] = 0.0
        heights = grid.with_border(heights, self.vertical_scale)
        return add_height_field(
            spec, grid, heights, self.base_thickness_ratio, self.origin_z_offset
        )
