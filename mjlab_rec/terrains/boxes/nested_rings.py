"""Square rings over a pit, one within the other."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import Tile, interpolate, shrunk
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class BoxNestedRingsTerrainCfg(SubTerrainCfg):
    """Square rings over a pit around a platform. With the difficulty, gaps widen, rings narrow."""

    num_rings: int = 5
    """The most rings; fewer if they do not fit. The platform fills what is inside the last."""

    ring_width_range: tuple[float, float] = (0.3, 0.6)
    """Width of a ring at difficulty 1 and 0, in meters."""

    gap_range: tuple[float, float] = (0.0, 0.2)
    """Gap between rings at difficulty 0 and 1, in meters."""

    height_range: tuple[float, float] = (0.1, 0.4)
    """The mean of both is the height of everything above the ground, in meters."""

    platform_width: float = 1.0
    """Rings are added until less than this is left in the middle, in meters."""

    border_width: float = 0.25
    """Width of the border, in meters."""

    floor_depth: float = 2.0
    """Depth of the pit below the ground, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "num_rings", "platform_width", "floor_depth")
        check_not_negative(self, "border_width")
        check_range(self, "ring_width_range", above=True)
        check_range(self, "gap_range", "height_range")
        inner = inner_size(self, self.border_width)
        check_fits(self, "platform_width", self.platform_width, inner)

        width = interpolate(self.ring_width_range, 1.0 - difficulty)
        gap = interpolate(self.gap_range, difficulty)
        top = 0.5 * sum(self.height_range)
        outer = [inner]
        while len(outer) < self.num_rings:
            following = shrunk(outer[-1], width + gap)
            if min(following) <= self.platform_width:
                break
            outer.append(following)
        z = (-self.floor_depth, top)
        tile = Tile(spec, self.size)
        tile.slab(-self.floor_depth)
        tile.border(inner, z)
        for ring in outer[:-1]:
            tile.frame(ring, shrunk(ring, width), z)
        tile.block(outer[-1], z)  # The last ring and the platform in it.
        return tile.output(top)
