"""One tile of generated ground: its config, and what generating it returns."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import mujoco
import numpy as np


@dataclass
class FlatPatchSamplingCfg:
    """Where flat places are looked for, such as places to start from.

    Coordinates are those of the tile: x and y from 0 at its corner, z as in the world.
    """

    num_patches: int = 10
    """Number of patches per tile. If a tile has fewer places, they repeat."""

    patch_radius: float = 0.5
    """Radius of a patch, in meters."""

    max_height_diff: float = 0.05
    """Difference between the highest and the lowest point of a patch that still counts as flat, in
    meters."""

    x_range: tuple[float, float] = (-1e6, 1e6)
    """Allowed x of the centers, in meters."""

    y_range: tuple[float, float] = (-1e6, 1e6)
    """Allowed y of the centers, in meters."""

    z_range: tuple[float, float] = (-1e6, 1e6)
    """Allowed height of a patch, in meters."""

    grid_resolution: float | None = None
    """Distance between the points at which the ground is tested, in meters. None uses the points of
    a height field, and 0.05 on boxes. A coarser value than that has no effect."""


@dataclass
class TerrainGeometry:
    """A geom of a tile."""

    geom: mujoco.MjsGeom | None = None
    """The geom, at its position in the tile."""

    hfield: mujoco.MjsHField | None = None
    """The height field that the geom shows, if it is one."""

    color: tuple[float, float, float, float] | None = None
    """Colour for `color_scheme="height"`; None colours by the height of its top."""

    top: float | None = None
    """About how high it reaches, in meters, for colours. None: taken from the geom."""

    heights: np.ndarray | None = None
    """Heights of the height field's points in meters, rows along y. None: taken from the field."""


@dataclass
class TerrainOutput:
    """What generating a tile returns. The tile's corner is at x = y = 0."""

    origin: np.ndarray
    """Where robots start, (x, y, z)."""

    geometries: list[TerrainGeometry]
    """Everything that the tile consists of."""

    flat_patches: dict[str, np.ndarray] | None = None
    """Flat places by name, each (n, 3). None lets the generator look for those in
    `SubTerrainCfg.flat_patch_sampling`."""


@dataclass
class SubTerrainCfg(abc.ABC):
    """A kind of ground. Subclasses say how a tile of it is made."""

    proportion: float = 1.0
    """Weight of this kind. In curriculum mode: of the number of robots in its column. Otherwise: of
    the probability that a tile is of this kind."""

    size: tuple[float, float] = (10.0, 10.0)
    """Length of a tile along x and y, in meters. The generator uses its own `size` instead."""

    flat_patch_sampling: dict[str, FlatPatchSamplingCfg] | None = None
    """Flat places to look for, by name."""

    @abc.abstractmethod
    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile to the body "terrain" of the spec, with the tile's corner at x = y = 0.

        Args:
            difficulty: From 0, easy, to 1, hard.
            spec: The model that the geoms are added to.
            rng: Source of all randomness of this tile.
        """
