"""Beams over a pit, like the spokes of a wheel."""

from __future__ import annotations

import math
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

_HAIR = 5e-4  # By how much faces differ that would coincide, in meters.


@dataclass(kw_only=True)
class BoxNarrowBeamsTerrainCfg(SubTerrainCfg):
    """Beams over a pit that lead from a platform to the border in all directions."""

    num_beams: int = 16
    """Number of beams."""

    beam_width_range: tuple[float, float] = (0.2, 0.4)
    """Width of a beam at difficulty 1 and 0, in meters."""

    beam_height: float = 0.2
    """Height of the beams above the ground, in meters."""

    spacing: float = 0.8
    """No effect: the beams are spread evenly."""

    platform_width: float = 1.0
    """Greatest side length of the platform in the middle, in meters. It is smaller where its
    corners would stand out between the beams."""

    border_width: float = 0.25
    """Width of the border, in meters."""

    floor_depth: float = 2.0
    """Depth of the pit below the ground, in meters."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "num_beams", "platform_width", "floor_depth")
        check_not_negative(self, "beam_height", "border_width")
        check_range(self, "beam_width_range", above=True)
        inner = inner_size(self, self.border_width)
        check_fits(self, "platform_width", self.platform_width, inner)
        check_fits(self, "beam_width_range", max(self.beam_width_range), inner)

        width = interpolate(self.beam_width_range, 1.0 - difficulty)
        half = 0.5 * self.platform_width
        if self.num_beams > 1:
            # A corner lies at most half the angle between two beams away from one of them.
            half = min(half, width / (2.0 * math.sqrt(2.0) * math.sin(math.pi / self.num_beams)))
        z = (-self.floor_depth, self.beam_height)
        tile = Tile(spec, self.size)
        tile.slab(-self.floor_depth)
        tile.border(inner, z)
        tile.block((2.0 * half, 2.0 * half), z)
        for k in range(self.num_beams):
            angle = 2.0 * math.pi * k / self.num_beams
            # Where beams meet, only one of them is touched and seen.
            lower = _HAIR * (3 if 0 < k == self.num_beams - 1 else 1 + k % 2)
            cos, sin = math.cos(angle), math.sin(angle)
            # Far enough for both corners at its end to reach the border.
            ends = [
                (0.5 * length + 0.5 * width * abs(other)) / abs(part)
                for length, part, other in ((inner[0], cos, sin), (inner[1], sin, cos))
                if abs(part) > 1e-9
            ]
            far = min(ends)
            middle, reach = 0.5 * (half + far), 0.5 * (far - half)
            x, y = tile.center[0] + middle * cos, tile.center[1] + middle * sin
            tile.box(
                (x - reach, x + reach),
                (y - width / 2, y + width / 2),
                (z[0], z[1] - lower),
                yaw=angle,
            )
        return tile.output(self.beam_height)
