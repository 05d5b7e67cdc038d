"""Sub-terrains made of boxes: stairs, grids, stones, beams and rings."""

from mjlab_rec.terrains.boxes.flat import BoxFlatTerrainCfg as BoxFlatTerrainCfg
from mjlab_rec.terrains.boxes.narrow_beams import (
    BoxNarrowBeamsTerrainCfg as BoxNarrowBeamsTerrainCfg,
)
from mjlab_rec.terrains.boxes.nested_rings import (
    BoxNestedRingsTerrainCfg as BoxNestedRingsTerrainCfg,
)
from mjlab_rec.terrains.boxes.open_stairs import BoxOpenStairsTerrainCfg as BoxOpenStairsTerrainCfg
from mjlab_rec.terrains.boxes.random_grid import BoxRandomGridTerrainCfg as BoxRandomGridTerrainCfg
from mjlab_rec.terrains.boxes.random_spread import (
    BoxRandomSpreadTerrainCfg as BoxRandomSpreadTerrainCfg,
)
from mjlab_rec.terrains.boxes.random_stairs import (
    BoxRandomStairsTerrainCfg as BoxRandomStairsTerrainCfg,
)
from mjlab_rec.terrains.boxes.stairs import (
    BoxInvertedPyramidStairsTerrainCfg as BoxInvertedPyramidStairsTerrainCfg,
)
from mjlab_rec.terrains.boxes.stairs import (
    BoxPyramidStairsTerrainCfg as BoxPyramidStairsTerrainCfg,
)
from mjlab_rec.terrains.boxes.stepping_stones import (
    BoxSteppingStonesTerrainCfg as BoxSteppingStonesTerrainCfg,
)
from mjlab_rec.terrains.boxes.tilted_grid import BoxTiltedGridTerrainCfg as BoxTiltedGridTerrainCfg
