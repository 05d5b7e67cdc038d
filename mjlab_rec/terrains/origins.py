"""Where worlds have their origins: on a grid, or spread over the tiles of generated ground."""

from __future__ import annotations

import math

import numpy as np
import torch


def grid_origins(num_envs: int, spacing: float, device: str) -> torch.Tensor:
    """Origins on a centered grid that is about square, (num_envs, 3)."""
    rows = math.ceil(num_envs / math.isqrt(num_envs))
    columns = math.ceil(num_envs / rows)
    number = torch.arange(num_envs, device=device)
    origins = torch.zeros(num_envs, 3, device=device)
    origins[:, 0] = ((rows - 1) / 2 - number // columns) * spacing
    origins[:, 1] = (number % columns - (columns - 1) / 2) * spacing
    return origins


def spread_over_columns(
    num_envs: int, num_cols: int, proportions: np.ndarray | None = None
) -> np.ndarray:
    """The column of each world, (num_envs,): neighbours share one.

    With proportions, one for each column, every column that has one above 0 gets a world if there
    are enough, and the others go where most are missing. Otherwise all columns get as many.
    """
    if proportions is None or len(proportions) != num_cols:
        return np.arange(num_envs) * num_cols // num_envs
    share = np.asarray(proportions, dtype=float) / np.sum(proportions)
    counts = (share > 0.0).astype(int)
    if counts.sum() > num_envs:
        counts[:] = 0
    rest = num_envs - counts.sum()
    counts += np.floor(share * rest).astype(int)
    missing = share * rest - np.floor(share * rest)
    for column in np.argsort(-missing, kind="stable")[: num_envs - counts.sum()]:
        counts[column] += 1
    return np.repeat(np.arange(num_cols), counts)
