"""Boxes that lie around on flat ground."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import GROUND, Tile
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class BoxRandomSpreadTerrainCfg(SubTerrainCfg):
    """Boxes of random size, position and direction; none on the place to start from."""

    num_boxes: int = 60
    """Number of boxes at difficulty 1, half of it at 0. Those that would lie on the platform are
    left out."""

    box_width_range: tuple[float, float] = (0.3, 1.0)
    """Least and greatest length along the box's x axis, in meters."""

    box_length_range: tuple[float, float] = (0.3, 1.0)
    """Least and greatest length along the box's y axis, in meters."""

    box_height_range: tuple[float, float] = (0.05, 1.0)
    """Least and greatest height at difficulty 1, in meters; a fifth of it at 0."""

    box_yaw_range: tuple[float, float] = (0.0, 360.0)
    """Least and greatest angle about the vertical, in degrees."""

    add_floor: bool = True
    """Whether there is ground between the boxes. Without it there are border, platform and boxes
    only."""

    platform_width: float = 1.0
    """Side length of the square in the middle that stays free, in meters."""

    border_width: float = 0.25
    """Width of the border that stays free, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "platform_width")
        check_not_negative(self, "num_boxes", "border_width")
        check_range(self, "box_width_range", "box_length_range", "box_height_range", above=True)
        check_range(self, "box_yaw_range", low=-np.inf)
        inner = inner_size(self, self.border_width)
        check_fits(self, "platform_width", self.platform_width, inner)

        tile = Tile(spec, self.size)
        if self.add_floor:
            tile.slab(0.0)
        else:
            tile.border(inner, (-GROUND, 0.0))
            tile.block((self.platform_width, self.platform_width), (-GROUND, 0.0))

        count = int(self.num_boxes * (0.5 + 0.5 * difficulty))
        size = np.column_stack(
            (rng.uniform(*self.box_width_range, count), rng.uniform(*self.box_length_range, count))
        )
        height = rng.uniform(*self.box_height_range, count) * (0.2 + 0.8 * difficulty)
        yaw = np.deg2rad(rng.uniform(*self.box_yaw_range, count))
        # How far a turned box reaches along x and y.
        cos, sin = np.abs(np.cos(yaw)), np.abs(np.sin(yaw))
        width, length = size.T
        reach = 0.5 * np.column_stack((cos * width + sin * length, sin * width + cos * length))
        room = 0.5 * np.array(inner) - reach
        place = rng.uniform(-1.0, 1.0, (count, 2)) * room
        too_large = (room < 0.0).any(axis=1)
        # Two rectangles overlap unless an axis of one of them separates them.
        half = 0.5 * self.platform_width
        on_platform = (np.abs(place) < reach + half).all(axis=1)
        along, across = (
            np.abs(place[:, i] * np.cos(yaw) + sign * place[:, 1 - i] * np.sin(yaw))
            < 0.5 * size[:, i] + half * (cos + sin)
            for i, sign in ((0, 1.0), (1, -1.0))
        )
        on_platform &= along & across
        for k in np.flatnonzero(~(too_large | on_platform)):
            (x, y), (dx, dy) = place[k] + tile.center, 0.5 * size[k]
            tile.box((x - dx, x + dx), (y - dy, y + dy), (0.0, height[k]), yaw=float(yaw[k]))
        return tile.output(0.0)
