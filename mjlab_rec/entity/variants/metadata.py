"""The variants of an entity as the simulation needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mujoco
import numpy as np

from mjlab_rec.entity.variants.assignment import Assignment, assign
from mjlab_rec.entity.variants.slots import VariantGeomSpec, VariantSlot, geoms_of
from mjlab_rec.entity.variants.values import PREFIXES, Part, differences
from mjlab_rec.sim.world_fields import Values
from mjlab_rec.utils.mujoco import dof_width, qpos_width

if TYPE_CHECKING:
    from mjlab_rec.entity.entity import Entity
    from mjlab_rec.entity.names import EntityNames, Kind

# An empty slot: a geom that is invisible and touches nothing. All worlds of MuJoCo-Warp share what
# a geom collides with; but with this margin it would have to overlap others by 1000 m.
_NOTHING: dict[str, Sequence[float]] = {
    "geom_rgba": (0, 0, 0, 0),
    "geom_contype": (0,),
    "geom_conaffinity": (0,),
    "geom_margin": (-1000.0,),
    "geom_gap": (0.0,),
    "geom_rbound": (1e-6,),
    "geom_aabb": (0.0,) * 6,
    "geom_size": (0.0,) * 3,
    "geom_pos": (0.0,) * 3,
    "geom_quat": (1.0, 0.0, 0.0, 0.0),
}


@dataclass
class VariantMetadata:
    """The variants of an entity, and what fills its slots in each of them."""

    variant_names: tuple[str, ...]
    assignment: Assignment
    """Weights of the variants, or a function from the number of worlds to indices of variants."""
    slots: tuple[VariantSlot, ...]
    variant_slot_specs: tuple[tuple[VariantGeomSpec | None, ...], ...]
    """For each variant its geom in each slot; None where it has none."""
    entity: EntityNames
    """The merged entity."""
    slot_geoms: tuple[Any, ...]
    """The merged entity's geoms, one for each slot."""
    other_geoms: tuple[Any, ...]
    """The merged entity's other geoms."""
    parts: tuple[Entity, ...]
    """Each variant as an entity of its own."""
    models: tuple[mujoco.MjModel, ...]
    """The compiled models of ``parts``."""

    @property
    def variant_mesh_names(self) -> tuple[tuple[str | None, ...], ...]:
        """For each variant the name of its mesh in each slot, in the merged model."""
        return tuple(
            tuple(None if geom is None else f"{name}/{geom.mesh_name}" for geom in column)
            for name, column in zip(self.variant_names, self.variant_slot_specs, strict=True)
        )

    @property
    def num_mesh_geoms(self) -> int:
        """Number of mesh geoms of the variant that has most."""
        counts = (sum(geom is not None for geom in column) for column in self.variant_slot_specs)
        return max(counts, default=0)

    def assign(self, num_envs: int) -> np.ndarray:
        """The index of each world's variant (num_envs,)."""
        return assign(self.assignment, len(self.variant_names), num_envs, self._title)

    def values(self, scene: mujoco.MjModel) -> list[dict[str, Values]]:
        """What each variant's worlds get in the compiled scene, by model field."""
        parts = [
            Part(name, model, *self._places(scene, v))
            for v, (name, model) in enumerate(zip(self.variant_names, self.models, strict=True))
        ]
        found = differences(scene, parts, self._title)
        for v, fields in enumerate(found):
            self._add_meshes(scene, v, fields)
        return found

    @property
    def _title(self) -> str:
        return f"VariantEntityCfg of entity '{self.entity.name}'"

    def _places(
        self, scene: mujoco.MjModel, v: int
    ) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """For each kind of part, indices in the variant's model, and those in the scene's."""
        own: dict[str, list[int]] = {}
        there: dict[str, list[int]] = {}
        for kind in PREFIXES:
            if kind in ("dof", "qpos", "geom"):
                continue
            lists = [_elements(e, kind) for e in (self.parts[v], self.entity)]
            own[kind], there[kind] = ([element.id for element in each] for each in lists)
        for places, model in ((own, self.models[v]), (there, scene)):
            for kind, start, width in (
                ("dof", model.jnt_dofadr, dof_width),
                ("qpos", model.jnt_qposadr, qpos_width),
            ):
                places[kind] = [
                    int(start[joint]) + i
                    for joint in places["joint"]
                    for i in range(width(model.jnt_type[joint]))
                ]
        mine, merged = self._geoms(v)
        own["geom"], there["geom"] = mine, merged
        return own, there

    def _geoms(self, v: int) -> tuple[list[int], list[int]]:
        """Indices of a variant's geoms in its own model, and in the scene's."""
        column = self.variant_slot_specs[v]
        slot_of = {geom.index: s for s, geom in enumerate(column) if geom is not None}
        others = iter(self.other_geoms)
        own, there = [], []
        for index, (_, geom) in enumerate(geoms_of(self.parts[v].spec)):
            merged = self.slot_geoms[slot_of[index]] if index in slot_of else next(others)
            own.append(geom.id)
            there.append(merged.id)
        return own, there

    def _add_meshes(self, scene: mujoco.MjModel, v: int, fields: dict[str, Values]) -> None:
        """Add the mesh and material of each slot, and make empty slots invisible."""
        column = self.variant_slot_specs[v]
        ids = np.array([geom.id for geom in self.slot_geoms], np.int64)
        prefix = f"{self.entity.name}/{self.variant_names[v]}/"
        meshes = [None if geom is None else geom.mesh_name for geom in column]
        materials = [None if geom is None else geom.material for geom in column]
        for field, find, names in (
            ("geom_dataid", scene.mesh, meshes),
            ("geom_matid", scene.material, materials),
        ):
            found = [-1 if name is None else find(prefix + name).id for name in names]
            fields[field] = Values(ids, np.array(found, np.int64))
        empty = [s for s, geom in enumerate(column) if geom is None]
        for field, value in _NOTHING.items():
            if empty:
                _append(fields, field, ids[empty], value)


def _append(fields: dict[str, Values], field: str, ids: np.ndarray, value: Sequence[float]) -> None:
    values = np.tile(np.array(value), (len(ids), 1))
    if field in fields:
        have = fields[field]
        ids = np.concatenate([have.ids, ids])
        values = np.concatenate([have.values.reshape(len(have.ids), -1), values])
    fields[field] = Values(ids, values)


def _elements(entity: EntityNames, kind: str) -> tuple:
    if kind == "equality":
        return tuple(entity._spec.equalities)
    if kind == "joint":
        return tuple(entity._spec.joints)
    return entity.elements_of(cast("Kind", kind))
