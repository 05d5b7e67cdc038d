"""Batches of recorded rows, or of windows of rows, as torch tensors for training."""

from __future__ import annotations

import math
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from mjlab_rec.data.items import Items, find_items
from mjlab_rec.data.pool import Pool, row_bytes, stored_channels
from mjlab_rec.data.tiles import Tiles

if TYPE_CHECKING:
    from mjlab_rec.data.rollouts import Rollouts

_MOST_WORKERS = 4


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
        workers: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be at least 0, got {workers}.")
        self.channels = rollouts.names(channels)
        self._reader = rollouts.reader
        self._batch_size = batch_size
        self._windows = length is not None
        self._shuffle = shuffle
        self._seed = secrets.randbits(64) if seed is None else seed
        self._drop_last = drop_last
        self._device = torch.device(device)
        self._epoch = 0
        self._workers = min(_MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
        if not self._reader.concurrent:
            self._workers = 0
        items = find_items(rollouts, length, stride, episodes)
        self.items = items.total if self.channels else 0
        """Rows or windows per pass."""
        self._all: Items | None = None
        self._kept: Pool | None = None
        each = row_bytes(self._reader, self.channels)
        if items.pieces.rows * each <= memory_bytes:
            self._all = items
        else:
            # While a pool is used, the next one is read.
            pool_bytes = memory_bytes // 2 if self._workers else memory_bytes
            stored = stored_channels(self._reader, self.channels)
            self._tiles = Tiles(self._reader, items, stored, each, pool_bytes, shuffle)

    def __len__(self) -> int:
        batches = self.items / self._batch_size
        return math.floor(batches) if self._drop_last else math.ceil(batches)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        self._epoch += 1
        return self._batches(rng)

    def _batches(self, rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        if not self.items:
            return
        left: list[dict[str, torch.Tensor]] = []  # items of pools that are too few for a batch
        missing = self._batch_size
        for pool, at in self._pools(rng):
            first = 0
            while first < len(at):
                batch = pool.gather(at[first : first + missing])
                first += missing
                if first > len(at):
                    left.append(batch)
                    missing = first - len(at)
                    break
                yield _joined([*left, batch])
                left, missing = [], self._batch_size
        if left and not self._drop_last:
            yield _joined(left)

    def _pools(self, rng: np.random.Generator) -> Iterator[tuple[Pool, np.ndarray]]:
        """Pools of rows, and where the items in them begin, in their order."""
        stop = threading.Event()
        threads = ThreadPoolExecutor(self._workers) if self._workers else None
        ahead = ThreadPoolExecutor(1) if self._workers and self._all is None else None
        load = partial(self._load, executor=threads, stop=stop)
        try:
            if self._all is not None:
                if self._kept is None:
                    self._kept = self._pool(self._all, threads, stop)
                yield self._kept, self._order(self._kept, self._all, None, _torch_seed(rng))
                return
            pools = ((*found, _torch_seed(rng)) for found in self._tiles.pools(rng))
            if ahead is None:
                for found in pools:
                    pool, at = load(*found)
                    yield pool, at
                    pool.release()
                return
            coming = ahead.submit(load, *next(pools))
            while coming is not None:
                pool, at = coming.result()
                following = next(pools, None)
                coming = None if following is None else ahead.submit(load, *following)
                yield pool, at
                pool.release()
        finally:
            stop.set()
            for executor in (ahead, threads):
                if executor is not None:
                    executor.shutdown(cancel_futures=True)

    def _load(
        self,
        items: Items,
        turn: np.ndarray | None,
        seed: int,
        *,
        executor: ThreadPoolExecutor | None,
        stop: threading.Event,
    ) -> tuple[Pool, np.ndarray]:
        pool = self._pool(items, executor, stop)
        return pool, self._order(pool, items, turn, seed)

    def _pool(
        self, items: Items, executor: ThreadPoolExecutor | None, stop: threading.Event
    ) -> Pool:
        return Pool(
            self._reader,
            items,
            self.channels,
            windows=self._windows,
            device=self._device,
            executor=executor,
            stop=stop,
        )

    def _order(self, pool: Pool, items: Items, turn: np.ndarray | None, seed: int) -> np.ndarray:
        """Where the items of a pool begin, in a random order or run by run."""
        starts = pool.starts
        if not self._shuffle:
            if turn is not None:
                items, starts = items[turn], starts[turn]
            return items.positions(starts)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(items.total, generator=generator, dtype=torch.int32).numpy()
        if items.length == items.stride == 1:
            return order  # All rows of the pool are items.
        return items.positions(starts).astype(np.int32).take(order)


def _torch_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 63))


def _joined(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    if len(batches) == 1:
        return batches[0]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
