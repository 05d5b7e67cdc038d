"""Checks of single values read from a file, which may be of any type."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST = 1 << 31
_MOST_BYTES = 1 << 30  # of one environment's value in one row
_MOST_AXES = 16


class DataError(Exception):
    """A recording cannot be written or read: its file, its contents or a request is wrong."""


def check_count(value: Any, what: str, least: int = 0, below: int = MOST) -> int:
    """Return a value if it is an integer in this range; raise otherwise."""
    if type(value) is not int or not least <= value < below:
        raise DataError(
            f"{what} is {short_repr(value)}, but it must be a whole number of at least {least}."
        )
    return value


def check_name(name: str, kind: str) -> str:
    """Return a name if it is a path inside a file or folder; raise if it could lead elsewhere."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DataError(
            f"The name of a {kind}, {short_repr(name)}, is not valid Unicode."
        ) from None
    if not 0 < size <= 1000:
        raise DataError(f"The name of a {kind} has {size} bytes, but it must have 1 to 1000.")
    if "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise DataError(
            f"A {kind} cannot be called {short_repr(name)}: the parts between slashes must not be"
            " empty, '.' or '..', and NUL is not allowed."
        )
    return name


def check_dtype(text: str, what: str) -> np.dtype:
    """The type with this ``str``, if it is one of plain numbers; raise otherwise."""
    if re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", text):
        return np.dtype(text)
    raise DataError(
        f"{what} has the dtype {short_repr(text)}. Possible: booleans, integers and floating-point"
        " numbers of up to 8 bytes, such as '<f4'."
    )


def check_shape(shape: Sequence[Any], dtype: np.dtype, what: str) -> None:
    """Raise unless this is a possible shape of a value in a row."""
    if not all(type(n) is int and 0 <= n < MOST for n in shape) or len(shape) > _MOST_AXES:
        raise DataError(f"{what} has the shape {short_repr(list(shape))}, which is impossible.")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > _MOST_BYTES:
        raise DataError(
            f"{what} has the shape {short_repr(list(shape))}, which takes more than 1 GiB per row."
        )


def value_of(data: Any, key: str, kinds: Any, what: str) -> Any:
    """The value of a key in JSON data; raise unless it has one of these types."""
    if not isinstance(data, Mapping):
        raise DataError(f"{what} is {short_repr(data)}, but it must be an object with keys.")
    if key not in data:
        raise DataError(f"{what} has no key '{key}'.")
    value = data[key]
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if type(value) not in kinds:
        raise DataError(
            f"{what}: '{key}' is {short_repr(value)}, but it must be a {kinds[-1].__name__}."
        )
    return value


def short_repr(value: Any) -> str:
    """A value as text for a message, shortened."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
