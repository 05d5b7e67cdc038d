"""Sub-terrains made of boxes, under mjlab's module name."""

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
