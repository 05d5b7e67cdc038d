"""Which GPUs a run uses, among those that CUDA_VISIBLE_DEVICES leaves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

GpuId = int | str
"""Number of a GPU, or the name of a MIG instance."""


def select_gpus(gpu_ids: Sequence[int] | Literal["all"] | None) -> tuple[list[GpuId] | None, int]:
    """Choose GPUs by their place among the visible ones.

    Args:
        gpu_ids: Places in CUDA_VISIBLE_DEVICES (among all GPUs if it is not set), "all", or None
            for the CPU.

    Returns:
        The chosen GPUs, as CUDA_VISIBLE_DEVICES names them, and their number; None and 0 for the
        CPU, which is also used if CUDA_VISIBLE_DEVICES is empty.
    """
    if gpu_ids is None:
        return None, 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    available: list[GpuId]
    if visible is None:
        import torch

        available = list(range(torch.cuda.device_count()))
    else:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if not names:
            return None, 0
        available = [int(name) if name.isdigit() else name for name in names]
    if gpu_ids == "all":
        return available, len(available)
    wrong = [i for i in gpu_ids if not 0 <= int(i) < len(available)]
    if wrong:
        raise IndexError(
            f"gpu_ids {wrong} are out of range: {len(available)} GPUs are visible ({available})."
            " gpu_ids count from 0 among those in CUDA_VISIBLE_DEVICES."
        )
    chosen = [available[int(i)] for i in gpu_ids]
    return chosen, len(chosen)
