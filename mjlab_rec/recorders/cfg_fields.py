"""Fields that the recorders' cfgs share, and checks based on type annotations.

A field's annotation says which values are valid: ``Literal["a", "b"]`` lists them, and ``Count``,
``Positive`` or ``Annotated[int, Bounds(0, 51)]`` limit a number. ``CheckedCfg.check`` checks that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from mjlab_rec.data.files import IfExists
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.utils.cfg_paths import field_types
from mjlab_rec.utils.plain_data import union_members
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """The range of numbers that is valid for a field."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def hold(self, value: Any) -> bool:
        """Whether a number is in the range."""
        return self.least <= value <= self.most and self.above < value < math.inf

    def __str__(self) -> str:
        if self.above > -math.inf:
            return f"above {self.above:g}"
        if self.most < math.inf:
            return f"from {self.least:g} to {self.most:g}"
        return f"of at least {self.least:g}"


Count = Annotated[int, Bounds(1)]
Positive = Annotated[float, Bounds(above=0)]
Envs = int | tuple[int, ...] | list[int] | None


@dataclass(kw_only=True)
class CheckedCfg(RecorderTermCfg):
    """A cfg whose values are checked when its recorder is created."""

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        for name, hint in field_types(type(self)).items():
            why = _misfit(getattr(self, name), hint)
            if why:
                raise self.error(name, why)

    def error(self, field: str, why: str) -> ValueError:
        """Return an error about a field; in the message `why` follows its name."""
        return ValueError(f"{type(self).__name__}.{field} {why}")

    def at_most_one(self, *names: str) -> None:
        """Raise ValueError if more than one of these fields is given."""
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{type(self).__name__}: {' and '.join(given)} are mutually exclusive; give one."
            )


@dataclass(kw_only=True)
class EnvsCfg(CheckedCfg):
    """The field that selects the environments to record."""

    envs: Envs = None
    """Which environments: 3 means the first three, [3] or on the command line "3," only environment
    3, [0, 3] these two, None all."""

    def env_ids(self, num_envs: int) -> tuple[int, ...]:
        """Indices of the environments to record, out of `num_envs`."""
        try:
            return env_ids(self.envs, num_envs)
        except ValueError as error:
            raise self.error("envs", f"is {self.envs!r}: {error}") from None


@dataclass(kw_only=True)
class PaceCfg(CheckedCfg):
    """The fields that set how often to record."""

    every: Count = 1
    """Record one row every this many steps."""

    hz: Positive | None = None
    """Rows per second of simulated time, instead of ``every``; rounded to whole steps, so at most
    a row per control step."""

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        if self.hz is not None and self.every != 1:
            raise ValueError(
                f"{type(self).__name__}: hz and every are mutually exclusive; got hz={self.hz},"
                f" every={self.every}."
            )

    def stride(self, step_dt: float) -> int:
        """Steps from one row to the next, given the seconds per step."""
        if self.hz is None:
            return self.every
        every = max(1, round(1.0 / (self.hz * step_dt)))
        if self.hz * step_dt > 1.0 + 1e-6:
            logger.warning(
                "%s: hz is %g, but there are %g control steps a second; each of them is recorded."
                " For more, lower the environment's decimation.",
                *(type(self).__name__, self.hz, 1.0 / step_dt),
            )
        elif abs(every * self.hz * step_dt - 1.0) > 1e-6:
            logger.warning(
                "%s: %g Hz is not a whole number of steps of %g s; recording every %d steps, at"
                " %g Hz.",
                *(type(self).__name__, self.hz, step_dt, every, 1.0 / (every * step_dt)),
            )
        return every


@dataclass(kw_only=True)
class StartCfg(CheckedCfg):
    """The field that says when recording starts."""

    autostart: bool = True
    """Start recording at the first reset. Otherwise recording starts with ``start()``."""


