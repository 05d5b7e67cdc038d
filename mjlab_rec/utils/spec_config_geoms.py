"""Configure by name which geoms of a model collide, and how."""

from __future__ import annotations

import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import mujoco

from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)

_STRUCTURE = ("contype", "conaffinity", "condim", "priority")
_CONTACT = (*_STRUCTURE, "friction", "solref", "solimp", "margin", "gap", "solmix")
_ARRAYS = {"friction": 3, "solref": 2, "solimp": 5}

GeomEdits = dict[tuple[int, str], Any]
"""New values by a geom's index in the model and the attribute."""


@dataclass
class SpecCfg(ABC):
    """A change to a MuJoCo model before it is compiled."""

    def validate(self) -> None:  # noqa: B027
        """Raise ValueError for values that no model accepts."""

    @abstractmethod
    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Change the model."""


class NoMatchError(ValueError):
    """A pattern that matches no name."""


def match_names(exprs: str | Iterable[str], names: Sequence[str], what: str) -> list[int]:
    """Return the indices of the names whose beginning matches one of the regular expressions.

    Args:
        exprs: The expressions; each must match something.
        names: The names to search; parts without a name have the empty one.
        what: The setting to name in errors, such as "CollisionCfg.geom_names_expr".
    """
    found: set[int] = set()
    for expr in [exprs] if isinstance(exprs, str) else exprs:
        found.update(_match(expr, names, what))
    return sorted(found)


def resolve_values(value: Any, names: Sequence[str], what: str) -> dict[int, Any]:
    """Return values by index of the name: one for all, or that of the first matching pattern."""
    if not isinstance(value, dict):
        return {} if value is None else dict.fromkeys(range(len(names)), value)
    resolved: dict[int, Any] = {}
    for pattern, item in value.items():
        for i in _match(pattern, names, what):
            resolved.setdefault(i, item)
    return resolved


def check_values(value: Any, is_valid: Callable[[Any], bool], what: str, rule: str) -> None:
    """Raise ValueError unless a value, or all values of a dictionary by pattern, are valid."""
    for pattern, item in value.items() if isinstance(value, dict) else [(None, value)]:
        if not is_valid(item):
            place = what if pattern is None else f"{what}[{pattern!r}]"
            raise ValueError(f"{place} must be {rule}, got {item!r}.")


def _match(pattern: str, names: Sequence[str], what: str) -> list[int]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{what}: {pattern!r} is not a regular expression: {error}. "
            "Did you mean '.*' to match anything?"
        ) from None
    found = [i for i, name in enumerate(names) if compiled.match(name)]
    if not found:
        known = [name for name in names if name]
        raise NoMatchError(f"{what}: no name begins with {pattern!r}. {nearest(pattern, known)}")
    return found


@dataclass
class _GeomEditor(SpecCfg):
    """Finds geoms by name, and sets attributes that may differ from geom to geom."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _required: ClassVar[tuple[str, ...]] = ()

    geom_names_expr: tuple[str, ...]
    """Regular expressions for the beginnings of geom names. Geoms without a name have the empty
    one, which `.*` matches."""

    def validate(self) -> None:
        """Raise ValueError for values that no geom can have."""
        for field in self._fields:
            value, what = getattr(self, field), f"{type(self).__name__}.{field}"
            if value is not None:
                is_valid, rule = _rule(field)
                check_values(value, is_valid, what, rule)
            elif field in self._required:
                raise ValueError(f"{what} must not be None. GeomCfg can leave attributes alone.")

    def edits(self, spec: mujoco.MjSpec) -> GeomEdits:
        """Return what this sets in the given model."""
        self.validate()
        title = type(self).__name__
        names = [geom.name for geom in spec.geoms]
        chosen = match_names(self.geom_names_expr, names, f"{title}.geom_names_expr")
        edits: GeomEdits = {}
        for field in self._fields:
            values = resolve_values(getattr(self, field), names, f"{title}.{field}")
            edits.update({(i, field): values[i] for i in chosen if i in values})
            missed = [names[i] for i in chosen if i not in values]
            if missed and field in self._required:
                raise ValueError(
                    f"{title}.{field} has no value for the geoms {', '.join(missed[:8])}. Its "
                    f"patterns are {', '.join(map(repr, getattr(self, field)))}; add '.*' as the "
                    "last one for all other geoms."
                )
        return edits

    def edit_spec(self, spec: mujoco.MjSpec) -> None:
        """Set the attributes of the matching geoms."""
        geoms = spec.geoms
        for (i, field), value in self.edits(spec).items():
            if field in _ARRAYS:
                getattr(geoms[i], field)[: len(value)] = value
            else:
                setattr(geoms[i], field, value)


@dataclass
class GeomCfg(_GeomEditor):
    """Changes some attributes of some geoms, and leaves everything else as in the XML.

    Every attribute is one value for all matching geoms, or a dictionary from regular expressions to
    values, where the first match counts and geoms without a match stay as they are. To set which
    geoms collide at all, use CollisionCfg, which is applied later.
    """

    _fields: ClassVar[tuple[str, ...]] = ("group", *_CONTACT)

    group: int | dict[str, int] | None = None
    """Group for viewers and cameras, 0 to 5. By default they show 0 to 2, so that 3 hides a geom
    that still collides."""

    contype: int | dict[str, int] | None = None
    """Bits that other geoms' conaffinity must share for a contact."""

    conaffinity: int | dict[str, int] | None = None
    """Bits that other geoms' contype must share for a contact."""

    condim: int | dict[str, int] | None = None
    """Dimensions of contact forces: 1 without friction, 3 with sliding friction, 4 with torsional
    and 6 with rolling friction too."""

    priority: int | dict[str, int] | None = None
    """The geom of higher priority decides over the contact parameters of a pair."""

    friction: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    """Sliding, torsional and rolling friction; those left out at the end stay as they are."""

    solref: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    """Time constant and damping ratio of contacts; what is left out stays."""

    solimp: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    """Impedance of contacts, up to five numbers; what is left out stays."""

    margin: float | dict[str, float] | None = None
    """Distance below which contacts are found, in meters."""

    gap: float | dict[str, float] | None = None
    """Part of the margin in which contacts are found but exert no force, in meters."""

    solmix: float | dict[str, float] | None = None
    """Weight of this geom's parameters against the other's, 0 to 1."""


