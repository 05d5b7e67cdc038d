"""Rows in memory, from which batches are gathered."""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.items import Items
from mjlab_rec.data.schema import bytes_of

_ORDER_BYTES = 12  # of a row: its place in the order of the items, and the row after it
_MOST_ROWS = (1 << 31) - 1  # because rows are numbered with 32 bits
_AHEAD = 4  # tasks that wait for a thread


def stored_channels(reader: Reader, channels: Sequence[str]) -> list[str]:
    """The channels that are read so that all of these can be gathered."""
    chains = reader.chains(channels)
    return list(dict.fromkeys(chains.get(name, name) for name in channels))


def row_bytes(reader: Reader, channels: Sequence[str]) -> int:
    """Bytes of a row in memory."""
    kinds = reader.info.kinds
    return bytes_of(kinds[name] for name in stored_channels(reader, channels)) + _ORDER_BYTES


class Pool:
    """The rows of several runs of items.

    Args:
        reader: The recording.
        items: The runs of items.
        channels: The channels of a batch.
        windows: Whether an item of a batch has an axis of rows.
        device: Where the rows are.
        executor: Threads that read; None: the caller's thread.
        stop: If it is set, reading ends early, and the pool must not be used.
    """

    def __init__(
        self,
        reader: Reader,
        items: Items,
        channels: Sequence[str],
        *,
        windows: bool = False,
        device: torch.device | str = "cpu",
        executor: Executor | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._channels, self._chains = list(channels), reader.chains(channels)
        self._length, self._windows = items.length, windows
        pieces = items.pieces
        total = pieces.rows
        if total + len(pieces) > _MOST_ROWS:
            raise ValueError(
                f"At most {_MOST_ROWS} rows can be in memory at once, but {total} would be. Choose"
                " a smaller memory_bytes."
            )
        self.starts = pieces.into
        """The first row of each run of items."""
        kinds, sources = reader.info.kinds, set(self._chains.values())
        arrays = {
            name: np.empty(
                (total + len(pieces) * (name in sources), *kinds[name][1]), kinds[name][0]
            )
            for name in stored_channels(reader, channels)
        }
        rows = {name: array[:total] for name, array in arrays.items()}
        after = {name: arrays[name][total:] for name in sources}
        _run(reader.reading(pieces, rows, after), executor, stop or threading.Event())
        following = None
        if sources:
            # The row after each one. The values after the end of each run follow all rows.
            following = np.arange(1, total + 1, dtype=np.int32)
            following[self.starts + pieces.count - 1] = total + np.arange(len(pieces))
        self._device = torch.device(device)
        self._arrays: dict[str, Any] = arrays
        self._following: Any = following
        if self._device.type != "cpu":
            self._arrays = {n: torch.from_numpy(a).to(device) for n, a in arrays.items()}
            if following is not None:
                self._following = torch.from_numpy(following).to(device)

    def gather(self, at: np.ndarray) -> dict[str, torch.Tensor]:
        """A batch of the items that begin at these rows."""
        if self._device.type != "cpu":
            return self._gather_on_device(torch.from_numpy(at.astype(np.int64)))
        at = at.astype(np.intp, copy=False)
        found: dict[str, np.ndarray] = {}
        for name, values in self._arrays.items():
            if name in self._channels or self._length > 1:
                found[name] = _taken(values, at, self._length)
        after = None
        for name, source in self._chains.items():
            if after is None:
                after = self._following.take(at + (self._length - 1)).astype(np.intp)
            last = self._arrays[source].take(after, 0, mode="clip")
            if self._length > 1:
                last = np.concatenate([found[source][:, 1:], last[:, None]], 1)
            found[name] = last
        if self._windows and self._length == 1:
            found = {name: values[:, None] for name, values in found.items()}
        return {name: torch.from_numpy(found[name]) for name in self._channels}

    def _gather_on_device(self, at: torch.Tensor) -> dict[str, torch.Tensor]:
        at = at.to(self._device)
        shape: tuple[int, ...] = (len(at),)
        if self._windows:
            at = (at[:, None] + torch.arange(self._length, device=self._device)).flatten()
            shape = (*shape, self._length)
        after = self._following.index_select(0, at) if self._chains else at
        found = {}
        for name in self._channels:
            source = self._chains.get(name)
            values = self._arrays[source or name]
            rows = values.index_select(0, after if source else at)
            found[name] = rows.view(*shape, *values.shape[1:])
        return found

    def release(self) -> None:
        """Free the memory."""
        self._arrays, self._following = {}, None


def _taken(values: np.ndarray, at: np.ndarray, length: int) -> np.ndarray:
    """Windows of rows (n, length, ...); rows (n, ...) if they have one row."""
    if length == 1:
        return values.take(at, 0, mode="clip")  # The fastest way; `at` is always valid.
    shape, row = (len(at), length, *values.shape[1:]), values.nbytes // len(values)
    if not row or not len(at):
        return np.empty(shape, values.dtype)
    # Each window as one element of an array that overlaps itself, so that it is copied at once.
    count = len(values) - length + 1
    windows = np.ndarray((count,), np.dtype((np.void, row * length)), values, 0, (row,))
    return windows[at].view(values.dtype).reshape(shape)


def _run(tasks: Any, executor: Executor | None, stop: threading.Event) -> None:
    """Run tasks, in several threads if there is an executor, until `stop` is set."""
    waiting: collections.deque[Future[None]] = collections.deque()
    try:
        for task in tasks:
            if stop.is_set():
                return
            if executor is None:
                task()
                continue
            waiting.append(executor.submit(task))
            while len(waiting) > _AHEAD:
                waiting.popleft().result()
    finally:
        error: BaseException | None = None
        for future in waiting:
            try:
                future.result()
            except BaseException as caught:
                error = error or caught
    if error is not None:
        raise error
