"""Statistics of episodes, as LeRobot stores them."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Stats = dict[str, np.ndarray]


# Of infinite values some statistics are NaN, which is no reason for a warning.
_QUIET = np.errstate(invalid="ignore")


@_QUIET
def episode_stats(values: np.ndarray, counts: np.ndarray) -> Stats:
    """Statistics of each of E episodes, whose rows are one after another: each (E, n).

    Args:
        values: (rows, n).
        counts: Rows of each episode, (E,).
    """
    starts = np.cumsum(counts) - counts
    # The extremes of integers are integers.
    exact = values.astype(np.int64 if values.dtype.kind in "iu" else np.float64)
    values = values.astype(np.float64)
    each = counts[:, None].astype(np.float64)
    mean = np.add.reduceat(values, starts) / each
    squares = (values - np.repeat(mean, counts, axis=0)) ** 2
    found = {
        "min": np.minimum.reduceat(exact, starts),
        "max": np.maximum.reduceat(exact, starts),
        "mean": mean,
        "std": np.sqrt(np.add.reduceat(squares, starts) / each),
        "count": counts[:, None].astype(np.int64),
    }
    found |= {name: np.empty_like(mean) for name in QUANTILES}
    for count in np.unique(counts):
        mine = np.flatnonzero(counts == count)
        rows = values[starts[mine][:, None] + np.arange(count)]  # (episodes, count, n)
        of_rows = np.quantile(rows, list(QUANTILES.values()), axis=1)
        for name, of in zip(QUANTILES, of_rows, strict=True):
            found[name][mine] = of
    return found


class Total:
    """Statistics of all episodes so far. Quantiles are means of those of episodes, weighted."""

    def __init__(self) -> None:
        self._stats: Stats | None = None

    @_QUIET
    def add(self, stats: Stats) -> None:
        """Add statistics of some episodes, each (E, n)."""
        if self._stats is not None:
            stats = {name: np.vstack([self._stats[name], rows]) for name, rows in stats.items()}
        count = stats["count"].sum(axis=0, keepdims=True)
        weight = stats["count"] / count
        mean = (stats["mean"] * weight).sum(axis=0, keepdims=True)
        spread = (stats["std"] ** 2 + (stats["mean"] - mean) ** 2) * weight
        self._stats = {
            "min": stats["min"].min(axis=0, keepdims=True),
            "max": stats["max"].max(axis=0, keepdims=True),
            "mean": mean,
            "std": np.sqrt(spread.sum(axis=0, keepdims=True)),
            "count": count,
            **{name: (stats[name] * weight).sum(axis=0, keepdims=True) for name in QUANTILES},
        }

    def to_json(self, pictures: bool = False) -> dict[str, Any]:
        """The statistics as plain data; those of pictures have an axis for rows and columns."""
        found = {name: rows[0] for name, rows in (self._stats or {}).items()}
        return {
            name: (of[:, None, None] if pictures and name != "count" else of).tolist()
            for name, of in found.items()
        }
