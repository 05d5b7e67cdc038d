"""The order in which the rows of a recording are read: pools of tiles, chosen at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.pieces import ranges
from mjlab_rec.data.items import Items, cut

_TILES = 512  # of a pool, at least; fewer if a tile would be less than what has one checksum
_LARGEST = 1 << 20  # bytes of a tile
_BLOCKS = 4  # of a tile of windows, because those at its end need rows of the next block


class Tiles:
    """Items in tiles, each of which can be read at once, and pools of tiles.

    A pool holds as many tiles as fit into its size. The tiles of a pool are chosen at random from
    the whole recording if the items are shuffled; then its items follow each other in a random
    order.

    Args:
        reader: The recording.
        items: Its items.
        channels: The channels that are stored.
        row_bytes: Bytes of a row in memory.
        pool_bytes: Size of a pool.
        shuffle: Whether tiles are chosen at random; otherwise items are read in their order.
    """

    def __init__(
        self,
        reader: Reader,
        items: Items,
        channels: list[str],
        row_bytes: int,
        pool_bytes: int,
        shuffle: bool,
    ) -> None:
        self.shuffle = shuffle
        strips, rows = reader.strips, reader.episodes["rows"].to_numpy().astype(np.int64)
        most = min(pool_bytes // _TILES, _LARGEST)
        if strips is None:
            tile = items.episode
        else:
            strip_bytes = max(1, strips.rows * row_bytes)
            grain = reader.grain(channels)
            lanes = max(1, most // strip_bytes // grain) * grain
            blocks = 1
            if lanes >= strips.lanes:
                lanes = strips.lanes
                blocks = max(1, most // (strip_bytes * lanes))
            if items.length > 1:
                more = -(-_BLOCKS * (items.length - 1) // strips.rows)
                blocks = max(blocks, min(_BLOCKS, len(strips.place)), more)
                lanes = max(1, most // (strip_bytes * blocks) // grain) * grain
            items, tile = cut(items, strips, rows, blocks, min(lanes, strips.lanes))
        base = np.cumsum(rows) - rows
        if shuffle:
            # Within a tile in the order of the storage, so that much is read and copied at once.
            order = np.lexsort((base[items.episode] + items.first, tile))
            items, tile = items[order], tile[order]
            opening = np.flatnonzero(np.diff(tile, prepend=-1))
        else:
            opening = np.arange(len(tile))
        self._items, self._key = items, tile
        self._place = base[items.episode] + items.first
        self._bounds = np.append(opening, len(tile))
        before = np.append(0, np.cumsum(items.pieces.count))
        self._nbytes = np.diff(before[self._bounds]) * row_bytes
        self._pool_bytes = pool_bytes

    def pools(self, rng: np.random.Generator) -> Iterator[tuple[Items, np.ndarray]]:
        """The runs of items of each pool, ordered as they are stored, and their order as items.

        The latter is the number of each run among those of the pool.
        """
        number = len(self._nbytes)
        order = rng.permutation(number) if self.shuffle else np.arange(number)
        sizes = np.cumsum(self._nbytes[order])
        first = 0
        while first < number:
            most = self._pool_bytes + (sizes[first - 1] if first else 0)
            last = max(first + 1, int(np.searchsorted(sizes, most, "right")))
            chosen = order[first:last]
            if self.shuffle:
                chosen = np.sort(chosen)
                counts = np.diff(self._bounds)[chosen]
                runs = np.repeat(self._bounds[:-1][chosen], counts) + ranges(counts)
                turn = np.arange(len(runs))
            else:
                stored = np.lexsort((self._place[chosen], self._key[chosen]))
                runs = chosen[stored]
                turn = np.argsort(stored)
            yield self._items[runs], turn
            first = last
