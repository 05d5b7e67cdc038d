"""The ground that robots move on."""

from mjlab_rec.terrains.boxes import BoxFlatTerrainCfg as BoxFlatTerrainCfg
from mjlab_rec.terrains.boxes import (
    BoxInvertedPyramidStairsTerrainCfg as BoxInvertedPyramidStairsTerrainCfg,
)
from mjlab_rec.terrains.boxes import BoxNarrowBeamsTerrainCfg as BoxNarrowBeamsTerrainCfg
from mjlab_rec.terrains.boxes import BoxNestedRingsTerrainCfg as BoxNestedRingsTerrainCfg
from mjlab_rec.terrains.boxes import BoxOpenStairsTerrainCfg as BoxOpenStairsTerrainCfg
from mjlab_rec.terrains.boxes import BoxPyramidStairsTerrainCfg as BoxPyramidStairsTerrainCfg
from mjlab_rec.terrains.boxes import BoxRandomGridTerrainCfg as BoxRandomGridTerrainCfg
from mjlab_rec.terrains.boxes import BoxRandomSpreadTerrainCfg as BoxRandomSpreadTerrainCfg
from mjlab_rec.terrains.boxes import BoxRandomStairsTerrainCfg as BoxRandomStairsTerrainCfg
from mjlab_rec.terrains.boxes import BoxSteppingStonesTerrainCfg as BoxSteppingStonesTerrainCfg
from mjlab_rec.terrains.boxes import BoxTiltedGridTerrainCfg as BoxTiltedGridTerrainCfg
from mjlab_rec.terrains.heights import (
    HfDiscreteObstaclesTerrainCfg as HfDiscreteObstaclesTerrainCfg,
)
from mjlab_rec.terrains.heights import HfPerlinNoiseTerrainCfg as HfPerlinNoiseTerrainCfg
from mjlab_rec.terrains.heights import HfPyramidSlopedTerrainCfg as HfPyramidSlopedTerrainCfg
from mjlab_rec.terrains.heights import HfRandomUniformTerrainCfg as HfRandomUniformTerrainCfg
from mjlab_rec.terrains.heights import HfWaveTerrainCfg as HfWaveTerrainCfg
from mjlab_rec.terrains.terrain_entity import TerrainEntity as TerrainEntity
from mjlab_rec.terrains.terrain_entity import TerrainEntityCfg as TerrainEntityCfg
from mjlab_rec.terrains.terrain_generator import FlatPatchSamplingCfg as FlatPatchSamplingCfg
from mjlab_rec.terrains.terrain_generator import SubTerrainCfg as SubTerrainCfg
from mjlab_rec.terrains.terrain_generator import TerrainGenerator as TerrainGenerator
from mjlab_rec.terrains.terrain_generator import TerrainGeneratorCfg as TerrainGeneratorCfg
from mjlab_rec.terrains.terrain_generator import TerrainGeometry as TerrainGeometry
from mjlab_rec.terrains.terrain_generator import TerrainOutput as TerrainOutput
