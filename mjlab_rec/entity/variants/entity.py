"""An entity that has another model in each world."""

from __future__ import annotations

import dataclasses

import mujoco

from mjlab_rec.entity.config import EntityCfg
from mjlab_rec.entity.entity import Entity
from mjlab_rec.entity.variants.assignment import Assignment
from mjlab_rec.entity.variants.config import VariantEntityCfg
from mjlab_rec.entity.variants.merge import forbid_simple_bodies, merge_specs
from mjlab_rec.entity.variants.metadata import VariantMetadata
from mjlab_rec.entity.variants.slots import compute_slots, geoms_of
from mjlab_rec.entity.variants.topology import validate_variant_specs


class VariantEntity(Entity):
    """An entity built from several models, of which each world has one.

    Its own model is merged from all of them. The numbers in which they differ are taken from
    each variant compiled alone, and differ between worlds in the simulation.
    """

    cfg: VariantEntityCfg

    def _build_spec(self) -> None:
        cfg = self.cfg
        names = tuple(cfg.variants)
        raw = [spec_fn() for spec_fn in cfg.variants.values()]
        validate_variant_specs(names, raw)
        parts = [_Part(_alone(cfg, spec)) for spec in raw]
        specs = [part.edited for part in parts]
        slots = compute_slots(specs)
        merged = merge_specs(names, specs, slots)
        models = tuple(part.compile() for part in parts)
        forbid_simple_bodies(merged, models)
        self._spec = merged
        in_slots = {slot.template_geom_name for slot in slots[0]}
        geoms = {geom.name: geom for geom in merged.geoms}
        self._variant_metadata = VariantMetadata(
            variant_names=names,
            assignment=_assignment(cfg),
            slots=slots[0],
            variant_slot_specs=slots[1],
            entity=self,
            slot_geoms=tuple(geoms[slot.template_geom_name] for slot in slots[0]),
            other_geoms=tuple(g for _, g in geoms_of(merged) if g.name not in in_slots),
            parts=tuple(parts),
            models=models,
        )

    def _apply_spec_editors(self) -> None:
        """Nothing: they were applied to each variant."""


class _Part(Entity):
    """One variant alone. Keeps what its model was before actuators were added."""

    edited: mujoco.MjSpec

    def _apply_spec_editors(self) -> None:
        super()._apply_spec_editors()
        self.edited = self._spec.copy()


def _alone(cfg: VariantEntityCfg, spec: mujoco.MjSpec) -> EntityCfg:
    fields = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(EntityCfg)}
    return EntityCfg(**{**fields, "spec_fn": lambda: spec})


def _assignment(cfg: VariantEntityCfg) -> Assignment:
    if callable(cfg.assignment):
        return cfg.assignment
    weights = cfg.assignment or {}
    return tuple(float(weights.get(name, 1.0)) for name in cfg.variants)
