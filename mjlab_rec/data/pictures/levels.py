"""Float pictures whose values are 0 to 255 divided by 255: as bytes, and exactly back."""

from __future__ import annotations

import numpy as np

from mjlab_rec.data.schema import DataError

# What a stored picture becomes when it is read.
PLAIN, DIVIDED, MULTIPLIED, FLOATS = range(4)

_NUMBERS = np.arange(256, dtype=np.float32)
# A GPU divides by a constant by multiplying with its inverse, which gives other bits.
_TABLES = {
    DIVIDED: _NUMBERS / np.float32(255),
    MULTIPLIED: _NUMBERS * (np.float32(1) / np.float32(255)),
}


def to_bytes(values: np.ndarray, lossy: bool, what: str) -> tuple[np.ndarray, int]:
    """Float values as uint8, and what they become when they are read.

    If that would change a value, they are returned unchanged, with FLOATS; with `lossy` they are
    rounded, and values outside of 0 to 1 raise DataError.
    """
    if lossy and not ((values >= 0) & (values <= 1)).all():
        raise DataError(
            f"{what} has values outside of 0 to 1, which its lossy codec cannot store. Use"
            " 'png', which stores every float exactly, or pictures='raw'."
        )
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = np.clip(np.nan_to_num(np.rint(values * np.float32(255))), 0, 255).astype(np.uint8)
    if lossy:
        return numbers, DIVIDED
    for kind, table in _TABLES.items():
        # Compared as bits: -0.0 is not 0.0.
        if np.array_equal(table[numbers].view(np.uint32), np.asarray(values).view(np.uint32)):
            return numbers, kind
    return values, FLOATS


def from_bytes(numbers: np.ndarray, kind: int) -> np.ndarray:
    """The inverse of ``to_bytes``."""
    if kind not in _TABLES:
        raise ValueError(f"it is of the unknown kind {kind}")
    return _TABLES[kind][numbers]
