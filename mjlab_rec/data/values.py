"""Checks of single values that come from a file, where they may be anything."""

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
    """Something about a recording is wrong: its file, its contents or how it is asked for."""


def check_count(value: Any, what: str, least: int = 0, below: int = MOST) -> int:
    """A whole number in this range; raise if a value is none."""
    if type(value) is not int or not least <= value < below:
        raise DataError(f"{what} is {told(value)}, but must be a whole number from {least} on.")
    return value


def check_name(name: str, kind: str) -> str:
    """A name that may be a path within a file or folder; raise if it could lead elsewhere."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DataError(f"A {kind} is called {told(name)}, which is not valid Unicode.") from None
    if not 0 < size <= 1000:
        raise DataError(f"The name of a {kind} has {size} bytes; it must have 1 to 1000.")
    if "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise DataError(
            f"A {kind} cannot be called {told(name)}. Write names between"
            " its slashes, without NUL, and not '.' or '..'."
        )
    return name


def check_dtype(text: str, what: str) -> np.dtype:
    """A type of plain numbers by its ``str``; no other is stored."""
    if re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", text):
        return np.dtype(text)
    raise DataError(
        f"{what} has the dtype {told(text)}. Possible are booleans, integers and floating-point"
        " numbers of up to 8 bytes, such as '<f4'."
    )


def check_shape(shape: Sequence[Any], dtype: np.dtype, what: str) -> None:
    """Raise unless an array in a row may have this shape."""
    if not all(type(n) is int and 0 <= n < MOST for n in shape) or len(shape) > _MOST_AXES:
        raise DataError(f"{what} has the shape {told(list(shape))}, which no array can have.")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > _MOST_BYTES:
        raise DataError(f"{what} has the shape {told(list(shape))}: more than 1 GiB in a row.")


def value_of(data: Any, key: str, kinds: Any, what: str) -> Any:
    """What JSON data says under a key, if it has one of these types."""
    if not isinstance(data, Mapping):
        raise DataError(f"{what} is {told(data)}, but must be an object with keys.")
    if key not in data:
        raise DataError(f"{what} does not say '{key}'.")
    value = data[key]
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if type(value) not in kinds:
        raise DataError(f"{what}: '{key}' is {told(value)}, but must be a {kinds[-1].__name__}.")
    return value


def told(value: Any) -> str:
    """A value for a message, shortened: it may be anything."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
