"""The mesh geoms that all variants of an entity share.

MuJoCo-Warp shares between all worlds how many geoms there are, to which body each belongs, and what
it collides with. So the merged model has slots for mesh geoms, and each variant fills some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import mujoco

from mjlab_rec.entity.variants.topology import MESH, body_paths

GeomRole = Literal["visual", "collision"]


@dataclass(frozen=True)
class SlotKey:
    """Identity of a slot."""

    body_path: str
    """Names of the bodies from the root to the slot's body: ``/prop/lid``."""

    role: GeomRole
    """Whether its geoms collide."""

    ordinal: int
    """Number among the body's slots of that role."""


@dataclass(frozen=True)
class VariantGeomSpec:
    """A variant's geom in a slot."""

    index: int
    """Number among the geoms of its variant."""
    geom_name: str | None
    mesh_name: str
    material: str | None
    # These are the same for all geoms of a slot.
    contype: int
    conaffinity: int
    condim: int
    priority: int
    group: int

    @property
    def shared(self) -> tuple[int, ...]:
        """What all worlds share."""
        return self.contype, self.conaffinity, self.condim, self.priority, self.group


@dataclass(frozen=True)
class VariantSlot:
    """A slot, and its name in the merged model."""

    key: SlotKey
    template_geom_name: str
    source_geom_names: tuple[str | None, ...]
    """The name of each variant's geom; None for those without one."""


@dataclass
class _Open:
    """A slot that is being filled."""

    shared: tuple[int, ...]
    geoms: dict[int, VariantGeomSpec] = field(default_factory=dict)

    def takes(self, variant: int, geom: VariantGeomSpec) -> bool:
        return variant not in self.geoms and self.shared == geom.shared

    def has_name(self, name: str) -> bool:
        return any(geom.geom_name == name for geom in self.geoms.values())


Slots = tuple[tuple[VariantSlot, ...], tuple[tuple[VariantGeomSpec | None, ...], ...]]


def compute_slots(specs: Sequence[mujoco.MjSpec]) -> Slots:
    """The slots, and the geom of each variant in each of them or None.

    Geoms of one name get one slot, if they collide with the same; the others fill what is free, in
    order. Visual slots of a body come before those that collide.
    """
    slots: list[VariantSlot] = []
    filled: list[list[VariantGeomSpec | None]] = [[] for _ in specs]
    taken = {g.name for spec in specs for g in spec.geoms if g.type != MESH}
    of_body = [_mesh_geoms(spec) for spec in specs]
    for path in sorted(of_body[0]):
        for role in ("visual", "collision"):
            open_slots: list[_Open] = []
            for variant, bodies in enumerate(of_body):
                _fill(open_slots, variant, [g for g in bodies[path] if _role(g) == role])
            for ordinal, slot in enumerate(open_slots):
                geoms = [slot.geoms.get(variant) for variant in range(len(specs))]
                name = _name(geoms, path, role, ordinal, taken)
                names = tuple(None if geom is None else geom.geom_name for geom in geoms)
                slots.append(VariantSlot(SlotKey(path, role, ordinal), name, names))
                for column, geom in zip(filled, geoms, strict=True):
                    column.append(geom)
    return tuple(slots), tuple(tuple(column) for column in filled)


def geoms_of(spec: mujoco.MjSpec) -> Iterator[tuple[str, mujoco.MjsGeom]]:
    """All geoms below the root, each with the path of its body."""
    for path, body in body_paths(spec.worldbody.bodies[0]):
        for geom in body.geoms:
            yield path, geom


def _mesh_geoms(spec: mujoco.MjSpec) -> dict[str, list[VariantGeomSpec]]:
    found: dict[str, list[VariantGeomSpec]] = {
        path: [] for path, _ in body_paths(spec.worldbody.bodies[0])
    }
    for index, (path, geom) in enumerate(geoms_of(spec)):
        if geom.type == MESH:
            found[path].append(
                VariantGeomSpec(
                    index=index,
                    geom_name=geom.name or None,
                    mesh_name=geom.meshname,
                    material=geom.material or None,
                    contype=int(geom.contype),
                    conaffinity=int(geom.conaffinity),
                    condim=int(geom.condim),
                    priority=int(geom.priority),
                    group=int(geom.group),
                )
            )
    return found


def _role(geom: VariantGeomSpec) -> GeomRole:
    return "visual" if geom.contype == 0 and geom.conaffinity == 0 else "collision"


def _fill(slots: list[_Open], variant: int, geoms: list[VariantGeomSpec]) -> None:
    rest = []
    for geom in geoms:
        named = [
            slot
            for slot in slots
            if geom.geom_name and slot.takes(variant, geom) and slot.has_name(geom.geom_name)
        ]
        if named:
            named[0].geoms[variant] = geom
        else:
            rest.append(geom)
    for geom in rest:
        free = next((slot for slot in slots if slot.takes(variant, geom)), None)
        if free is None:
            free = _Open(geom.shared)
            slots.append(free)
        free.geoms[variant] = geom


def _name(
    geoms: Sequence[VariantGeomSpec | None], path: str, role: str, ordinal: int, taken: set[str]
) -> str:
    """The name that all variants give to the geom; otherwise one made of its place."""
    names = {geom.geom_name for geom in geoms if geom is not None}
    name = names.pop() if len(names) == 1 else None
    if not name or name in taken:
        name = f"{path.rpartition('/')[2]}_{role}_{ordinal}"
    while name in taken:
        name += "_"
    taken.add(name)
    return name
