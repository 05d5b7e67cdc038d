"""Sub-terrains that are height fields: slopes, waves, hills, rough ground and obstacles."""

from mjlab_rec.terrains.heights.obstacles import (
    HfDiscreteObstaclesTerrainCfg as HfDiscreteObstaclesTerrainCfg,
)
from mjlab_rec.terrains.heights.perlin import HfPerlinNoiseTerrainCfg as HfPerlinNoiseTerrainCfg
from mjlab_rec.terrains.heights.pyramid import (
    HfPyramidSlopedTerrainCfg as HfPyramidSlopedTerrainCfg,
)
from mjlab_rec.terrains.heights.random_uniform import (
    HfRandomUniformTerrainCfg as HfRandomUniformTerrainCfg,
)
from mjlab_rec.terrains.heights.wave import HfWaveTerrainCfg as HfWaveTerrainCfg
