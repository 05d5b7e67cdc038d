"""Plain data: from a TOML file or a command line to the type of a field, and to JSON."""

from __future__ import annotations

import ast
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mjlab_rec.utils.cfg_paths import field_types
from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.string import nearest

Makers = Mapping[Any, Callable[[Any], Any]]
"""Functions that make objects of some types from a text or a table."""

_NAMES = re.compile(r"[A-Za-z_][\w/.:-]*(,[\w/.:-]*)*")

_CONSTANTS = {"true": True, "false": False, "none": None}


class _Misfit(ValueError):
    """A value has the wrong type, and nothing more specific can be said."""

    def __init__(self, value: Any, hint: Any) -> None:
        super().__init__(f"{value!r} is not {_described(hint)}.")


def fit(value: Any, hint: Any, makers: Makers = types.MappingProxyType({})) -> Any:
    """Convert plain data to a declared type, or raise an error that says why it does not fit.

    Lists become tuples and whole numbers floats where declared, tables become dataclasses, and
    "package.module:name" becomes a function.
    """
    # The words of a field come first, whatever else a text can mean.
    options = sorted(union_members(hint), key=lambda o: typing.get_origin(o) is not typing.Literal)
    for option in options:
        if typing.get_origin(option) is typing.Literal and _try(value, option, makers)[0]:
            return value
        if option in makers and isinstance(value, (str, Mapping)):
            return makers[option](value)
        if is_dataclass(option) and isinstance(value, Mapping):
            return build(typing.cast(type, option), value, makers)
        if _is_function(option) and isinstance(value, str) and ":" in value:
            return look_up(value)
    for option in options:
        fits, fitted = _try(value, option, makers)
        if fits:
            return fitted
    raise _Misfit(value, hint)


def fit_words(words: Sequence[str], hint: Any, makers: Makers = types.MappingProxyType({})) -> Any:
    """Convert command-line words to a declared type, or raise an error that says why not."""
    values = [_literal(word) for word in words]
    ways: list[Any] = [tuple(values), tuple(words)]
    if "," in "".join(words) and all(map(_NAMES.fullmatch, words)):  # Commas separate, too.
        ways.insert(0, tuple(name for word in words for name in word.split(",") if name))
    if len(words) == 1:
        ways = [values[0], words[0], *ways]
    errors: list[ValueError] = []
    for way in ways:
        try:
            return fit(way, hint, makers)
        except ValueError as error:
            errors.append(error)
    for error in errors:
        if not isinstance(error, _Misfit):
            raise error
    raise _Misfit(" ".join(words), hint)


def build(cls: type, table: Mapping[str, Any], makers: Makers = types.MappingProxyType({})) -> Any:
    """Make a dataclass from a table; errors name unknown, missing and invalid fields."""
    hints = field_types(cls)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise ValueError(f"{cls.__name__} has no '{key}'. {nearest(key, list(hints))}")
        try:
            values[key] = fit(value, hints[key], makers)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    for field in fields(cls):
        given = field.name in values or not field.init
        if not given and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{cls.__name__} needs '{field.name}'.")
    return cls(**values)


def json_text(value: Any, indent: int | None = None) -> str:
    """Write plain data as JSON that every reader takes: null stands for NaN and infinity."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _try(value: Any, option: Any, makers: Makers) -> tuple[bool, Any]:
    """Return whether a value fits one type, and the converted value."""
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Annotated:
        return _try(value, arguments[0], makers)
    if origin is typing.Literal:
        # Compare types too: True == 1.
        return (type(value), value) in [(type(a), a) for a in arguments], value
    if option is Any or (option in (None, type(None)) and value is None):
        return True, value
    if _is_function(option):
        return callable(value), value
    if option in (bool, int, float, str):
        return _try_plain(value, option)
    kind = origin or option
    if not isinstance(kind, type):
        return True, value  # A declaration without meaning at run time, such as a type variable.
    if kind in (tuple, list) or kind is Sequence:
        if not isinstance(value, (list, tuple)):
            return False, None
        return _try_items(value, list if kind is list else tuple, arguments, makers)
    if issubclass(kind, Enum) and isinstance(value, str) and value in kind.__members__:
        return True, kind[value]
    if issubclass(kind, Path) and isinstance(value, str):
        return True, Path(value)
    return isinstance(value, kind), value


def _try_plain(value: Any, option: type) -> tuple[bool, Any]:
    if option is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    return isinstance(value, option) and (option is bool or not isinstance(value, bool)), value


def _try_items(
    value: Sequence[Any], kind: type, arguments: tuple[Any, ...], makers: Makers
) -> tuple[bool, Any]:
    """Convert the items of a list or tuple."""
    if not arguments:
        return True, kind(value)
    if kind is list or arguments[-1] is Ellipsis or len(arguments) == 1:
        fixed = kind is tuple and Ellipsis not in arguments
        arguments = arguments[:1] * (len(arguments) if fixed else len(value))
    if len(arguments) != len(value):
        return False, None
    fitted = []
    for item, hint in zip(value, arguments, strict=True):
        try:
            fitted.append(fit(item, hint, makers))
        except _Misfit:
            return False, None
    return True, kind(fitted)


def union_members(hint: Any) -> list[Any]:
    """Return the members of a union, or just the type if it is not a union."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for member in typing.get_args(hint) for option in union_members(member)]
    return [hint]


def _is_function(option: Any) -> bool:
    return option is Callable or typing.get_origin(option) is Callable


def _literal(word: str) -> Any:
    if word.lower() in _CONSTANTS:
        return _CONSTANTS[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


# What a type is called, for one value and for several.
_WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("True or False", "True or False"),
}


def _described(hint: Any) -> str:
    """What a value of this type is, in words."""
    members = union_members(hint)
    words = list(dict.fromkeys(_in_words(o) for o in members if o not in (None, type(None))))
    words += ["None"] if len(words) < len(members) and type(None) in members else []
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _in_words(hint: Any, several: bool = False) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _in_words(arguments[0], several)
    if hint in _WORDS:
        return _WORDS[hint][several]
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(hint.__members__)}"
    if origin in (tuple, list) and not several:
        each = dict.fromkeys(_items(a) for a in arguments if a is not Ellipsis)
        if origin is tuple and Ellipsis not in arguments and len(each) == 1:
            return f"{len(arguments)} {next(iter(each))}"
        return f"a list of {', '.join(each)}"
    name = hint.__name__ if isinstance(hint, type) and not arguments else str(hint)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", name)


def _items(hint: Any) -> str:
    """What the items of a list are, in words."""
    return " or ".join(_in_words(option, several=True) for option in union_members(hint))
