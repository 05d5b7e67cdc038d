"""Heights on a finer or coarser grid over the same ground."""

from __future__ import annotations

import numpy as np


def resample_linear(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Interpolate linearly between the values along both axes; corners stay."""
    for axis, count in enumerate(shape):
        values = _along(values, axis, count, cubic=False)
    return values


def resample_cubic(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Interpolate smoothly between the values along both axes; corners stay."""
    for axis, count in enumerate(shape):
        values = _along(values, axis, count, cubic=True)
    return values


def _along(values: np.ndarray, axis: int, count: int, cubic: bool) -> np.ndarray:
    length = values.shape[axis]
    if length == count:
        return values
    values = np.moveaxis(values, axis, 0)
    at = np.linspace(0.0, length - 1.0, count)
    left = np.minimum(at.astype(int), max(length - 2, 0))
    right = np.minimum(left + 1, length - 1)
    t = (at - left)[:, None]
    p1, p2 = values[left], values[right]
    if cubic:
        # Catmull-Rom: the slope at a value is that between its neighbours.
        p0, p3 = values[np.maximum(left - 1, 0)], values[np.minimum(right + 1, length - 1)]
        slope1, slope2 = 0.5 * (p2 - p0), 0.5 * (p3 - p1)
        square = 3.0 * (p2 - p1) - 2.0 * slope1 - slope2
        cube = slope1 + slope2 - 2.0 * (p2 - p1)
        result = p1 + t * (slope1 + t * (square + t * cube))
    else:
        result = p1 + t * (p2 - p1)
    return np.moveaxis(result, 0, axis)
