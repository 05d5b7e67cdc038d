"""Copying many tensors at once."""

from __future__ import annotations

import torch


def copy_all(places: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Copy each value to its place, converting types: one call instead of one for each tensor."""
    if places:
        torch._foreach_copy_(places, values)  # pyright: ignore[reportPrivateImportUsage]
