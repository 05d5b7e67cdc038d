"""Robots and objects: their model, what can be read of them and what can be written."""

from mjlab_rec.entity.config import EntityArticulationInfoCfg as EntityArticulationInfoCfg
from mjlab_rec.entity.config import EntityCfg as EntityCfg
from mjlab_rec.entity.data import EntityData as EntityData
from mjlab_rec.entity.entity import Entity as Entity
from mjlab_rec.entity.indexing import EntityIndexing as EntityIndexing
