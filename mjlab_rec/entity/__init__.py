"""Robots and objects: their model, and the state that can be read and written."""

from mjlab_rec.entity.config import EntityArticulationInfoCfg as EntityArticulationInfoCfg
from mjlab_rec.entity.config import EntityCfg as EntityCfg
from mjlab_rec.entity.data import EntityData as EntityData
from mjlab_rec.entity.entity import Entity as Entity
from mjlab_rec.entity.from_file import entity_from_file as entity_from_file
from mjlab_rec.entity.indexing import EntityIndexing as EntityIndexing
from mjlab_rec.entity.menagerie import menagerie_entity as menagerie_entity
from mjlab_rec.entity.variants import VariantEntityCfg as VariantEntityCfg
from mjlab_rec.entity.variants import VariantMetadata as VariantMetadata
