"""Sub-terrains that are height fields, under mjlab's module name."""

from mjlab_rec.terrains.heights import (
    HfDiscreteObstaclesTerrainCfg as HfDiscreteObstaclesTerrainCfg,
)
from mjlab_rec.terrains.heights import HfPerlinNoiseTerrainCfg as HfPerlinNoiseTerrainCfg
from mjlab_rec.terrains.heights import HfPyramidSlopedTerrainCfg as HfPyramidSlopedTerrainCfg
from mjlab_rec.terrains.heights import HfRandomUniformTerrainCfg as HfRandomUniformTerrainCfg
from mjlab_rec.terrains.heights import HfWaveTerrainCfg as HfWaveTerrainCfg
