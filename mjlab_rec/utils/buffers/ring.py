"""Preallocated storage of the last few frames of a batch, each row with its own timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

Rows = Sequence[int] | Tensor | slice | None
"""Rows as indices, a boolean mask (on a GPU this waits for the device), a slice, or None: all."""

_MAX_PENDING = 8
_STATE = ("_storage", "_slots", "_count", "_birth", "_pending", "_pending_is_exact")


class Ring:
    """Keeps the last `max_len` frames, each (batch_size, ...), and returns any of them.

    The first frame of a row, at the start or after its reset, fills the row's whole history. So
    a lag that reaches beyond the history gives the oldest frame there is, without a check.

    In steady state `append` only copies one frame into preallocated storage. All bookkeeping is on
    the host or, if it is per row, changed only by resets.
    """

    _row_major = False
    # Slot k holds a frame whose number is k modulo max_len: with two copies, any max_len frames
    # in a row are neighbours somewhere.
    _copies = 1

    def __init__(self, max_len: int, batch_size: int, device: str | torch.device) -> None:
        if max_len < 1:
            raise ValueError(f"The buffer length must be at least 1, got {max_len}.")
        self._max_len = max_len
        self._batch_size = batch_size
        self._device = device
        # All frames as (batch_size, num_slots, ...), and a view of each slot.
        self._storage: Tensor | None = None
        self._slots: list[Tensor] = []
        # A row has seen `_count - _birth` frames. Both change only out of place, so that keeping
        # the old value costs nothing.
        self._count = 0
        self._birth = torch.zeros(batch_size, dtype=torch.long, device=device)
        # Rows that lack their first frame. Once a frame was added to some rows only, others may be
        # among them; then `_birth` tells.
        self._pending: list[Tensor | slice] = [slice(None)]
        self._pending_is_exact = True
        self._undo: list[Callable[[], object]] | None = None

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self._batch_size

    @property
    def device(self) -> str | torch.device:
        """Where the frames are."""
        return self._device

    @property
    def max_length(self) -> int:
        """How many frames are kept."""
        return self._max_len

    @property
    def current_length(self) -> Tensor:
        """How many frames each row has seen, at most `max_length`: (batch_size,)."""
        return (self._count - self._birth).clamp_max(self._max_len)

    @property
    def is_initialized(self) -> bool:
        """Whether any frame was ever appended."""
        return self._storage is not None

    def reset(self, batch_ids: Rows = None) -> None:
        """Empty some rows: they read as zero until their next frame, which fills them."""
        rows = self._rows(batch_ids)
        self._set_birth(rows, self._count)
        if self._storage is not None:
            self._save_rows(rows)
            self._storage[rows] = 0
        if batch_ids is None:
            self._pending = [slice(None)]
            self._pending_is_exact = True
        elif isinstance(rows, slice) or len(self._pending) >= _MAX_PENDING:
            self._pending = [slice(None)]
            self._pending_is_exact = False
        elif len(rows):
            # The caller may reuse the tensor before the next frame comes.
            self._pending = [*self._pending, rows.clone()]

    def append(self, data: Tensor, batch_ids: Rows = None) -> None:
        """Add a frame.

        Args:
            data: The frame of the whole batch, (batch_size, ...).
            batch_ids: If given, only these rows take their part of it, and time advances for them
                only; the other rows keep their history bit for bit.
        """
        storage = self._ready_for(data)
        if batch_ids is not None:
            self._append_rows(storage, data, self._rows(batch_ids))
            return
        before = self._count
        self._count += 1
        newest = self._count % self._max_len
        if self._undo is not None:
            self._undo.append(partial(self._write, newest, self._slots[newest].clone()))
        self._write(newest, data)
        for rows in self._pending:
            self._save_rows(rows)
            frame = data[rows].unsqueeze(1).to(storage.dtype)
            if not self._pending_is_exact:
                fresh = _column(self._birth[rows] == before, storage)
                frame = torch.where(fresh, frame, storage[rows])
            storage[rows] = frame
        self._pending, self._pending_is_exact = [], True

    def backfill(self, data: Tensor, batch_ids: Rows = None) -> None:
        """Make one frame the whole history of some rows, as if it were their first.

        Args:
            data: The frame of the whole batch, (batch_size, ...).
            batch_ids: The rows that take their part of it.
        """
        storage = self._ready_for(data)
        rows = self._rows(batch_ids)
        self._save_rows(rows)
        storage[rows] = data[rows].unsqueeze(1).to(storage.dtype)
        self._set_birth(rows, self._count - 1)
        self._pending_is_exact = False

    @contextmanager
    def rollback(self) -> Iterator[None]:
        """Undo, at the end of a `with` block, all that happened to the buffer inside it."""
        outer, self._undo = self._undo, []
        state = {name: getattr(self, name) for name in _STATE}
        try:
            yield
        finally:
            for restore in reversed(self._undo):
                restore()
            self._undo = outer
            self.__dict__.update(state)

    def __getitem__(self, lag: Tensor | int) -> Tensor:
        """Return the frames of `lag` steps ago, 0 being the newest, as a new tensor.

        Args:
            lag: One lag for all rows, or one each, (batch_size,). Lags beyond the history give its
                oldest frame.
        """
        self._require_storage()
        oldest = self._max_len - 1
        if isinstance(lag, int):
            slot = (self._count - min(max(lag, 0), oldest)) % self._max_len
            return self._slots[slot].clone(memory_format=torch.contiguous_format)
        if lag.ndim and lag.numel() != self._batch_size:
            raise ValueError(
                f"Expected one lag or {self._batch_size}, one per row, got {lag.numel()}."
            )
        slot = torch.remainder(self._count - lag.clamp(0, oldest), self._max_len)
        # index_select on the rows of a matrix is several times faster than index pairs.
        return self._flat.index_select(0, torch.add(self._row_index, slot, alpha=self._slot_step))

    def _allocate(self, frame: Tensor) -> Tensor:
        slots, batch = self._copies * self._max_len, self._batch_size
        order = (batch, slots) if self._row_major else (slots, batch)
        # Storage created in inference mode could not be written to outside it.
        with torch.inference_mode(False):
            block = torch.zeros(*order, *frame.shape[1:], dtype=frame.dtype, device=self._device)
            self._flat = block.flatten(0, 1)
            self._storage = block if self._row_major else block.transpose(0, 1)
            self._slots = [self._storage[:, i] for i in range(slots)]
            row_step, self._slot_step = (slots, 1) if self._row_major else (1, batch)
            self._row_index = torch.arange(batch, device=self._device) * row_step
        return self._storage

    def _ready_for(self, data: Tensor) -> Tensor:
        if self._storage is None:
            if data.shape[:1] != (self._batch_size,):
                raise ValueError(self._wrong_shape(data, f"({self._batch_size}, ...)"))
            return self._allocate(data)
        if data.shape != self._slots[0].shape:
            raise ValueError(self._wrong_shape(data, str(tuple(self._slots[0].shape))))
        return self._storage

    def _wrong_shape(self, data: Tensor, expected: str) -> str:
        return (
            f"Expected a frame of shape {expected}, one row for each of the"
            f" {self._batch_size} environments, got {tuple(data.shape)}."
        )

    def _require_storage(self) -> Tensor:
        if self._storage is None:
            raise RuntimeError("Buffer not initialized: it has no frames yet. Call append() first.")
        return self._storage

    def _rows(self, batch_ids: Rows) -> Tensor | slice:
        if batch_ids is None:
            return slice(None)
        if isinstance(batch_ids, slice):
            return batch_ids
        ids = torch.as_tensor(batch_ids, device=self._device)
        return ids.nonzero().squeeze(-1) if ids.dtype == torch.bool else ids.long()

    def _write(self, newest: int, frame: Tensor) -> None:
        for slot in self._slots[newest :: self._max_len]:
            slot.copy_(frame)

    def _append_rows(self, storage: Tensor, data: Tensor, rows: Tensor | slice) -> None:
        # The newest slot is the same for all rows. So these rows' older frames move back one slot,
        # and the newest slot stays.
        self._save_rows(rows)
        frame = data[rows].unsqueeze(1).to(storage.dtype)
        moved = storage[rows].roll(-1, dims=1)
        moved[:, self._count % self._max_len :: self._max_len] = frame
        fresh = _column(self._birth[rows] == self._count, storage)
        storage[rows] = torch.where(fresh, frame, moved)
        self._set_birth(rows, self._birth[rows] - 1)
        self._pending_is_exact = False

    def _set_birth(self, rows: Tensor | slice, value: Tensor | int) -> None:
        self._birth = self._birth.clone()
        self._birth[rows] = value

    def _save_rows(self, rows: Tensor | slice) -> None:
        if self._undo is not None and self._storage is not None:
            old = self._storage[rows].clone()
            self._undo.append(partial(self._storage.__setitem__, rows, old))


def _column(mask: Tensor, like: Tensor) -> Tensor:
    """Shape a mask over rows so that it broadcasts against `like`."""
    return mask.view(-1, *[1] * (like.ndim - 1))
