"""Stairs of thin boards, open below."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import Tile, interpolate, shrunk
from mjlab_rec.terrains.boxes.stairs import fitting_steps
from mjlab_rec.terrains.checks import (
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class BoxOpenStairsTerrainCfg(SubTerrainCfg):
    """Thin boards as steps on all sides of a platform, over ground; feet can get under them."""

    step_height_range: tuple[float, float] = (0.1, 0.2)
    """Height of a step at difficulty 0 and 1, in meters."""

    step_width_range: tuple[float, float] = (0.4, 0.8)
    """Depth of a step at difficulty 1 and 0, in meters: hard steps are narrow."""

    platform_width: float = 1.0
    """Least side length of the platform in the middle, in meters."""

    border_width: float = 0.25
    """Width of the flat border, in meters."""

    step_thickness: float = 0.05
    """Thickness of the boards, in meters."""

    inverted: bool = True
    """Whether the stairs lead down to the platform."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "platform_width", "step_thickness")
        check_not_negative(self, "border_width")
        check_range(self, "step_height_range")
        check_range(self, "step_width_range", above=True)
        height = interpolate(self.step_height_range, difficulty)
        width = interpolate(self.step_width_range, 1.0 - difficulty)
        inner = inner_size(self, self.border_width)
        count = fitting_steps(self, inner, self.platform_width, width, "step_width_range")

        tile = Tile(spec, self.size)
        tops = [-k * height if self.inverted else (k + 1) * height for k in range(count + 1)]
        if self.inverted:
            floor = tops[-1] - max(height, 2.0 * self.step_thickness)
            tile.slab(floor)
            tile.border(inner, (floor, 0.0))
        else:
            tile.slab(0.0)
        for k, top in enumerate(tops[:-1]):
            outer = shrunk(inner, k * width)
            tile.frame(outer, shrunk(outer, width), (top - self.step_thickness, top))
        tile.block(shrunk(inner, count * width), (tops[-1] - self.step_thickness, tops[-1]))
        return tile.output(tops[-1])
