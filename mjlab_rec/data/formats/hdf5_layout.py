"""What datasets an HDF5 file of a run has, and how many blocks fit into it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.formats.blocks import END_DTYPE
from mjlab_rec.data.formats.hdf5_file import put_text
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

MODEL_DTYPE = np.dtype([("lane", "<i4"), ("episode", "<i4")])

_MOST_CHUNKS = 1024  # of a dataset
_MOST_TILES = 8192  # of a compressed dataset, whose blocks are cut into several chunks
_FEWEST_CHUNKS = 16
_FEWEST_TILES = 256  # where blocks cannot share a chunk, so that short episodes fill no part
_NODES = 64 << 10  # bytes of B-tree nodes that any file may have, the next part four times as many
_ENTRY = 56  # bytes of a chunk in a B-tree node
_SMALL = 64 << 10  # bytes of all chunks of a block below which several blocks share them
_UNIT = 512 << 10  # bytes of a compressed chunk: what reading a single row must unpack
_HDF5_LIMIT = (4 << 30) - 1  # bytes of a chunk


@dataclass(kw_only=True)
class Layout:
    """What there is a dataset for."""

    info: RunInfo
    lanes: int
    rows: int  # of a full block
    specs: Sequence[ChannelSpec]  # channels that have a dataset of their own
    chained: Sequence[ChannelSpec] = ()
    values: Mapping[str, np.dtype] = field(default_factory=dict)
    model: Mapping[str, tuple[np.dtype, tuple[int, ...]]] = field(default_factory=dict)
    packed: bool = False

    def __post_init__(self) -> None:
        self.paths = dataset_paths(spec.name for spec in self.info.channels)
        self.value_paths = dataset_paths(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        row = sum(spec.nbytes for spec in self.specs)
        tail = sum(spec.nbytes for spec in self.chained)
        return self.lanes * (self.rows * row + tail + 24) + 8 * self.rows


@dataclass(kw_only=True)
class Storage:
    """How a file is stored, whatever its layout."""

    compression: str | None
    roll_over_bytes: int
    most_chunks: int = _MOST_CHUNKS


@dataclass(kw_only=True)
class Column:
    """A dataset that grows along its first axis."""

    path: str
    shape: tuple[int, ...]  # of a row
    dtype: np.dtype
    chunk: tuple[int, ...]
    table: str = ""  # what says how many rows a block adds; "": one
    compression: str | None = None

    def make(self, file: h5py.File) -> None:
        """Make the dataset, without any rows."""
        more: dict[str, Any] = {"compression": self.compression}
        if self.compression is None:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            # A chunk has its place from when the dataset has grown, and nobody else writes to it.
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            more["dcpl"] = plist
        shape, most = (0, *self.shape), (None, *self.shape)
        file.create_dataset(self.path, shape, self.dtype, maxshape=most, chunks=self.chunk, **more)


class Plan:
    """What datasets a file has, and how many blocks fit into it.

    `part` is the number of the file within its run. `needs` tells how many rows the next block adds
    to a side table.
    """

    def __init__(
        self,
        layout: Layout,
        storage: Storage,
        part: int = 0,
        needs: Mapping[str, int] | None = None,
    ) -> None:
        self.layout = layout
        size = layout.nbytes
        units = dict.fromkeys((spec.name for spec in layout.specs), 1)
        group, fewest = 1, _FEWEST_CHUNKS  # blocks that share a chunk; chunks of a file
        if storage.compression is None:
            group = max(1, min(_SMALL // size, 256))
        else:
            # A chunk that is compressed again moves within the file, and a kill would lose it.
            for spec in layout.specs:
                channel = layout.lanes * layout.rows * spec.nbytes
                units[spec.name] = max(1, min(64, layout.lanes, -(-channel // _UNIT)))
            fewest = max(fewest, _FEWEST_TILES // max(units.values(), default=1))
        tiles = max(units.values(), default=1)
        count = 6 + len(units) + 2 * (len(layout.chained) + len(layout.model)) + len(layout.values)
        # Whole nodes are written whenever a chunk is added, and the first block brings all of them.
        nodes = max(_NODES, size * group // 8) << min(2 * part, 20)
        affordable = nodes // (count * tiles * _ENTRY + group * index_dtype(layout).itemsize)
        most = min(storage.most_chunks, _MOST_TILES // tiles, max(affordable, fewest))
        chunks = min(most, max(fewest, storage.roll_over_bytes // (size * group) + 1))
        self.capacity = chunks * group
        self.chunks = chunks * tiles
        self.columns = list(self._columns(storage, group, units, chunks, needs or {}))

    def _columns(
        self,
        storage: Storage,
        group: int,
        units: Mapping[str, int],
        chunks: int,
        needs: Mapping[str, int],
    ) -> Iterator[Column]:
        layout = self.layout
        lanes, rows = layout.lanes, layout.rows

        def column(
            path: str, shape: tuple[int, ...], dtype: Any, chunk: int, **more: Any
        ) -> Column:
            chunks = (chunk, *shape)
            return Column(path=path, shape=shape, dtype=np.dtype(dtype), chunk=chunks, **more)

        def table(path: str, shape: tuple[int, ...], dtype: Any, least: int, of: str) -> Column:
            # It grows by any number of rows, and its chunks are so large that they suffice.
            return column(path, shape, dtype, max(least, -(-needs.get(of, 0) // chunks)), table=of)

        for spec in layout.specs:
            chunk = (group, -(-lanes // units[spec.name]), rows, *spec.shape)
            if math.prod(chunk) * spec.dtype.itemsize > _HDF5_LIMIT:
                raise DataError(
                    f"A block of {rows} rows of {lanes} environments is too large for HDF5 in"
                    f" channel '{spec.name}'. Record fewer rows per block."
                )
            yield Column(
                path=f"blocks/{layout.paths[spec.name]}",
                shape=(lanes, rows, *spec.shape),
                dtype=spec.dtype,
                chunk=chunk,
                compression=storage.compression,
            )
        yield column("index/step", (rows,), np.int64, max(group, 128))
        for name in ("first_episode", "first_step"):
            yield column(f"index/{name}", (lanes,), np.int32, group)
        for name in ("total", "recorded"):
            yield column(f"index/{name}", (lanes,), np.float64, group)
        yield table("ends", (), END_DTYPE, 256, "ends")
        for spec in layout.chained:
            path = layout.paths[spec.name]
            yield column(f"tail/{path}", (lanes, *spec.shape), spec.dtype, group)
            yield table(f"final/{path}", spec.shape, spec.dtype, 256, "ends")
        for name, dtype in layout.values.items():
            yield table(f"values/{layout.value_paths[name]}", (), dtype, 256, "ends")
        for name, (dtype, shape) in layout.model.items():
            path, size = f"model_fields/{name}", math.prod(shape) * dtype.itemsize
            least = min(256, max(1, _SMALL // max(size, 1)))
            yield table(f"{path}/value", shape, dtype, least, path)
            yield table(f"{path}/where", (), MODEL_DTYPE, 256, path)

    def make(self, file: h5py.File) -> None:
        """Make all datasets."""
        for column in self.columns:
            column.make(file)
        index = np.zeros(self.capacity, index_dtype(self.layout))
        # This one is laid out in advance, so that it can be read whatever else is being written.
        file.create_dataset("index/blocks", data=index)
        put_text(file, "index/model_fields", json.dumps(list(self.layout.model)))
        put_text(file, "index/values", json.dumps(list(self.layout.values)))


def index_dtype(layout: Layout) -> np.dtype:
    """A block: its rows, rows lost before it, and how long the side tables are after it."""
    models = len(layout.model)
    counts = [("model", "<i4", (models,))] if models else []
    # "done" comes last: a write that was cut off has not set it.
    return np.dtype([("rows", "<i4"), ("gap", "<i4"), ("ends", "<i4"), *counts, ("done", "i1")])


def write_header(file: h5py.File, info: RunInfo, *, run: str, part: int, packed: bool) -> None:
    """Write what a file says about itself."""
    file.attrs["format"] = "mjlab_rec"
    file.attrs["run"] = run
    file.attrs["part"] = part
    file.attrs["packed"] = packed
    put_text(file, "info", json.dumps(info.to_json()))
    for name, content in info.attachments.items():
        file.create_dataset(f"attachments/{name}", data=np.frombuffer(content, np.uint8))
