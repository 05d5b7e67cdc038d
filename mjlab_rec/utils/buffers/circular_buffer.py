"""A buffer that gives the last few frames in order, oldest first."""

from __future__ import annotations

import torch
from torch import Tensor

from mjlab_rec.utils.buffers.ring import Ring


class CircularBuffer(Ring):
    """The history of a batch, for stacked observations.

    A row's first frame, at the start or after its reset, fills its whole history; between the
    reset and that frame the row reads as zero.

    Each frame is written twice, so that the history is always contiguous in every row: reading,
    flattening or concatenating it takes at most one copy.
    """

    _row_major = True
    _copies = 2

    @property
    def buffer(self) -> Tensor:
        """The history as a new tensor (batch_size, max_length, ...), oldest frame first."""
        return self.window.clone(memory_format=torch.contiguous_format)

    @property
    def window(self) -> Tensor:
        """The same as `buffer` without a copy: a view, to read before the buffer changes."""
        storage = self._require_storage()
        start = self._count % self._max_len + 1
        return storage[:, start : start + self._max_len]
