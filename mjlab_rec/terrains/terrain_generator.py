"""Generated ground: a grid of tiles, each of a kind and a difficulty."""

from __future__ import annotations

import copy
import logging
import random
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.colors import border_color, paint
from mjlab_rec.terrains.flat_patches import find_flat_patches
from mjlab_rec.terrains.generator_cfg import TerrainGeneratorCfg as TerrainGeneratorCfg
from mjlab_rec.terrains.generator_cfg import check_generator_cfg
from mjlab_rec.terrains.sub_terrain import FlatPatchSamplingCfg as FlatPatchSamplingCfg
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg as SubTerrainCfg
from mjlab_rec.terrains.sub_terrain import TerrainGeometry as TerrainGeometry
from mjlab_rec.terrains.sub_terrain import TerrainOutput as TerrainOutput
from mjlab_rec.terrains.utils import make_border

logger = logging.getLogger(__name__)

# Uses of random numbers. Each has its own stream, so that none changes another.
_KIND, _SHAPE, _PATCHES, _COLOR = range(4)


@dataclass(frozen=True)
class TerrainTile:
    """What is at one place of the grid."""

    name: str
    """Name of the sub-terrain."""

    difficulty: float
    """How hard it is, from 0 to 1."""


class TerrainGenerator:
    """Adds a grid of tiles to a model, as the geoms of a body "terrain".

    The middle of the grid is at the origin of the world; rows are along x and columns along y. The
    same seed gives the same ground. A tile depends on the seed, its place, and its own kind and
    difficulty, not on the other tiles.

    Args:
        cfg: What to generate.
        device: Accepted so that code ports; everything is numpy.
        seed: The seed if ``cfg.seed`` is None; None draws one.
    """

    def __init__(
        self, cfg: TerrainGeneratorCfg, device: str = "cpu", seed: int | None = None
    ) -> None:
        check_generator_cfg(cfg)
        self.cfg = cfg
        self.device = device
        if cfg.seed is not None:
            seed = cfg.seed
        self.seed: int = random.SystemRandom().randrange(2**31) if seed is None else seed
        """The seed in use."""
        self.np_rng = np.random.default_rng(self.seed)
        # Copies: the sub-terrains may be shared with other generators of another tile size.
        self._kinds: dict[str, SubTerrainCfg] = {}
        for name, sub in cfg.sub_terrains.items():
            self._kinds[name] = copy.copy(sub)
            self._kinds[name].size = (float(cfg.size[0]), float(cfg.size[1]))
        self.num_rows = cfg.num_rows
        self.num_cols = len(self._kinds) if cfg.curriculum else cfg.num_cols
        columns = range(self.num_cols)
        self.tiles = [[self._choose(row, col) for col in columns] for row in range(self.num_rows)]
        """What is at each place: tiles[row][column]."""
        self.terrain_origins = np.zeros((self.num_rows, self.num_cols, 3))
        """Where robots start on each tile, in the world."""
        self.flat_patches: dict[str, np.ndarray] = {}
        """Flat places in the world by name, (rows, columns, patches, 3). On tiles that have none
        they are at the tile's origin."""
        self.flat_patch_radii: dict[str, float] = {}
        """Radius of the patches by name."""
        for sub in self._kinds.values():
            for name, patches in (sub.flat_patch_sampling or {}).items():
                self._make_room(name, patches)

    def compile(self, spec: mujoco.MjSpec) -> None:
        """Add body "terrain" with all tiles, border and light to the spec."""
        self._num_geoms = 0
        body = spec.worldbody.add_body(name="terrain")
        for row in range(self.num_rows):
            for col in range(self.num_cols):
                self._add_tile(spec, row, col)
        self._add_border(body)
        self._add_light(body)

    def _choose(self, row: int, col: int) -> TerrainTile:
        """Kind and difficulty of a tile."""
        low, high = self.cfg.difficulty_range
        names = list(self._kinds)
        if self.cfg.curriculum:
            return TerrainTile(names[col], low + (high - low) * row / max(self.num_rows - 1, 1))
        rng = self._rng(row, col, _KIND)
        weights = np.array([sub.proportion for sub in self._kinds.values()])
        kind = int(rng.choice(len(names), p=weights / weights.sum()))
        return TerrainTile(names[kind], float(rng.uniform(low, high)))

    def _add_tile(self, spec: mujoco.MjSpec, row: int, col: int) -> None:
        tile = self.tiles[row][col]
        kind = self._kinds[tile.name]
        try:
            output = kind.function(tile.difficulty, spec, self._rng(row, col, _SHAPE))
        except ValueError as error:
            raise ValueError(f"Sub-terrain '{tile.name}': {error}") from error
        paint(spec, output.geometries, self.cfg.color_scheme, self._rng(row, col, _COLOR))
        patches = output.flat_patches
        if patches is None and kind.flat_patch_sampling:
            patches = self._find_patches(spec, row, col, output.geometries)

        corner = np.array(
            [
                (row - self.num_rows / 2) * self.cfg.size[0],
                (col - self.num_cols / 2) * self.cfg.size[1],
                0.0,
            ]
        )
        for geometry in output.geometries:
            if (geom := geometry.geom) is not None:
                if np.isnan(geom.fromto[0]):
                    geom.pos = geom.pos + corner
                else:  # It is given by its ends.
                    geom.fromto = geom.fromto + np.tile(corner, 2)
                self._register(geom)
        origin = output.origin + corner
        self.terrain_origins[row, col] = origin
        for name, places in self.flat_patches.items():
            found = (patches or {}).get(name)
            if found is None or len(found) == 0:
                places[row, col] = origin
            else:
                # Repeated where other tiles have more.
                places[row, col] = np.resize(found, places.shape[2:]) + corner

    def _find_patches(
        self, spec: mujoco.MjSpec, row: int, col: int, geometries: list[TerrainGeometry]
    ) -> dict[str, np.ndarray]:
        tile = self.tiles[row][col]
        kind = self._kinds[tile.name]
        found: dict[str, np.ndarray] = {}
        try:
            found = find_flat_patches(
                spec,
                geometries,
                kind.size,
                kind.flat_patch_sampling or {},
                self._rng(row, col, _PATCHES),
            )
        except ValueError as error:
            raise ValueError(f"Sub-terrain '{tile.name}': {error}") from error
        missing = [name for name, places in found.items() if len(places) == 0]
        if missing:
            logger.warning(
                "Sub-terrain '%s' in row %d, column %d has no flat patch for %s; its origin is used"
                " instead. A smaller patch_radius or a larger max_height_diff finds more.",
                *(tile.name, row, col, ", ".join(missing)),
            )
        return found

    def _make_room(self, name: str, cfg: FlatPatchSamplingCfg) -> None:
        """Make the array for these flat patches large enough."""
        known = self.flat_patches.get(name)
        count = cfg.num_patches if known is None else max(cfg.num_patches, known.shape[2])
        self.flat_patches[name] = np.zeros((self.num_rows, self.num_cols, count, 3))
        self.flat_patch_radii[name] = max(self.flat_patch_radii.get(name, 0.0), cfg.patch_radius)

    def _add_border(self, body: mujoco.MjsBody) -> None:
        width, (x, y) = self.cfg.border_width, self.cfg.size
        if width <= 0.0:
            return
        inner = (self.num_rows * x, self.num_cols * y)
        outer = (inner[0] + 2.0 * width, inner[1] + 2.0 * width)
        height = abs(self.cfg.border_height)
        color = border_color(self.cfg.color_scheme)
        for geom in make_border(body, outer, inner, height, (0.0, 0.0, -height / 2)):
            geom.rgba = color
            self._register(geom)

    def _register(self, geom: mujoco.MjsGeom) -> None:
        if not geom.name:
            geom.name = f"terrain_{self._num_geoms}"
        self._num_geoms += 1
        # The ground does not move, and its mass would distort what is scaled by the mean mass.
        geom.mass = 0.0

    def _add_light(self, body: mujoco.MjsBody) -> None:
        if not self.cfg.add_lights:
            return
        height = 0.6 * max(self.num_rows * self.cfg.size[0], self.num_cols * self.cfg.size[1])
        light = body.add_light(
            pos=[0.0, 0.0, height],
            dir=[0.0, 0.0, -1.0],
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        )
        # The sun and the headlight shine already.
        light.castshadow = False
        light.diffuse, light.specular = (0.12, 0.12, 0.12), (0.0, 0.0, 0.0)

    def _rng(self, row: int, col: int, use: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, row, col, use])
