"""Entities that have another model in each world, chosen from several."""

from mjlab_rec.entity.variants.assignment import allocate_worlds as allocate_worlds
from mjlab_rec.entity.variants.config import VariantEntityCfg as VariantEntityCfg
from mjlab_rec.entity.variants.entity import VariantEntity as VariantEntity
from mjlab_rec.entity.variants.metadata import VariantMetadata as VariantMetadata
from mjlab_rec.entity.variants.slots import SlotKey as SlotKey
from mjlab_rec.entity.variants.slots import VariantGeomSpec as VariantGeomSpec
from mjlab_rec.entity.variants.slots import VariantSlot as VariantSlot
from mjlab_rec.entity.variants.topology import validate_variant_specs as validate_variant_specs
