"""The elements of the scene that a contact sensor watches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mujoco

from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

ContactMode = Literal["geom", "body", "subtree"]
SecondaryPolicy = Literal["first", "any", "error"]

OBJECT_TYPES: dict[ContactMode, mujoco.mjtObj] = {
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "subtree": mujoco.mjtObj.mjOBJ_XBODY,
}


@dataclass
class ContactMatch:
    """Elements on one side of a contact."""

    mode: ContactMode
    """What the names mean: geoms, bodies, or bodies with their whole subtree."""

    pattern: str | tuple[str, ...]
    """Names or regular expressions within the entity; without an entity, names in the scene."""

    entity: str | None = None
    """Entity to search."""

    exclude: tuple[str, ...] = ()
    """Names to exclude; one with a regex character excludes all names in which it occurs."""

    def __post_init__(self) -> None:
        if self.mode not in OBJECT_TYPES:
            hint = nearest(self.mode, list(OBJECT_TYPES))
            raise ValueError(f"ContactMatch: unknown mode '{self.mode}'. {hint}")

    def prefixed(self, name: str) -> str:
        """The name in the scene."""
        return f"{self.entity}/{name}" if self.entity else name


def find_matches(sensor: str, match: ContactMatch, entities: dict[str, Entity]) -> list[str]:
    """Names that match, without prefix.

    Raises:
        ValueError: Nothing matches, or there is no such entity.
    """
    patterns = [match.pattern] if isinstance(match.pattern, str) else list(match.pattern)
    if not match.entity:
        return patterns
    if match.entity not in entities:
        raise ValueError(
            f"Contact sensor '{sensor}': there is no entity '{match.entity}'. "
            f"{nearest(match.entity, list(entities))}"
        )
    entity = entities[match.entity]
    find = entity.find_geoms if match.mode == "geom" else entity.find_bodies
    try:
        _, found = find(patterns)
    except ValueError as error:
        raise ValueError(f"Contact sensor '{sensor}': {error}") from None
    names = [name for name in found if name and not _is_excluded(name, match.exclude)]
    if not names:
        raise ValueError(
            f"Contact sensor '{sensor}': exclude={match.exclude} leaves nothing of {found}."
        )
    return names


def find_secondary(
    sensor: str, match: ContactMatch, policy: SecondaryPolicy, entities: dict[str, Entity]
) -> str | None:
    """The one name to count contacts with, or None for anything."""
    if policy == "any":
        return None
    names = find_matches(sensor, match, entities)
    if len(names) > 1 and (policy == "error" or not isinstance(match.pattern, str)):
        raise ValueError(
            f"Contact sensor '{sensor}': the secondary {match.pattern!r} matches several: {names}. "
            "MuJoCo takes one: name it, or its subtree; or set secondary_policy='first' for the "
            "first match of one pattern, or 'any' for contacts with anything."
        )
    return names[0]


def _is_excluded(name: str, exclude: tuple[str, ...]) -> bool:
    for pattern in exclude:
        is_regex = any(character in pattern for character in r".*+?[]{}()\|^$")
        if re.search(pattern, name) if is_regex else pattern == name:
            return True
    return False
