"""Write blocks to one HDF5 file of a recording so that a kill cannot damage it.

A flush of HDF5 is a series of writes, and a process may die between any two of them. The file stays
readable as long as no object is created and no B-tree node is split. So all datasets are created
before the first block, B-tree nodes have room for all chunks of the file, and the next file begins
before they are full. HDF5 only allocates chunks: values are written to their place without it,
before the chunk is in the B-tree. A block is valid once its row in ``index/blocks`` is written,
after everything else of the block.

The places of chunks are also written to ``index/chunks``, and checksums of a block to
``index/checks``, so that readers need neither the HDF5 library nor its B-trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats.hdf5_file import RawFile
from mjlab_rec.data.formats.hdf5_layout import (
    CHUNK_DTYPE,
    STATE_DTYPE,
    Column,
    Plan,
    chunk_check,
    index_dtype,
    own_check,
    state_check,
)

_SLACK = 16 << 10  # bytes that HDF5 may need in addition to chunks and nodes

Pieces = Iterable[np.ndarray]
"""Consecutive items: of one block, in arrays whose length is a multiple of a column's unit, or of
several blocks in a single array."""


class Part:
    """An HDF5 file that is open for writing, with the columns of a plan, if it has one."""

    def __init__(
        self,
        file: h5py.File,
        raw: RawFile,
        plan: Plan | None,
        power: bool = False,
        safe: bool = True,
    ) -> None:
        self.file = file
        self.plan = plan
        self.raw = raw
        self.blocks = 0
        self._power, self._safe = power, safe
        self._columns: list[_Growing] = []
        if plan is None:
            return
        self._index, chunks = (_offset(file, f"index/{name}") for name in ("blocks", "chunks"))
        self._index_dtype = index_dtype(plan.layout)
        size = CHUNK_DTYPE.itemsize
        for column in plan.columns:
            copies = chunks, chunks + plan.slots * size
            self._columns.append(_Growing(file[column.path], column, plan, raw, copies))
            chunks += column.slots * size

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self.file.id.get_filesize()

    def fits(self, needs: Mapping[str, int]) -> bool:
        """Whether there is room for another block and the rows that it adds to tables."""
        assert self.plan is not None
        needs = {**needs, "checks": self.plan.checks(needs)}
        return self.blocks < self.plan.capacity and all(
            each.room >= needs.get(each.column.table, 0) for each in self._columns
        )

    def room(self, needs: Mapping[str, int]) -> int:
        """How many times there is room for the rows that a block adds to tables."""
        return min(
            each.room // needs[each.column.table]
            for each in self._columns
            if needs.get(each.column.table)
        )

    def reserve(self, blocks: int, adds: Mapping[str, np.ndarray]) -> None:
        """Reserve room on the disk for blocks; if it is full, the file is not changed."""
        counts = [(each, self._counts(each.column, blocks, adds)) for each in self._columns[:-1]]
        checks = sum(int(each.column.checks(count).sum()) for each, count in counts)
        more = self._columns[-1].nbytes_for(checks) + sum(
            each.nbytes_for(int(count.sum()) if each.column.table else blocks)
            for each, count in counts
        )
        if more:
            self.raw.reserve(self.nbytes + more + _SLACK)

    def write(
        self,
        columns: Mapping[str, Pieces],
        adds: Mapping[str, np.ndarray],
        rows: np.ndarray,
        gap: np.ndarray,
    ) -> None:
        """Write blocks. They are valid, and survive a kill, once this returns.

        Args:
            columns: The items of the blocks, by path of the column.
            adds: The number of rows that each block adds to a table, by the table.
            rows: Rows of each block.
            gap: Rows lost before each block.
        """
        assert self.plan is not None
        checksums: list[list[int]] = [[] for _ in rows]
        before = self.lengths
        for each in self._columns[:-1]:
            counts = self._counts(each.column, len(rows), adds)
            for all_of, some in zip(
                checksums, each.put(columns.get(each.column.path, ()), counts), strict=True
            ):
                all_of += some
        index: Any = np.zeros(len(rows), self._index_dtype)
        index["rows"], index["gap"], index["done"] = rows, gap, 1

        def note(first: np.ndarray, count: np.ndarray, table: str) -> None:
            added = adds.get(table, np.zeros(len(rows), np.int64))
            first[:], count[:] = before[table] + np.cumsum(added) - added, added

        note(index["first_end"], index["ends"], "ends")
        for number, name in enumerate(self.plan.layout.model):
            table = f"model_fields/{name}"
            note(index["first_model"][:, number], index["models"][:, number], table)
        for number, table in enumerate(self.plan.layout.streams.values()):
            note(index["first_encoded"][:, number], index["encoded"][:, number], table)
        self._commit(index, checksums)

    @staticmethod
    def _counts(column: Column, blocks: int, adds: Mapping[str, np.ndarray]) -> np.ndarray:
        """Items that each block adds to a column."""
        if column.items:
            return np.full(blocks, column.items)
        return adds.get(column.table, np.zeros(blocks, np.int64))

    def _commit(self, index: Any, checksums: list[list[int]]) -> None:
        column = self._columns[-1]
        kind = column.column.dtype
        values = [np.array(found, kind) for found in checksums]
        index["checks"] = counts = np.array([len(each) for each in values])
        index["first_check"] = column.length + np.cumsum(counts) - counts
        index["check"] = [crc32(each.tobytes()) for each in values]
        column.put([np.concatenate(values)], counts)
        size, content = index.itemsize, index.tobytes()
        index["own"] = [
            own_check(content[at * size : (at + 1) * size], self._index_dtype, self.blocks + at)
            for at in range(len(index))
        ]
        if self._safe:
            self.file.flush()
        if self._power:
            self.raw.sync()
        self.raw.write(index, self._index + self.blocks * index.itemsize)
        if self._power:
            self.raw.sync()
        self.raw.drop_cached()
        self.blocks += len(index)

    @property
    def lengths(self) -> dict[str, int]:
        """Rows of the tables."""
        return {each.column.table: each.length for each in self._columns}

    def abandon(self) -> None:
        """Close the file without writing anything that was not committed."""
        self.raw.abandon()
        self.file.close()

    def close(self, state: int) -> None:
        """Finish the file, and write its state."""
        self.file.flush()
        if self._power:
            self.raw.sync()
        mark: Any = np.zeros(1, STATE_DTYPE)
        mark["state"], mark["blocks"] = state, self.blocks
        mark["check"] = state_check(mark.tobytes())
        self.raw.write(mark, _offset(self.file, "index/state"))
        if self._power:
            self.raw.sync()
        self.file.close()


class _Growing:
    """A column in a file. Unless it is compressed, its values are written without HDF5."""

    def __init__(
        self, dataset: Any, column: Column, plan: Plan, raw: RawFile, slots: Sequence[int]
    ) -> None:
        self.column = column
        self.length = 0  # along the first axis: blocks, or rows of a table
        self._id = dataset.id
        self._shape = dataset.shape[1:]
        self._raw = raw
        self._slots = slots  # offsets of both lists of its chunks
        self._node_bytes = (plan.chunks + 1) * (24 + 8 * dataset.ndim) + 1024
        self._chunk = -1
        self._offset = 0

    @property
    def room(self) -> int:
        """Rows that can be added to a table; other columns are limited by the plan's capacity."""
        return self.column.slots * self.column.chunk - self.length

    def nbytes_for(self, rows: int) -> int:
        """Maximum number of bytes by which the file grows when rows are added."""
        column, items = self.column, self.column.items or 1
        if column.compression:
            chunks = rows * column.tiles
        else:
            first, last = self.length * items, (self.length + rows) * items
            chunks = -(-last // column.chunk) - -(-first // column.chunk)
        node = self._node_bytes if chunks and not self.length else 0
        return chunks * column.chunk * column.nbytes + node

    def put(self, pieces: Pieces, counts: np.ndarray) -> list[list[int]]:
        """Write items of blocks, or the rows that they add to a table; returns their checksums.

        Args:
            pieces: The items.
            counts: How many of them each block has.
        """
        column = self.column
        start = self.length * (column.items or 1)
        if column.items:
            self._extend(len(counts))
        checks: list[list[int]] = [[] for _ in counts]
        for piece in pieces:
            values = np.ascontiguousarray(piece, column.dtype)
            if not column.items:
                self._extend(len(values))
            sizes = counts.tolist() if len(counts) > 1 else [len(values)]
            for all_of, some in zip(checks, _checksums(values, column.unit, sizes), strict=True):
                all_of += some
            if column.compression:
                self._compress(values, start)
            else:
                self._write(values, start)
            start += len(values)
        return checks

    def _extend(self, rows: int) -> None:
        if rows:
            self.length += rows
            self._id.set_extent((self.length, *self._shape))

    def _write(self, values: np.ndarray, start: int) -> None:
        column = self.column
        while len(values):
            chunk, within = divmod(start, column.chunk)
            if chunk != self._chunk:
                first = chunk * column.chunk // (column.items or 1)
                self._offset = self._find(chunk, (first,))
                self._chunk = chunk
            count = column.chunk - within
            self._raw.write(values[:count], self._offset + within * column.nbytes)
            values, start = values[count:], start + count

    def _compress(self, values: np.ndarray, start: int) -> None:
        column = self.column
        while len(values):
            block, env_index = divmod(start, column.items)
            some = values[: column.items - env_index]
            shape = (1, *some.shape)
            space = self._id.get_space()
            space.select_hyperslab((block, env_index, *(0,) * len(column.shape)), shape)
            self._id.write(h5py.h5s.create_simple(shape), space, some)
            self._find(block * column.tiles + env_index // column.chunk, (block, env_index))
            values, start = values[len(some) :], start + len(some)

    def _find(self, slot: int, start: tuple[int, ...]) -> int:
        """The offset of a chunk in the file, which is also written to our own lists."""
        whole = (*start, *(0,) * (1 + len(self._shape) - len(start)))
        info = self._id.get_chunk_info_by_coord(whole)
        entry: Any = np.zeros(1, CHUNK_DTYPE)
        entry["at"], entry["size"], entry["mask"] = info.byte_offset, info.size, info.filter_mask
        entry["check"] = chunk_check(entry.tobytes(), slot)
        for copy in self._slots:
            self._raw.write(entry, copy + slot * entry.itemsize)
        return info.byte_offset


def _checksums(values: np.ndarray, unit: int, counts: Sequence[int]) -> list[list[int]]:
    """Checksums of values, of which blocks have these counts."""
    if not unit or not len(values):
        return [[] for _ in counts]
    content = values.reshape(-1).view(np.uint8).data
    size = len(content) // len(values)
    found, first = [], 0
    for count in counts:
        last = first + count
        found.append(
            [
                crc32(content[at * size : min(at + unit, last) * size])
                for at in range(first, last, unit)
            ]
        )
        first = last
    return found


def _offset(file: h5py.File, name: str) -> int:
    dataset: Any = file[name]
    return dataset.id.get_offset()
