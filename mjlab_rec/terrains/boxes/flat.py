"""Flat ground."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import Tile
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class BoxFlatTerrainCfg(SubTerrainCfg):
    """Flat ground at height 0, of any difficulty."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        tile = Tile(spec, self.size)
        tile.slab(0.0)
        return tile.output(0.0)
