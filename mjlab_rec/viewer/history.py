"""The last values of some lines, to be plotted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

LENGTH = 300
"""Points that are kept."""


class History:
    """Remembers the last values of a few lines that share their x axis."""

    def __init__(self, length: int = LENGTH) -> None:
        self.names: tuple[str, ...] = ()
        self._rows: deque[tuple[float, ...]] = deque(maxlen=length)

    def add(self, x: float, values: dict[str, float]) -> bool:
        """Add a point to each line; returns whether these are other lines than before.

        Other lines, or an x that has not grown, begin anew; the same x changes nothing.
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
        """Forget all values, not the lines."""
        self._rows.clear()

    def columns(self) -> tuple[np.ndarray, ...]:
        """The x values, and the values of each line, oldest first."""
        if not self._rows:
            return tuple(np.zeros(0) for _ in range(len(self.names) + 1))
        return tuple(np.array(self._rows, dtype=float).T.copy())


def numbered(values: Sequence[float], most: int) -> dict[str, float]:
    """Lines for the first elements of a vector, named by their numbers."""
    return {f"[{index}]": value for index, value in enumerate(values[:most])}
