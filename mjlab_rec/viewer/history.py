"""The last values of some lines, for plots."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

LENGTH = 300
"""Number of points that are kept."""


class History:
    """Stores the last values of a few lines that share an x axis."""

    def __init__(self, length: int = LENGTH) -> None:
        self.names: tuple[str, ...] = ()
        self._rows: deque[tuple[float, ...]] = deque(maxlen=length)

    def add(self, x: float, values: dict[str, float]) -> bool:
        """Add a point to each line; returns whether the lines differ from those before.

        Different lines, or a smaller x, start from scratch; the same x changes nothing.
        """
        names = tuple(values)
        others = names != self.names
        if others or (self._rows and x < self._rows[-1][0]):
            self.names = names
            self._rows.clear()
        if not self._rows or x > self._rows[-1][0]:
            self._rows.append((x, *values.values()))
        return others

    def clear(self) -> None:
        """Clear all values, not the lines."""
        self._rows.clear()

    def columns(self) -> tuple[np.ndarray, ...]:
        """The x values, and the values of each line, oldest first."""
        if not self._rows:
            return tuple(np.zeros(0) for _ in range(len(self.names) + 1))
        return tuple(np.array(self._rows, dtype=float).T.copy())


def numbered(values: Sequence[float], most: int) -> dict[str, float]:
    """Return lines for the first elements of a vector, named by their indices."""
    return {f"[{index}]": value for index, value in enumerate(values[:most])}
