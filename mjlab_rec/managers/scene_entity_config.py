"""Config of the scene entity, and of the parts of it, that a term works on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor

from mjlab_rec.utils.indexing import Index, as_index

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene

Names = str | Sequence[str] | None
Ids = list[int] | slice
"""What ids are after ``resolve``; a tensor, tuple or array of indices may be set, too."""
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
_MISALIGNED = -1  # As a count of joints: their ids are not columns of joint_pos.
_IDS: dict[Kind, str] = {kind: f"{kind}_ids" for kind in _KINDS}
_NAMES: dict[Kind, str] = {kind: f"{kind}_names" for kind in _KINDS}


def _all() -> slice:
    return slice(None)


class _Choice(NamedTuple):
    """The parts of one kind as last looked up, by which later changes are noticed."""

    names: Names
    ids: Ids  # A copy, so that changes of the list in place are noticed, too.
    index: Index
    by_names: bool


@dataclass
class SceneEntityCfg:
    """Names an entity and, by regex or index, some of its parts.

    After ``resolve`` the names and ids agree: ids are entity-local indices, or ``slice(None)`` if
    every part is meant. ``index(kind)`` gives the form that indexes tensors fastest.

    The ids are what counts. They may be set or changed at any time, also without ``resolve``. Names
    that were set since then are looked up when a term next asks for the index.
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

    _choices: dict[Kind, _Choice] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _device: str = field(default="cpu", init=False, repr=False, compare=False)
    _counts: dict[Kind, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def index(self, kind: Kind, scene: Scene | None = None) -> Index:
        """Index of the chosen parts: a slice if they are contiguous, else a tensor of ids.

        The same object is returned until the choice changes. Names that were not looked up yet are
        looked up in ``scene``; without it they are an error.
        """
        ids, choice = getattr(self, _IDS[kind]), self._choices.get(kind)
        if choice is None or type(ids) is not type(choice.ids) or ids != choice.ids:
            if isinstance(ids, Tensor) and ids.device.type != "cpu":
                # Comparing its values with those of before would make the host wait.
                return ids.nonzero().flatten() if _is_mask(ids) else ids
            ids = _plain(kind, ids)
            if choice is None or choice.ids != ids:
                if choice is None and getattr(self, _NAMES[kind]) is not None and _is_all(ids):
                    return self._look_up(kind, scene)
                return self._choose(kind, ids, scene)
        if getattr(self, _NAMES[kind]) is not choice.names:
            return self._look_up(kind, scene)
        return choice.index

    def names_something(self) -> bool:
        """Whether any part is chosen by name or index, so that resolving matters."""
        return any(
            getattr(self, _NAMES[kind]) is not None or not _is_all(getattr(self, _IDS[kind]))
            for kind in _KINDS
        )

    def resolve(self, scene: Scene) -> None:
        """Look up the names in the scene, and make names and ids agree.

        Raises ``KeyError`` for an unknown entity and ``ValueError`` for names that match nothing or
        contradict the given ids. Of names and ids that agreed before, the changed one counts.
        """
        entity = scene[self.name]
        self._device = str(getattr(scene, "device", "cpu"))
        self._counts.clear()
        for kind in _KINDS:
            names, ids = self._wanted(kind)
            self._choices.pop(kind, None)
            self._count(kind, entity)
            if names is None and _is_all(ids):
                setattr(self, _NAMES[kind], None)
                setattr(self, _IDS[kind], ids)
                continue
            known = getattr(entity, _NAMES[kind])
            if names is None:
                found = self._in_range(kind, ids)
            else:
                names = [names] if isinstance(names, str) else list(names)
                find = getattr(entity, f"find_{_PLURALS.get(kind, kind + 's')}")
                found = list(find(names, preserve_order=self.preserve_order)[0])
                if self._in_range(kind, ids) != found and not _is_all(ids):
                    raise ValueError(
                        f"{kind}_names {names} are the {kind}s {found} of '{self.name}', but"
                        f" {kind}_ids says {ids}. Give one of the two."
                    )
            everything = names is not None and found == list(range(len(known)))
            keep = isinstance(ids, slice) and names is None
            new_names = [known[i] for i in found]
            new_ids = ids if keep else slice(None) if everything else found
            setattr(self, _NAMES[kind], new_names)
            setattr(self, _IDS[kind], new_ids)
            self._choices[kind] = _Choice(
                new_names, _copy(new_ids), as_index(found, self._device), names is not None
            )

    def _wanted(self, kind: Kind) -> tuple[Names, Ids]:
        """The names and ids to resolve, without those that an earlier ``resolve`` derived."""
        names, ids = getattr(self, _NAMES[kind]), _plain(kind, getattr(self, _IDS[kind]))
        before = self._choices.get(kind)
        if before is None:
            return names, ids
        names_changed, ids_changed = names is not before.names, ids != before.ids
        if names_changed and ids_changed:
            return names, ids
        by_names = names_changed or (before.by_names and not ids_changed)
        return (names, slice(None)) if by_names else (None, ids)

    def _choose(self, kind: Kind, ids: Ids, scene: Scene | None) -> Index:
        """Take over ids that were set by hand."""
        if scene is not None:
            self._device = str(getattr(scene, "device", "cpu"))
            self._count(kind, scene[self.name])
        if kind in self._counts and not _is_all(ids):
            self._in_range(kind, ids)
        index = ids if isinstance(ids, slice) else as_index(_integers(kind, ids), self._device)
        names = getattr(self, _NAMES[kind])
        self._choices[kind] = _Choice(names, _copy(ids), index, by_names=False)
        return index

    def _look_up(self, kind: Kind, scene: Scene | None) -> Index:
        """Take over names that were set by hand."""
        if scene is None:
            raise ValueError(
                f"{kind}_names {getattr(self, _NAMES[kind])} of '{self.name}' have not been looked"
                " up. Call resolve(env.scene) on this SceneEntityCfg after setting names, or"
                f" index('{kind}', env.scene)."
            )
        self.resolve(scene)
        return self.index(kind)

    def _count(self, kind: Kind, entity: Any) -> None:
        """Remember how many parts of a kind the entity has."""
        known = getattr(entity, _NAMES[kind], None)
        if isinstance(known, (list, tuple)):
            self._counts[kind] = _MISALIGNED if _has_ball_joints(entity, kind) else len(known)

    def _in_range(self, kind: Kind, ids: Ids) -> list[int]:
        count = self._counts[kind]
        if count == _MISALIGNED:
            raise ValueError(
                f"'{self.name}' has ball joints, whose positions are several numbers each, so joint"
                " ids are not columns of joint_pos. Leave out joint_names and joint_ids to mean all"
                " joints."
            )
        if isinstance(ids, slice):
            return list(range(*ids.indices(count)))
        if wrong := [i for i in _integers(kind, ids) if not 0 <= i < count]:
            raise ValueError(
                f"{kind}_ids {wrong} are out of range: '{self.name}' has {count} {kind}s."
            )
        return ids


def _plain(kind: Kind, ids: Any) -> Ids:
    """Return ids as a slice or a list of integers."""
    if type(ids) in (slice, list):
        return ids
    if isinstance(ids, int):
        return [ids]
    if _is_mask(ids):
        return [i for i, chosen in enumerate(ids.tolist()) if chosen]
    return _integers(kind, ids)


def _integers(kind: Kind, ids: Any) -> list[int]:
    try:
        if not any(isinstance(i, bool) for i in ids):
            return [operator.index(i) for i in ids]
    except TypeError:
        pass
    raise TypeError(
        f"{kind}_ids must be a slice or integers: a list, a tuple or a tensor. Got {ids!r}."
    )


def _is_mask(ids: Any) -> bool:
    return str(getattr(ids, "dtype", "")).endswith("bool")


def _is_all(ids: Any) -> bool:
    return isinstance(ids, slice) and ids == slice(None)


def _copy(ids: Ids) -> Ids:
    return ids if isinstance(ids, slice) else list(ids)


def _has_ball_joints(entity: Any, kind: Kind) -> bool:
    indexing = getattr(entity, "indexing", None) if kind == "joint" else None
    return indexing is not None and len(indexing.joint_q_adr) != len(entity.joint_names)
