"""Mean, spread, extremes and histogram of values that come in pieces, with little memory."""

from __future__ import annotations

import numpy as np

BINS = 64
_PIECE = 1 << 20  # values that are converted at once
_WIDEST = 1e300  # values beyond it count in the outer bins


class Distribution:
    """What is known of each element of a channel, after the rows so far.

    A histogram has BINS bins of equal width. If a value is outside, its range is doubled: two bins
    become one.

    Args:
        size: Number of elements.
    """

    def __init__(self, size: int) -> None:
        self.rows = 0
        self.count = np.zeros(size, np.int64)
        """Finite values."""
        self.nan = np.zeros(size, np.int64)
        self.infinite = np.zeros(size, np.int64)
        self.mean = np.zeros(size)
        self.least = np.full(size, np.inf)
        self.most = np.full(size, -np.inf)
        self.low = np.zeros(size)
        """Where a histogram begins."""
        self.high = np.zeros(size)
        self.bins = np.zeros((size, BINS), np.int64)
        self._squares = np.zeros(size)  # sum of squared differences from the mean

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.count)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the finite values, (size,)."""
        return np.sqrt(self._squares / np.maximum(self.count, 1))

    def add(self, values: np.ndarray) -> None:
        """Add rows, (rows, *shape)."""
        rows = values.reshape(len(values), self.size)
        step = max(1, _PIECE // self.size)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(rows), step):
                self._add(rows[first : first + step].astype(np.float64))

    def _add(self, values: np.ndarray) -> None:
        self.rows += len(values)
        finite = np.isfinite(values)
        whole = bool(finite.all())
        count = np.full(self.size, len(values)) if whole else finite.sum(axis=0)
        least, most, known = values.min(axis=0), values.max(axis=0), values
        if not whole:
            nan = np.isnan(values).sum(axis=0)
            self.nan += nan
            self.infinite += len(values) - count - nan
            least = np.where(finite, values, np.inf).min(axis=0)
            most = np.where(finite, values, -np.inf).max(axis=0)
            known = np.where(finite, values, 0.0)
        mean = known.sum(axis=0) / np.maximum(count, 1)
        apart = known - mean
        if not whole:
            apart[~finite] = 0.0
        total = self.count + count
        shift = np.where(self.count > 0, mean - self.mean, 0.0)
        share = count / np.maximum(total, 1)
        self._squares += np.einsum("ij,ij->j", apart, apart) + shift**2 * self.count * share
        self.mean = np.where(self.count > 0, self.mean + shift * share, mean)
        ends = (np.clip(end, -_WIDEST, _WIDEST) for end in (least, most))
        self._widen(*ends, known=count > 0)
        self.least, self.most = np.minimum(self.least, least), np.maximum(self.most, most)
        self.count = total
        place = (known - self.low) * (BINS / (self.high - self.low))
        place = np.clip(place, 0, BINS - 1).astype(np.int64) + np.arange(self.size) * BINS
        chosen = place.ravel() if whole else place[finite]
        self.bins += np.bincount(chosen, minlength=self.bins.size).reshape(self.bins.shape)

    def _widen(self, least: np.ndarray, most: np.ndarray, known: np.ndarray) -> None:
        """Double the ranges of histograms until the values fit."""
        new = known & (self.count == 0)
        self.low = np.where(new, least, self.low)
        self.high = np.where(new, most, self.high)
        flat = self.high <= self.low
        self.high = np.where(flat, self.low + np.maximum(np.abs(self.low) * 1e-6, 1e-9), self.high)
        while True:
            width = self.high - self.low
            down = known & (least < self.low)
            up = known & (most > self.high) & ~down
            if not (down | up).any():
                return
            pairs = self.bins.reshape(self.size, BINS // 2, 2).sum(axis=2)
            self.bins[down | up] = 0
            self.bins[down, BINS // 2 :] = pairs[down]
            self.bins[up, : BINS // 2] = pairs[up]
            self.low = np.where(down, self.low - width, self.low)
            self.high = np.where(up, self.high + width, self.high)
