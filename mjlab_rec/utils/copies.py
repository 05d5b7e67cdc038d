"""Copying many tensors at once."""

from __future__ import annotations

import torch


def copy_all(places: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Copy each value to its target, converting types, in one call for all tensors."""
    if places:
        torch._foreach_copy_(places, values)  # pyright: ignore[reportPrivateImportUsage]