@dataclass
class CollisionCfg(_GeomEditor):
    """Says which geoms collide and how, whatever the XML says.

    Contype, conaffinity, condim and priority are set for all matching geoms; the other attributes
    stay as they are where nothing is given. Every attribute is one value, or a dictionary from
    regular expressions to values, where the first match counts.
    """

    _fields: ClassVar[tuple[str, ...]] = _CONTACT
    _required: ClassVar[tuple[str, ...]] = _STRUCTURE

    contype: int | dict[str, int]
    """Bits that other geoms' conaffinity must share for a contact."""

    conaffinity: int | dict[str, int]
    """Bits that other geoms' contype must share for a contact."""

    condim: int | dict[str, int]
    """Dimensions of contact forces: 1, 3, 4 or 6."""

    priority: int | dict[str, int]
    """The geom of higher priority decides over the contact parameters of a pair."""

    friction: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    """Sliding, torsional and rolling friction; those left out at the end stay as they are."""

    solref: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    """Time constant and damping ratio of contacts; what is left out stays."""

    solimp: tuple[float, ...] | dict[str, tuple[float, ...]] | None = None
    """Impedance of contacts, up to five numbers; what is left out stays."""

    margin: float | dict[str, float] | None = None
    """Distance below which contacts are found, in meters."""

    gap: float | dict[str, float] | None = None
    """Part of the margin in which contacts are found but exert no force, in meters."""

    solmix: float | dict[str, float] | None = None
    """Weight of this geom's parameters against the other's, 0 to 1."""

    disable_other_geoms: bool = True
    """Whether all other geoms of the entity stop colliding."""

    def edits(self, spec: mujoco.MjSpec) -> GeomEdits:
        """Return what this sets in the given model, including the geoms it switches off."""
        edits = super().edits(spec)
        if self.disable_other_geoms:
            for i in range(len(spec.geoms)):
                if (i, "contype") not in edits:
                    edits[i, "contype"] = edits[i, "conaffinity"] = 0
        return edits


def warn_overlapping_geom_edits(
    geom_cfgs: Sequence[GeomCfg], collision_cfgs: Sequence[CollisionCfg], spec: mujoco.MjSpec
) -> None:
    """Warn about values without effect, because a CollisionCfg, applied later, replaces them."""
    by_geoms = [cfg.edits(spec) for cfg in geom_cfgs]
    by_collisions = [cfg.edits(spec) for cfg in collision_cfgs]
    lost = {key for edits in by_geoms for later in by_collisions for key in edits.keys() & later}
    colliding: set[tuple[int, str]] = set()
    off: set[tuple[int, str]] = set()
    for edits in by_collisions:
        for key, value in edits.items():
            # A geom that is only switched off gets no condim.
            if (key[0], "condim") in edits:
                off.discard(key)
                if value and key[1] in ("contype", "conaffinity"):
                    colliding.add(key)
            elif key in colliding:
                off.add(key)
    if lost:
        logger.warning(
            "GeomCfg has no effect on %s: a CollisionCfg, applied later, sets these too. Set them "
            "there.",
            _listed(lost, spec),
        )
    if off:
        logger.warning(
            "A later CollisionCfg switches off %s, which an earlier one sets. Give the later one "
            "disable_other_geoms=False.",
            _listed(off, spec),
        )


def _listed(keys: set[tuple[int, str]], spec: mujoco.MjSpec) -> str:
    geoms = spec.geoms
    words = [f"{geoms[i].name or f'geom {i}'}.{field}" for i, field in sorted(keys)]
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return ", ".join(words[:8]) + more


def _rule(field: str) -> tuple[Callable[[Any], bool], str]:
    """Return the valid values of a geom attribute, as a test and in words."""
    if field == "condim":
        return lambda v: v in (1, 3, 4, 6), "1, 3, 4 or 6"
    if field in _ARRAYS:
        most = _ARRAYS[field]
        return lambda v: _is_numbers(v, most), f"a tuple of 1 to {most} numbers"
    if field == "group":
        top = mujoco.mjNGROUP - 1
        return lambda v: _is_between(v, Integral, top), f"a whole number from 0 to {top}"
    if field == "solmix":
        return lambda v: _is_between(v, Real, 1), "a number from 0 to 1"
    if field in ("margin", "gap"):
        return lambda v: _is_between(v, Real, math.inf), "a number that is not negative"
    return lambda v: _is_between(v, Integral, math.inf), "a whole number that is not negative"


def _is_between(value: Any, kind: type, top: float) -> bool:
    return isinstance(value, kind) and 0 <= value <= top  # pyright: ignore[reportOperatorIssue]


def _is_numbers(value: Any, most: int) -> bool:
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return False
    return 1 <= len(value) <= most and all(isinstance(v, Real) for v in value)
