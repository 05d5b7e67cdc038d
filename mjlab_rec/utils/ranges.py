"""Numbers in ranges, element by element; the ends broadcast."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_transform(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Map [lower, upper] to [-1, 1]."""
    return (2 * x - lower - upper) / (upper - lower)


def unscale_transform(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Map [-1, 1] to [lower, upper]."""
    return 0.5 * (lower + upper + x * (upper - lower))


def saturate(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Replace numbers outside the range by its nearer end."""
    return torch.clamp(x, lower, upper)


def copysign(mag: float, other: Tensor) -> Tensor:
    """Give the number ``mag`` the sign of each element of ``other``."""
    return torch.copysign(torch.full_like(other, abs(mag)), other)
