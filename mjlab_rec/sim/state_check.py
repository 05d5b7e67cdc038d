"""Checksums of the fields of states, to tell whether two states are the same bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


class StateChecksums:
    """Computes a checksum of each field of states.

    Two fields that differ in one number always have different checksums, and others practically
    always.

    Args:
        layout: The columns of each field: ``sim.state_layout``.
        device: Where the states are.
    """

    def __init__(self, layout: Mapping[str, slice], device: str | torch.device = "cpu") -> None:
        self.fields = tuple(layout)
        """Names of the fields."""
        self._columns = list(layout.values())
        size = max((columns.stop for columns in self._columns), default=0)
        self._weights = torch.from_numpy(_weights(size)).to(device)
        self._product: torch.Tensor | None = None

    def __call__(self, states: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the checksums of states (n, numbers): int64 (n, fields)."""
        bits = bits_of(states.contiguous())
        product = self._product
        if product is None or product.shape != bits.shape:
            product = self._product = torch.empty(bits.shape, dtype=torch.int64, device=bits.device)
        torch.mul(bits, self._weights, out=product)  # Overflow wraps around.
        if out is None:
            out = torch.empty(
                len(states), len(self._columns), dtype=torch.int64, device=bits.device
            )
        for number, columns in enumerate(self._columns):
            torch.sum(product[:, columns], dim=1, out=out[:, number])
        return out


def bits_of(states: torch.Tensor) -> torch.Tensor:
    """States as integers, of which two are equal only if all bits are."""
    return states.view(torch.int64 if states.dtype == torch.float64 else torch.int32)


def _weights(count: int) -> np.ndarray:
    """Different odd numbers without a pattern: an odd factor loses no bit of what it multiplies."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) | np.uint64(1)).view(np.int64)
