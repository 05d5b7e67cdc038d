"""Config of the scene entity, and of the parts of it, that a term works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mjlab_rec.utils.indexing import Index, as_index

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene

Names = str | Sequence[str] | None
Ids = list[int] | slice
Kind = Literal[
    "joint",
    "body",
    "geom",
    "site",
    "actuator",
    "tendon",
    "camera",
    "light",
    "material",
    "texture",
    "pair",
]

_PLURALS: dict[Kind, str] = {"body": "bodies"}
_KINDS: tuple[Kind, ...] = Kind.__args__


def _all() -> slice:
    return slice(None)


@dataclass
class SceneEntityCfg:
    """Names an entity and, by regex or index, some of its parts.

    After ``resolve`` the names and ids agree: ids are entity-local indices, or ``slice(None)`` if
    every part is meant. ``index(kind)`` gives the form that indexes tensors fastest.
    """

    name: str
    """Name of the entity in the scene."""

    joint_names: Names = None
    """Joints, by name or regex."""
    joint_ids: Ids = field(default_factory=_all)
    """Joints, by index."""

    body_names: Names = None
    """Bodies, by name or regex."""
    body_ids: Ids = field(default_factory=_all)
    """Bodies, by index."""

    geom_names: Names = None
    """Geoms, by name or regex."""
    geom_ids: Ids = field(default_factory=_all)
    """Geoms, by index."""

    site_names: Names = None
    """Sites, by name or regex."""
    site_ids: Ids = field(default_factory=_all)
    """Sites, by index."""

    actuator_names: Names = None
    """Actuators, by name or regex."""
    actuator_ids: Ids = field(default_factory=_all)
    """Actuators, by index."""

    tendon_names: Names = None
    """Tendons, by name or regex."""
    tendon_ids: Ids = field(default_factory=_all)
    """Tendons, by index."""

    camera_names: Names = None
    """Cameras, by name or regex."""
    camera_ids: Ids = field(default_factory=_all)
    """Cameras, by index."""

    light_names: Names = None
    """Lights, by name or regex."""
    light_ids: Ids = field(default_factory=_all)
    """Lights, by index."""

    material_names: Names = None
    """Materials, by name or regex."""
    material_ids: Ids = field(default_factory=_all)
    """Materials, by index."""

    texture_names: Names = None
    """Textures, by name or regex."""
    texture_ids: Ids = field(default_factory=_all)
    """Textures, by index."""

    pair_names: Names = None
    """Contact pairs, by name or regex."""
    pair_ids: Ids = field(default_factory=_all)
    """Contact pairs, by index."""

    preserve_order: bool = False
    """Keep the order of the names as given instead of the order in the model."""

    _index: dict[Kind, Index] = field(default_factory=dict, init=False, repr=False, compare=False)

    def index(self, kind: Kind) -> Index:
        """Index of the chosen parts: a slice if they are contiguous, else a tensor of ids."""
        return self._index.get(kind, slice(None))

    def names_something(self) -> bool:
        """Whether any part is chosen by name or index, so that resolving matters."""
        return any(
            getattr(self, f"{kind}_names") is not None
            or isinstance(getattr(self, f"{kind}_ids"), (list, int))
            for kind in _KINDS
        )

    def resolve(self, scene: Scene) -> None:
        """Look up the names in the scene, and make names and ids agree.

        Raises ``KeyError`` for an unknown entity and ``ValueError`` for names that match nothing or
        contradict the given ids.
        """
        entity = scene[self.name]
        for kind in _KINDS:
            names = getattr(self, f"{kind}_names")
            ids = getattr(self, f"{kind}_ids")
            if names is None and isinstance(ids, slice):
                if ids != slice(None):
                    self._index[kind] = ids
                continue
            known: Sequence[str] = getattr(entity, f"{kind}_names")
            wanted = [ids] if isinstance(ids, int) else ids
            if names is None:
                found = self._check_ids(kind, wanted, known)
            else:
                names = [names] if isinstance(names, str) else list(names)
                find = getattr(entity, f"find_{_PLURALS.get(kind, kind + 's')}")
                found, _ = find(names, preserve_order=self.preserve_order)
                if isinstance(wanted, list) and wanted != found:
                    raise ValueError(
                        f"{kind}_names {names} are the {kind}s {found} of '{self.name}', but"
                        f" {kind}_ids says {wanted}. Give one of the two."
                    )
            setattr(self, f"{kind}_names", [known[i] for i in found])
            if kind == "joint":
                _check_joint_widths(self.name, entity)
            everything = names is not None and found == list(range(len(known)))
            setattr(self, f"{kind}_ids", slice(None) if everything else found)
            self._index[kind] = as_index(found, scene.device)

    def _check_ids(self, kind: Kind, ids: list[int], known: Sequence[str]) -> list[int]:
        wrong = [i for i in ids if not 0 <= i < len(known)]
        if wrong:
            raise ValueError(
                f"{kind}_ids {wrong} are out of range: '{self.name}' has {len(known)} {kind}s."
            )
        return ids


def _check_joint_widths(name: str, entity: Any) -> None:
    """Refuse to select joints if some have several numbers: the ids would not line up."""
    indexing = getattr(entity, "indexing", None)
    if indexing is not None and len(indexing.joint_q_adr) != len(entity.joint_names):
        raise ValueError(
            f"'{name}' has ball joints, whose positions are several numbers each, so joint ids are"
            " not columns of joint_pos. Leave out joint_names and joint_ids to mean all joints."
        )
