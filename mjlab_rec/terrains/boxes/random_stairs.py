"""Stairs whose steps differ in height."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import FLAT, GROUND, Tile, shrunk
from mjlab_rec.terrains.boxes.stairs import fitting_steps
from mjlab_rec.terrains.checks import (
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class BoxRandomStairsTerrainCfg(SubTerrainCfg):
    """Stairs up to a platform in the middle, each step of a random height."""

    step_width: float = 0.8
    """Depth of a step in the direction of walking, in meters."""

    step_height_range: tuple[float, float] = (0.1, 0.3)
    """Least and greatest height of a step at difficulty 1, in meters; half of it at 0."""

    platform_width: float = 1.0
    """Least side length of the platform, in meters."""

    border_width: float = 0.25
    """Width of the flat border around the stairs, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "step_width", "platform_width")
        check_not_negative(self, "border_width")
        check_range(self, "step_height_range")
        inner = inner_size(self, self.border_width)
        count = fitting_steps(self, inner, self.platform_width, self.step_width)
        scale = 0.5 + 0.5 * difficulty
        tops = np.cumsum(rng.uniform(*self.step_height_range, count) * scale).tolist()

        tile = Tile(spec, self.size)
        tile.slab(0.0)
        below = 0.0
        for k, top in enumerate(tops):
            # The last step is the platform's edge: one box serves for both.
            size = shrunk(inner, k * self.step_width)
            if top - below > FLAT:
                tile.block(size, (-GROUND, top))
            below = top
        return tile.output(tops[-1] if tops else 0.0)
