"""Batches of recorded rows, or of windows of rows, as torch tensors for training."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError, bytes_of


class Batches:
    """Batches of rows or windows, in a new order in each iteration.

    Created by ``Rollouts.transitions`` and ``Rollouts.windows``.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        batch_size: int,
        channels: Sequence[str] | None,
        *,
        length: int | None,
        stride: int,
        shuffle: bool,
        seed: int | None,
        drop_last: bool,
        device: str,
        memory_bytes: int,
        episodes: Sequence[int] | None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.channels = rollouts.names(channels)
        self._rollouts = rollouts
        self._batch_size = batch_size
        self._length = length
        self._shuffle = shuffle
        self._seed = secrets.randbits(64) if seed is None else seed
        self._drop_last = drop_last
        self._device = torch.device(device)
        self._memory_bytes = memory_bytes
        self._epoch = 0
        self._chosen, counts, self._starts = _items(rollouts, length, stride, episodes)
        self._bounds = np.append(0, np.cumsum(counts))  # of each chosen episode's items
        kinds = rollouts.info.kinds
        self._row_bytes = bytes_of(kinds[name] for name in self.channels)
        rows = rollouts.episodes["rows"].to_numpy()
        self._rows = rows[self._chosen].astype(np.int64)
        self._loaded: tuple[dict[str, torch.Tensor], torch.Tensor] | None = None

    @property
    def items(self) -> int:
        """Rows or windows per pass."""
        return len(self._starts)

    def __len__(self) -> int:
        batches = self.items / self._batch_size
        return math.floor(batches) if self._drop_last else math.ceil(batches)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        self._epoch += 1
        return self._batches(rng)

    def _batches(self, rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        left = None  # items of one group that are too few for a batch
        for rows, starts in self._groups(rng):
            if self._shuffle:
                starts = starts[torch.from_numpy(rng.permutation(len(starts))).to(starts.device)]
            first = 0
            if left is not None:
                first = self._batch_size - len(next(iter(left.values())))
                more = self._gather(rows, starts[:first])
                left = {name: torch.cat([left[name], more[name]]) for name in left}
                if len(next(iter(left.values()))) < self._batch_size:
                    continue
                yield left
                left = None
            for at in range(first, len(starts), self._batch_size):
                batch = self._gather(rows, starts[at : at + self._batch_size])
                if at + self._batch_size <= len(starts):
                    yield batch
                else:
                    left = batch
        if left is not None and not self._drop_last:
            yield left

    def _groups(
        self, rng: np.random.Generator
    ) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Rows of several episodes as tensors, and where the items in them begin."""
        everything = np.arange(len(self._chosen))
        if not self.items or not self.channels:
            return
        if self._row_bytes * self._rows.sum() <= self._memory_bytes:
            if self._loaded is None:
                self._loaded = self._load(everything)
            yield self._loaded
            return
        order = rng.permutation(everything) if self._shuffle else everything
        # A group ends where one more episode would exceed the memory.
        group: list[int] = []
        nbytes = 0
        for episode in order:
            size = int(self._rows[episode]) * self._row_bytes
            if group and nbytes + size > self._memory_bytes:
                yield self._load(np.array(group))
                group, nbytes = [], 0
            group.append(int(episode))
            nbytes += size
        yield self._load(np.array(group))

    def _load(self, episodes: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """All rows of some of the chosen episodes."""
        rows = self._rollouts.read_many(self._chosen[episodes].tolist(), self.channels)
        offsets = np.cumsum(self._rows[episodes]) - self._rows[episodes]
        counts = np.diff(self._bounds)[episodes]
        at = np.repeat(self._bounds[episodes], counts) + _ranges(counts)
        starts = self._starts[at] + np.repeat(offsets, counts)
        return (
            {name: torch.from_numpy(array).to(self._device) for name, array in rows.items()},
            torch.from_numpy(starts).to(self._device),
        )

    def _gather(
        self, rows: dict[str, torch.Tensor], starts: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        if self._length is None:
            return {name: values.index_select(0, starts) for name, values in rows.items()}
        at = (starts[:, None] + torch.arange(self._length, device=starts.device)).flatten()
        return {
            name: values.index_select(0, at).view(len(starts), self._length, *values.shape[1:])
            for name, values in rows.items()
        }


class RolloutDataset(Dataset):
    """Rows or windows by number, for ``torch.utils.data.DataLoader``.

    It can be passed to other processes: a forked one uses the files that its parent has opened, a
    spawned one opens the recording itself. Reading an item reads its whole episode, which is kept
    until an item of another episode is read.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        length: int | None,
        channels: Sequence[str] | None,
        stride: int,
    ) -> None:
        self.channels = rollouts.names(channels)
        self.path: Path | None = rollouts.path
        chosen, counts, self._start = _items(rollouts, length, stride, None)
        self._length = length
        self._episode = np.repeat(chosen, counts)
        self._check = rollouts.checked
        self._rollouts: Rollouts | None = rollouts
        self._latest: tuple[int, dict[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no item {index}: the dataset has {len(self)}.")
        episode, start = int(self._episode[index]), int(self._start[index])
        if self._latest is None or self._latest[0] != episode:
            if self._rollouts is None:
                assert self.path is not None
                self._rollouts = open_rollouts(self.path, self._check)
            self._latest = episode, self._rollouts.read(episode, self.channels)
        rows = start if self._length is None else slice(start, start + self._length)
        # Copies, because the tensors may outlive the episode, and so that nothing is shared.
        return {name: torch.tensor(a[rows]) for name, a in self._latest[1].items()}

    def __getstate__(self) -> dict[str, Any]:
        if self.path is None:
            raise DataError(
                "A recording in memory cannot be passed to another process. Record to a file,"
                " or use num_workers=0."
            )
        return {**self.__dict__, "_rollouts": None, "_latest": None}


def _items(
    rollouts: Rollouts, length: int | None, stride: int, episodes: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The chosen episodes, the number of items of each, and the first row of each item.

    Returns:
        Episodes (E,), counts (E,), and first rows (sum of counts,) within their episodes.
    """
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1, got {length}.")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}.")
    count = len(rollouts)
    chosen = np.arange(count) if episodes is None else np.array(list(episodes), np.int64)
    if len(chosen) and not (0 <= chosen.min() and chosen.max() < count):
        raise IndexError(f"Episodes are numbered from 0 to {count - 1}, got {chosen.tolist()}.")
    length = length or 1
    table = rollouts.episodes
    rows = table["rows"].to_numpy()[chosen].astype(np.int64)
    counts = np.maximum(0, (rows - length) // stride + 1)
    if length == 1:
        return chosen, counts, stride * _ranges(counts)
    # In episodes with missing rows, windows must not cross a gap.
    partial = table["partial"].fill_null(True).to_numpy()[chosen]
    pieces = {}
    for i in np.flatnonzero(partial & (counts > 0)):
        step = rollouts.read(int(chosen[i]), ["step"])["step"].astype(np.int64)
        # Windows begin with the first row after a gap, as with an episode's first row.
        gaps = np.flatnonzero(np.diff(step) != rollouts.info.every) + 1
        first = np.append(0, gaps)
        each = np.maximum(0, (np.diff(np.append(first, len(step))) - length) // stride + 1)
        pieces[i] = np.repeat(first, each) + stride * _ranges(each)
        counts[i] = len(pieces[i])
    starts = stride * _ranges(counts)
    bounds = np.append(0, np.cumsum(counts))
    for i, piece in pieces.items():
        starts[bounds[i] : bounds[i + 1]] = piece
    return chosen, counts, starts


def _ranges(counts: np.ndarray) -> np.ndarray:
    """The concatenation of range(count) for each count."""
    after = np.cumsum(counts)
    return np.arange(after[-1] if len(after) else 0) - np.repeat(after - counts, counts)
