"""One HDF5 file of a run: how blocks get into it so that a kill cannot hurt it.

Each flush of HDF5 is a series of writes to the file, and a process may die between any two of them.
The file is readable after each one as long as no object is created and no B-tree node is split. So
all datasets are there before the first block, a B-tree node is made large enough for all chunks of
the file, and the file is finished before they are used up. HDF5 only says where chunks lie: values
are written there beside it, before the file knows of their chunk. A block counts once its row in
``index/blocks`` says so, which is written when everything else of the block is in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.formats.hdf5_file import Disk
from mjlab_rec.data.formats.hdf5_layout import Column, Plan

_TILE = (
    4 << 20
)  # bytes put in the order of the file at once: what a cache holds, in few system calls
_SLACK = 16 << 10  # bytes that HDF5 may take besides chunks and nodes


class Part:
    """An HDF5 file that is open for writing, with the datasets of a plan, if it has one yet."""

    def __init__(self, file: h5py.File, disk: Disk, plan: Plan | None) -> None:
        self.file = file
        self.plan = plan
        self.blocks = 0
        self._disk = disk
        self._growing: dict[str, _Growing] = {}
        if plan is not None:
            index: Any = file["index/blocks"]
            self._index, self._index_dtype = index.id.get_offset(), index.dtype
            for column in plan.columns:
                self._growing[column.path] = _Growing(file[column.path], column, disk, plan.chunks)

    def fits(self, needs: Mapping[str, int]) -> bool:
        """Whether there is room for another block and so many rows in the side tables."""
        assert self.plan is not None
        return self.blocks < self.plan.capacity and all(
            each.room >= needs.get(each.column.table, 0) for each in self._growing.values()
        )

    def reserve(self, blocks: int, needs: Mapping[str, int]) -> None:
        """Make sure that the disk has room for so much; if it has not, the file stays as it is."""
        more = sum(
            each.nbytes_for(needs.get(each.column.table, 0) if each.column.table else blocks)
            for each in self._growing.values()
        )
        if more:
            self._disk.reserve(self.nbytes + more + _SLACK)

    def extend(self, path: str) -> int:
        """Make room for a block in a channel; returns how many lanes are best put at once."""
        self._growing[path].extend(1)
        return self._growing[path].lanes

    def put(self, path: str, lane: int, values: np.ndarray) -> None:
        """Write some lanes of the block that a channel was last extended by."""
        self._growing[path].put(lane, values)

    def append(self, path: str, values: np.ndarray) -> None:
        """Write rows after those that are there."""
        self._growing[path].append(values)

    def commit(self, rows: np.ndarray, gap: np.ndarray) -> None:
        """Make blocks count whose channels and index were put. They survive from then on."""
        assert self.plan is not None
        self.file.flush()
        index: Any = np.ones(len(rows), self._index_dtype)
        index["rows"], index["gap"] = rows, gap
        index["ends"] = self._growing["ends"].length
        for number, name in enumerate(self.plan.layout.model):
            index["model"][:, number] = self._growing[f"model_fields/{name}/where"].length
        self._disk.write(index, self._index + self.blocks * index.itemsize)
        self.blocks += len(rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.file.id.get_filesize()

    def leave(self) -> None:
        """Close the file as it is: nothing that was not committed gets into it."""
        self._disk.leave()
        self.file.close()

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


class _Growing:
    """A column in a file. Unless it is compressed, HDF5 never sees its values."""

    def __init__(self, dataset: Any, column: Column, disk: Disk, chunks: int) -> None:
        self.column = column
        self.length = 0
        self._id = dataset.id
        self._disk = disk
        self._rows = column.chunk[0]
        self._most = chunks * self._rows
        self._row_bytes = math.prod(column.shape) * column.dtype.itemsize
        tiles = [
            -(-size // tile) for size, tile in zip(column.shape, column.chunk[1:], strict=True)
        ]
        # Of all chunks side by side.
        self._chunk_bytes = math.prod([*tiles, *column.chunk]) * column.dtype.itemsize
        self._node_bytes = (chunks + 1) * (24 + 8 * dataset.ndim) + 1024
        self._chunk = -1
        self._offset = 0

    @property
    def room(self) -> int:
        """Rows that can be added; for a channel the plan's capacity counts instead."""
        return self._most - self.length

    def nbytes_for(self, rows: int) -> int:
        """Bytes that the file grows by when so many rows are added, at most."""
        chunks = -(-(self.length + rows) // self._rows) - -(-self.length // self._rows)
        node = self._node_bytes if chunks and not self.length else 0
        return chunks * self._chunk_bytes + node

    @property
    def lanes(self) -> int:
        """Lanes of a block that are best put at once."""
        if self.column.compression is not None:
            return self.column.chunk[1]
        return max(1, _TILE * self.column.shape[0] // self._row_bytes)

    def extend(self, rows: int) -> None:
        self.length += rows
        self._id.set_extent((self.length, *self.column.shape))

    def put(self, lane: int, values: np.ndarray) -> None:
        row = self.length - 1
        if self.column.compression is not None:
            self._compress((row, lane), values[None])
            return
        at = self._place(row) + self._row_bytes // self.column.shape[0] * lane
        self._disk.write(values, at)

    def append(self, values: np.ndarray) -> None:
        if not len(values):
            return
        values = np.ascontiguousarray(values, self.column.dtype)
        start = self.length
        self.extend(len(values))
        if self.column.compression is not None:
            self._compress((start,), values)
            return
        while len(values):
            count = self._rows - start % self._rows
            self._disk.write(values[:count], self._place(start))
            values, start = values[count:], start + count

    def _compress(self, start: tuple[int, ...], values: np.ndarray) -> None:
        space = self._id.get_space()
        space.select_hyperslab((*start, *(0,) * (values.ndim - len(start))), values.shape)
        self._id.write(h5py.h5s.create_simple(values.shape), space, values)

    def _place(self, row: int) -> int:
        """Where a row lies in the file."""
        chunk, within = divmod(row, self._rows)
        if chunk != self._chunk:
            start = (chunk * self._rows, *(0,) * len(self.column.shape))
            self._chunk, self._offset = chunk, self._id.get_chunk_info_by_coord(start).byte_offset
        return self._offset + within * self._row_bytes
