"""The NaN guard: keep the last steps, and write them when a world diverges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class NanGuardCfg:
    """Configuration of the NaN guard, which is a flight recorder that the environment adds.

    A dump is a folder with the last steps of the worlds that diverged, their actions, and the
    model. ``mjlab-rec play --task <id> --replay-dump <folder>`` shows it.
    """

    enabled: bool = False
    """Whether to keep the last steps."""

    buffer_size: int = 100
    """Number of last control steps to keep, on the simulation's device."""

    output_dir: str = "/tmp/mjlab_rec/nan_dumps"
    """Folder in which the dump gets a folder."""

    max_envs_to_dump: int = 5
    """Worlds in the dump at most, if more diverge at once."""


class NanGuard:
    """The check of the NaN guard."""

    @staticmethod
    def detect_nans(data: Any) -> torch.Tensor:
        """Which worlds of ``sim.data`` have a NaN or an infinity: (num_envs,) of bool."""
        fields = ("qpos", "qvel", "act", "qacc", "qacc_warmstart", "sensordata")
        values = torch.cat([getattr(data, name) for name in fields], dim=1)
        return ~torch.isfinite(values).all(dim=1)