@dataclass(kw_only=True)
class FileCfg(CheckedCfg):
    """The fields that set where to write."""

    can_append: ClassVar[bool] = True

    path: str = ""
    """File to write. ``~`` is the home folder."""

    if_exists: IfExists = "error"
    """What to do if the path exists: raise an "error", "overwrite" it, add a "number" to the name,
    or "append" to it if the format supports that."""

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        if self.if_exists == "append" and not self.can_append:
            possible = [word for word in get_args(IfExists) if word != "append"]
            raise self.error("if_exists", _not_among("append", possible))


def env_ids(envs: int | Iterable[int] | None, num_envs: int) -> tuple[int, ...]:
    """Indices of the selected environments: the first N, the given ones, or all for None."""
    if isinstance(envs, Iterable):
        ids = tuple(envs)
    elif envs is None or isinstance(envs, Integral):
        ids = tuple(range(num_envs if envs is None else envs))
    else:
        ids = ()
    wrong = [i for i in ids if not isinstance(i, Integral) or not 0 <= i < num_envs]
    if not ids or wrong or len(set(ids)) < len(ids):
        raise ValueError(
            f"it must be a number from 1 to {num_envs}, or distinct indices from 0 to"
            f" {num_envs - 1}."
        )
    return ids


def typed(cfg: RecorderTermCfg, cfg_type: type[RecorderTermCfg]) -> Any:
    """Return a checked cfg of the recorder's own type.

    The ``params`` of a plain RecorderTermCfg become its fields.
    """
    if not isinstance(cfg, cfg_type):
        known = [field.name for field in fields(cfg_type)]
        for name in cfg.params:
            if name not in known:
                raise ValueError(
                    f"{cfg_type.__name__} has no field '{name}'. {nearest(name, known)}"
                )
        cfg = cfg_type(**{"func": cfg.func, "on_error": cfg.on_error, **cfg.params})
    if isinstance(cfg, CheckedCfg):
        cfg.check()
    return cfg


def _misfit(value: Any, hint: Any) -> str:
    """Why a value is invalid for a field; empty if it is valid or cannot be checked."""
    options = union_members(hint)
    kinds = {_kind(option) for option in options}
    if value is None and NoneType in kinds:
        return ""
    words = [word for option in options if _kind(option) is Literal for word in get_args(option)]
    if words and kinds <= {Literal, NoneType}:
        none = [None] if NoneType in kinds else []
        return "" if value in words else _not_among(value, [*none, *words])
    if isinstance(value, str) and tuple in kinds and str not in kinds:
        return f"is a string; write ({value!r},) for a single value."
    numbers = [option for option in options if _kind(option) in (int, float)]
    if numbers and isinstance(value, (str, Real, NoneType)) and not kinds & {str, Any}:
        fits = any(_is_number(value, option) for option in numbers)
        return "" if fits else f"must be {_in_words(numbers[0])}, got {value!r}."
    if kinds == {bool} and not isinstance(value, bool):
        return f"must be True or False, got {value!r}."
    if kinds == {str} and not isinstance(value, str):
        return f"must be a string, got {value!r}."
    return ""


def _kind(hint: Any) -> Any:
    """A type without its bounds and item types."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_origin(hint) or hint


def _bounds(hint: Any) -> list[Bounds]:
    return [b for b in getattr(hint, "__metadata__", ()) if isinstance(b, Bounds)]


def _is_number(value: Any, hint: Any) -> bool:
    """Whether a value is a number that is valid for this type."""
    kind = Integral if _kind(hint) is int else Real
    is_one = isinstance(value, kind) and not isinstance(value, bool)
    return is_one and all(bounds.hold(value) for bounds in _bounds(hint))


def _in_words(hint: Any) -> str:
    """Describe the numbers that are valid for a type."""
    kind = "a whole number" if _kind(hint) is int else "a number"
    return " ".join([kind, *map(str, _bounds(hint))])


def _not_among(value: Any, possible: Iterable[Any]) -> str:
    return f"is {value!r}. Possible: {', '.join(map(repr, possible))}."
