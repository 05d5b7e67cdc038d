"""Stairs up to a platform, or down to one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import (
    FLAT,
    GROUND,
    Tile,
    interpolate,
    shrunk,
    steps_that_fit,
)
from mjlab_rec.terrains.checks import (
    check_fits,
    check_not_negative,
    check_positive,
    check_range,
    inner_size,
)
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput

logger = logging.getLogger(__name__)


def fitting_steps(
    cfg: SubTerrainCfg,
    inner: tuple[float, float],
    platform: float,
    width: float,
    field: str = "step_width",
) -> int:
    """Number of steps between border and platform; warn if there is no room for one."""
    check_fits(cfg, field, width, inner)
    count = steps_that_fit(inner, platform, width)
    if count == 0:
        logger.warning(
            "%s: no step of %g m fits between the border and the platform of %g m of a tile of"
            " %g m x %g m, so there are no stairs.",
            *(type(cfg).__name__, width, platform, *cfg.size),
        )
    return count


@dataclass(kw_only=True)
class BoxPyramidStairsTerrainCfg(SubTerrainCfg):
    """Stairs on all four sides that lead up to a platform in the middle."""

    border_width: float = 0.0
    """Width of the flat border around the stairs, in meters; with `holes` it is left empty."""

    step_height_range: tuple[float, float]
    """Height of a step at difficulty 0 and 1, in meters."""

    step_width: float
    """Depth of a step in the direction of walking, in meters."""

    platform_width: float = 1.0
    """Least side length of the platform, in meters."""

    holes: bool = False
    """Leave out the corners, so that stairs as wide as the platform form a cross."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        tile, inner, count, height = self._measures(difficulty, spec)
        if height < FLAT and not self.holes:
            tile.slab(0.0)
            return tile.output(0.0)
        if self.border_width > 0.0 and not self.holes:
            tile.slab(0.0)
        # Each step is a box under all higher ones: a box per step is enough.
        for k in range(count):
            x, y = shrunk(inner, k * self.step_width)
            z = (-GROUND, (k + 1) * height)
            if self.holes:
                tile.block((x, self.platform_width), z)
                tile.block((self.platform_width, y), z)
            else:
                tile.block((x, y), z)
        top = (count + 1) * height
        tile.block(shrunk(inner, count * self.step_width), (-GROUND, top))
        return tile.output(top)

    def _measures(
        self, difficulty: float, spec: mujoco.MjSpec
    ) -> tuple[Tile, tuple[float, float], int, float]:
        """Checked: the tile, the size inside the border, number and height of steps."""
        check_positive(self, "step_width", "platform_width")
        check_not_negative(self, "border_width")
        check_range(self, "step_height_range")
        inner = inner_size(self, self.border_width)
        count = fitting_steps(self, inner, self.platform_width, self.step_width)
        return Tile(spec, self.size), inner, count, interpolate(self.step_height_range, difficulty)


@dataclass(kw_only=True)
class BoxInvertedPyramidStairsTerrainCfg(BoxPyramidStairsTerrainCfg):
    """Stairs on all four sides that lead down to a platform in the middle."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        tile, inner, count, height = self._measures(difficulty, spec)
        if height < FLAT and not self.holes:
            tile.slab(0.0)
            return tile.output(0.0)
        floor = -(count + 1) * height
        bottom = floor - GROUND
        if self.border_width > 0.0 and not self.holes:
            tile.border(inner, (bottom, 0.0))
        for k in range(count):
            outer = shrunk(inner, k * self.step_width)
            hole = shrunk(outer, self.step_width)
            z = (bottom, -(k + 1) * height)
            if self.holes:
                tile.frame((outer[0], self.platform_width), (hole[0], self.platform_width), z)
                tile.frame((self.platform_width, outer[1]), (self.platform_width, hole[1]), z)
            else:
                tile.frame(outer, hole, z)
        tile.block(shrunk(inner, count * self.step_width), (bottom, floor))
        return tile.output(floor)
