"""Selecting columns and rows of a tensor in as few operations as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor

Index = slice | Tensor
EnvIds = Tensor | slice | None
"""Worlds as indices, a boolean mask over all worlds, a slice, or None for all."""


def as_index(ids: Sequence[int], device: str | torch.device) -> Index:
    """Return a slice for contiguous ids, else a tensor; indexing with lists is much slower."""
    ids = list(ids)
    start = ids[0] if ids else 0
    if ids == list(range(start, start + len(ids))):
        return slice(start, start + len(ids))
    return torch.tensor(ids, dtype=torch.long, device=device)


class Columns:
    """Some columns (dimension 1) of a tensor whose memory stays in place.

    Contiguous columns are kept as a view, so that reading and writing are one operation each. A
    single integer selects one column and drops the dimension.
    """

    def __init__(self, source: Tensor, index: Index | int) -> None:
        self._source = source
        self._ids = index if isinstance(index, Tensor) else None
        self._view = source if isinstance(index, Tensor) else source[:, index]

    def read(self) -> Tensor:
        """Return a copy, which later writes to the source do not change."""
        if self._ids is None:
            return self._view.clone(memory_format=torch.contiguous_format)
        return self._view.index_select(1, self._ids)

    def peek(self) -> Tensor:
        """Return the current values, perhaps a view: use them at once and never write to them."""
        return self._view if self._ids is None else self._view.index_select(1, self._ids)

    def write(self, values: Tensor) -> None:
        """Set these columns in all rows."""
        if self._ids is None:
            self._view.copy_(values)
        else:
            self._source.index_copy_(1, self._ids, values)


def write_block(
    target: Tensor, values: Tensor | float, env_ids: EnvIds = None, columns: Index | None = None
) -> None:
    """Set the given columns in the rows of the given worlds.

    Args:
        target: The tensor to write to, (num_envs, columns, ...).
        values: One row per chosen world. With a mask it may also have a row per world of the
            batch, of which the chosen ones are written; that needs no wait on a GPU.
        env_ids: Which rows.
        columns: Which columns; None means all.
    """
    if isinstance(columns, slice):
        target, columns = target[:, columns], None
    if _is_mask(env_ids):
        if isinstance(values, Tensor) and _has_other_rows(values, target):
            env_ids = env_ids.nonzero().squeeze(-1)
        else:
            current = target if columns is None else target[:, columns]
            values = torch.where(env_ids.view(-1, *[1] * (target.dim() - 1)), values, current)
            env_ids = None
    rows = slice(None) if env_ids is None else env_ids
    if columns is None:
        target[rows] = values
    elif isinstance(rows, slice):
        target[rows, columns] = values
    else:
        # Two index tensors would select pairs, but this needs the outer product.
        target[rows[:, None], columns] = values


def rows_for(source: Tensor, values: Tensor, env_ids: EnvIds) -> Tensor:
    """Return the rows of ``source`` that match ``values`` in ``write_block(..., env_ids)``."""
    if env_ids is None or (_is_mask(env_ids) and len(values) == len(source)):
        return source
    return source[env_ids]


def checked_ids(env_ids: Tensor | None, num_envs: int, device: str) -> Tensor:
    """Return environment ids (n,), given ids, a mask, or None for all."""
    if env_ids is None:
        return torch.arange(num_envs, device=device)
    ids = torch.as_tensor(env_ids, device=device)
    if ids.dtype == torch.bool:
        if ids.shape != (num_envs,):
            raise ValueError(
                f"env_ids is a mask of shape {tuple(ids.shape)}, expected ({num_envs},)."
            )
        ids = ids.nonzero().flatten()
    ids = ids.long().flatten()
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < num_envs:
        raise IndexError(
            f"env_ids {ids.tolist()[:10]} are out of range: there are {num_envs} environments."
        )
    return ids


def _is_mask(env_ids: EnvIds) -> TypeGuard[Tensor]:
    return isinstance(env_ids, Tensor) and env_ids.dtype == torch.bool


def _has_other_rows(values: Tensor, target: Tensor) -> bool:
    return values.dim() == target.dim() and len(values) != len(target)
