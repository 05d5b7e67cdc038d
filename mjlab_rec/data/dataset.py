"""Recorded rows, or windows of rows, by number: a map-style dataset for data loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from mjlab_rec.data.items import Items, find_items
from mjlab_rec.data.pool import Pool, row_bytes
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError

if TYPE_CHECKING:
    from mjlab_rec.data.rollouts import Rollouts


class RolloutDataset(Dataset):
    """Rows or windows by number, for ``torch.utils.data.DataLoader``.

    It can be passed to other processes: a forked one uses the files that its parent has opened, a
    spawned one opens the recording itself. If all rows fit into `memory_bytes`, the first access
    reads them; ``load`` reads them at once, so that processes that are forked later share them.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        length: int | None,
        channels: Sequence[str] | None,
        stride: int,
        memory_bytes: int,
    ) -> None:
        self.channels = rollouts.names(channels)
        self.source: Path | list[Path] | None = rollouts.source
        self._items = find_items(rollouts, length, stride, None)
        self._bounds = np.append(0, np.cumsum(self._items.count))
        self._windows = length is not None
        each = row_bytes(rollouts.reader, self.channels)
        self._fits = self._items.pieces.rows * each <= memory_bytes
        self._check = rollouts.checked
        self._rollouts: Rollouts | None = rollouts
        self._pool: Pool | None = None
        self._latest: tuple[int, dict[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no item {index}: the dataset has {len(self)}.")
        if self._fits:
            batch = self.batch([index])
            return {name: values[0] for name, values in batch.items()}
        episodes, firsts = self._places(np.array([index]))
        episode, first = int(episodes[0]), int(firsts[0])
        if self._latest is None or self._latest[0] != episode:
            self._latest = episode, self._opened().read(episode, self.channels)
        rows = slice(first, first + self._items.length) if self._windows else first
        # Copies, because the tensors may outlive the episode, and so that nothing is shared.
        return {name: torch.tensor(a[rows]) for name, a in self._latest[1].items()}

    def __getitems__(self, indices: Sequence[int]) -> Samples:
        """Several items, which ``collate`` turns into a batch. Data loaders call it."""
        return Samples(self.batch(indices))

    def batch(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> dict[str, torch.Tensor]:
        """Several items as one batch, (n, ...) or (n, length, ...)."""
        numbers = np.asarray(indices, np.int64)
        if len(numbers) and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(
                f"Items are numbered from 0 to {len(self) - 1}, got {numbers.min()} to"
                f" {numbers.max()}."
            )
        if self._fits:
            pool = self.load()
            run, item = self._runs(numbers)
            return pool.gather(pool.starts[run] + item * self._items.stride)
        episode, first = self._places(numbers)
        chosen = Items(
            length=self._items.length,
            stride=1,
            episode=episode,
            first=first,
            count=np.ones(len(episode), np.int64),
        )
        pool = Pool(self._opened().reader, chosen, self.channels, windows=self._windows)
        return pool.gather(pool.starts)

    def load(self) -> Pool:
        """Read all rows into memory, if that has not happened yet."""
        if self._pool is None:
            reader = self._opened().reader
            self._pool = Pool(reader, self._items, self.channels, windows=self._windows)
        return self._pool

    @staticmethod
    def collate(samples: Any) -> Any:
        """The fastest `collate_fn` for a data loader of this dataset."""
        return samples.batch if isinstance(samples, Samples) else default_collate(samples)

    def _runs(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The run of each item, and its number in the run."""
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        run = np.searchsorted(self._bounds, numbers, "right") - 1
        return run, numbers - self._bounds[run]

    def _places(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The episode and the first row of each item."""
        run, item = self._runs(numbers)
        return self._items.episode[run], self._items.first[run] + item * self._items.stride

    def _opened(self) -> Rollouts:
        if self._rollouts is None:
            assert self.source is not None
            self._rollouts = open_rollouts(self.source, self._check)
        return self._rollouts

    def __getstate__(self) -> dict[str, Any]:
        if self.source is None:
            raise DataError(
                "A recording in memory cannot be passed to another process. Record to a file,"
                " or use num_workers=0."
            )
        return {**self.__dict__, "_rollouts": None, "_pool": None, "_latest": None}


class Samples(Sequence[Mapping[str, torch.Tensor]]):
    """A batch as a sequence of its items."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values()), ()))

    def __getitem__(self, index: Any) -> Any:
        return {name: values[index] for name, values in self.batch.items()}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(len(self)))
