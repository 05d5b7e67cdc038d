"""The ground that robots move on."""

from mjlab_rec.terrains.terrain_entity import TerrainEntity as TerrainEntity
from mjlab_rec.terrains.terrain_entity import TerrainEntityCfg as TerrainEntityCfg
