"""The names of an entity's parts, and lookups of parts by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import mujoco

from mjlab_rec.utils.string import resolve_matching_names

Kind = Literal[
    "body",
    "joint",
    "geom",
    "site",
    "tendon",
    "camera",
    "light",
    "material",
    "texture",
    "pair",
    "actuator",
]
PLURALS: dict[Kind, str] = {
    "body": "bodies",
    "joint": "joints",
    "geom": "geoms",
    "site": "sites",
    "tendon": "tendons",
    "camera": "cameras",
    "light": "lights",
    "material": "materials",
    "texture": "textures",
    "pair": "pairs",
    "actuator": "actuators",
}

Keys = str | Sequence[str]
Subset = Sequence[str] | None
Found = tuple[list[int], list[str]]


class _Names:
    """Attribute with the names of one kind of part, in the entity's order."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind

    @overload
    def __get__(self, entity: None, owner: type) -> _Names: ...

    @overload
    def __get__(self, entity: EntityNames, owner: type) -> tuple[str, ...]: ...

    def __get__(self, entity: EntityNames | None, owner: type) -> _Names | tuple[str, ...]:
        return self if entity is None else entity.names_of(self._kind)


class _Count:
    """Attribute with the number of parts of one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind

    @overload
    def __get__(self, entity: None, owner: type) -> _Count: ...

    @overload
    def __get__(self, entity: EntityNames, owner: type) -> int: ...

    def __get__(self, entity: EntityNames | None, owner: type) -> _Count | int:
        return self if entity is None else len(entity.names_of(self._kind))


class EntityNames:
    """Names, counts and lookups, the same for every kind of part.

    Names are those of the entity's own model, without the prefix that the scene adds. The joints
    exclude the free joint of a floating base, and the bodies exclude the world.

    ``find_joints(".*_knee")`` returns the indices and names of the matches. An expression must
    match a whole name, and each must match something. With a subset, indices are relative to the
    subset.
    """

    body_names = _Names("body")
    joint_names = _Names("joint")
    geom_names = _Names("geom")
    site_names = _Names("site")
    tendon_names = _Names("tendon")
    camera_names = _Names("camera")
    light_names = _Names("light")
    material_names = _Names("material")
    texture_names = _Names("texture")
    pair_names = _Names("pair")
    actuator_names = _Names("actuator")

    num_bodies = _Count("body")
    num_joints = _Count("joint")
    num_geoms = _Count("geom")
    num_sites = _Count("site")
    num_tendons = _Count("tendon")
    num_cameras = _Count("camera")
    num_lights = _Count("light")
    num_materials = _Count("material")
    num_textures = _Count("texture")
    num_pairs = _Count("pair")
    num_actuators = _Count("actuator")

    _spec: mujoco.MjSpec

    def __init__(self) -> None:
        self._frozen_names: dict[Kind, tuple[str, ...]] = {}
        self.name = ""
        """Name in the scene; empty outside a scene."""

    def elements_of(self, kind: Kind) -> tuple:
        """The parts of one kind, as elements of the spec."""
        elements = tuple(getattr(self._spec, PLURALS[kind]))
        if kind == "body":
            return elements[1:]
        if kind == "joint":
            return tuple(j for j in elements if j.type != mujoco.mjtJoint.mjJNT_FREE)
        return elements

    def names_of(self, kind: Kind) -> tuple[str, ...]:
        """The names of the parts of one kind; unnamed parts have an empty name."""
        names = self._frozen_names.get(kind)
        if names is None:
            names = tuple(element.name.split("/")[-1] for element in self.elements_of(kind))
        return names

    def find_bodies(self, name_keys: Keys, preserve_order: bool = False) -> Found:
        """Find bodies by name or regex."""
        return self._find("body", name_keys, None, preserve_order)

    def find_joints(
        self, name_keys: Keys, joint_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find joints by name or regex."""
        return self._find("joint", name_keys, joint_subset, preserve_order)

    def find_geoms(
        self, name_keys: Keys, geom_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find geoms by name or regex."""
        return self._find("geom", name_keys, geom_subset, preserve_order)

    def find_sites(
        self, name_keys: Keys, site_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find sites by name or regex."""
        return self._find("site", name_keys, site_subset, preserve_order)

    def find_tendons(
        self, name_keys: Keys, tendon_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find tendons by name or regex."""
        return self._find("tendon", name_keys, tendon_subset, preserve_order)

    def find_cameras(
        self, name_keys: Keys, camera_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find cameras by name or regex."""
        return self._find("camera", name_keys, camera_subset, preserve_order)

    def find_lights(
        self, name_keys: Keys, light_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find lights by name or regex."""
        return self._find("light", name_keys, light_subset, preserve_order)

    def find_materials(
        self, name_keys: Keys, material_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find materials by name or regex."""
        return self._find("material", name_keys, material_subset, preserve_order)

    def find_textures(
        self, name_keys: Keys, texture_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find textures by name or regex."""
        return self._find("texture", name_keys, texture_subset, preserve_order)

    def find_pairs(
        self, name_keys: Keys, pair_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find contact pairs by name or regex."""
        return self._find("pair", name_keys, pair_subset, preserve_order)

    def find_actuators(
        self, name_keys: Keys, actuator_subset: Subset = None, preserve_order: bool = False
    ) -> Found:
        """Find actuators by name or regex."""
        return self._find("actuator", name_keys, actuator_subset, preserve_order)

    def _find(self, kind: Kind, keys: Keys, subset: Subset, preserve_order: bool) -> Found:
        names = self.names_of(kind) if subset is None else subset
        try:
            return resolve_matching_names(keys, names, preserve_order)
        except ValueError as error:
            where = f"entity '{self.name}'" if self.name else "the entity"
            raise ValueError(f"Looking for {PLURALS[kind]} of {where}: {error}") from None

    def _freeze_names(self) -> None:
        """Store the names, which no longer change once the model is compiled."""
        self._frozen_names = {kind: self.names_of(kind) for kind in PLURALS}
