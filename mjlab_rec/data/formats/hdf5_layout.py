"""What columns an HDF5 file of a run has, how they are cut into chunks, and how many blocks fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.formats.segments import END_DTYPE
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

ENV_DTYPE = np.dtype(
    [("first_episode", "<i4"), ("first_step", "<i4"), ("total", "<f8"), ("recorded", "<f8")]
)
MODEL_DTYPE = np.dtype([("env_index", "<i4"), ("episode", "<i4")])
# Where a chunk lies in the file. "mask" is not zero if its compression was left out.
CHUNK_DTYPE = np.dtype([("at", "<u8"), ("size", "<u4"), ("mask", "<u4"), ("check", "<u4")])
# How a file was left: 0 open, 1 the run goes on in the next part, 2 the recording is finished.
STATE_DTYPE = np.dtype([("state", "<i4"), ("blocks", "<i4"), ("check", "<u4")])
OPEN, CONTINUED, FINISHED = range(3)

_MOST_CHUNKS = 1024  # of a dataset
_MOST_TILES = 8192  # of a compressed dataset, whose blocks are cut into several chunks
_FEWEST_CHUNKS = 16
_FEWEST_TILES = 256  # where blocks cannot share a chunk, so that short episodes fill no part
_NODES = 64 << 10  # bytes of B-tree nodes that any file may have, the next part four times as many
_ENTRY = 56 + 2 * CHUNK_DTYPE.itemsize  # bytes of a chunk in a B-tree node and in our lists
_SMALL = 64 << 10  # bytes of all chunks of a block below which several blocks share them
_TILE = 512 << 10  # bytes of a compressed chunk: what reading a single row must unpack
_CHECKED = 16 << 10  # bytes of a channel that share a checksum: what reading a row must look at
_CHECKED_ROWS = 4 << 10  # the same for a table
_HDF5_LIMIT = (4 << 30) - 1  # bytes of a chunk


@dataclass(kw_only=True)
class Column:
    """A dataset that grows with each block: by the same number of items, or by any as a table."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...] = ()  # of an item
    items: int = 0  # of a block; 0: it is a table
    table: str = ""  # what says how many items a block adds to a table
    axes: tuple[str, ...] = ()
    spec: ChannelSpec | None = None  # whose values it holds
    compression: str | None = None
    chunk: int = 1  # items of a chunk
    unit: int = 1  # items that share a checksum
    slots: int = 0  # chunks that it may have

    @property
    def nbytes(self) -> int:
        """Bytes of an item."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def tiles(self) -> int:
        """Chunks of a block, if it is compressed."""
        return -(-self.items // self.chunk)

    def checks(self, items: int) -> int:
        """Number of checksums of a number of items."""
        return -(-items // self.unit)


@dataclass(kw_only=True)
class Layout:
    """What there is a column for.

    Writers and readers go by it, so that what a file says about the type or shape of a column never
    differs from what it says about the channel.
    """

    info: RunInfo
    rows: int  # of a full block
    packed: bool = (
        False  # whole episodes one after another, stored like those of a single environment
    )
    values: Mapping[str, np.dtype] = field(default_factory=dict)
    model: Mapping[str, tuple[np.dtype, tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_envs = 1 if self.packed else len(self.info.envs)
        self.specs: Sequence[ChannelSpec] = self.info.channels if self.packed else self.info.stored
        chained = () if self.packed else self.info.chained
        self.chained = [spec for spec in self.specs if spec.name in chained]
        self.paths = dataset_paths(spec.name for spec in self.info.channels)
        self.value_paths = dataset_paths(self.values)

    def covers(self, other: Layout) -> bool:
        """Whether there is a column for all that the other has one for."""
        return (
            other.values.keys() <= self.values.keys() and other.model.items() <= self.model.items()
        )

    def joined(self, other: Layout) -> Layout:
        """A layout that has columns for what either has one for."""
        values, model = {**other.values, **self.values}, {**other.model, **self.model}
        return replace(self, values=values, model=model)

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        row = sum(spec.nbytes for spec in self.specs)
        tail = sum(spec.nbytes for spec in self.chained)
        return self.num_envs * (self.rows * row + tail + ENV_DTYPE.itemsize) + 8 * self.rows

    def columns(self) -> Iterator[Column]:
        """All columns, not yet cut into chunks. Those of which every block has as much come first.

        The checksums of a block follow each other in this order, in the last column.
        """
        env = "env_index"
        for spec in self.specs:
            yield Column(
                path=f"blocks/{self.paths[spec.name]}",
                dtype=spec.dtype,
                shape=(self.rows, *spec.shape),
                items=self.num_envs,
                axes=("block", env, "row", *_axes(spec)),
                spec=spec,
            )
        yield Column(
            path="index/step", dtype=np.dtype("<i8"), items=self.rows, axes=("block", "row")
        )
        yield Column(path="index/envs", dtype=ENV_DTYPE, items=self.num_envs, axes=("block", env))
        for spec in self.chained:
            yield Column(
                path=f"tail/{self.paths[spec.name]}",
                dtype=spec.dtype,
                shape=spec.shape,
                items=self.num_envs,
                axes=("block", env, *_axes(spec)),
                spec=spec,
            )
        ends = {"table": "ends", "axes": ("end",)}
        yield Column(path="ends", dtype=END_DTYPE, **ends)
        for spec in self.chained:
            yield Column(
                path=f"final/{self.paths[spec.name]}",
                dtype=spec.dtype,
                shape=spec.shape,
                table="ends",
                axes=("end", *_axes(spec)),
                spec=spec,
            )
        for name, dtype in self.values.items():
            yield Column(path=f"values/{self.value_paths[name]}", dtype=dtype, **ends)
        for name, (dtype, shape) in self.model.items():
            path = f"model_fields/{name}"
            axes = ("change", *(f"axis {axis}" for axis in range(len(shape))))
            yield Column(path=f"{path}/value", dtype=dtype, shape=shape, table=path, axes=axes)
            yield Column(path=f"{path}/where", dtype=MODEL_DTYPE, table=path, axes=axes[:1])
        yield Column(path="index/checks", dtype=np.dtype("<u4"), table="checks", axes=("checksum",))


@dataclass(kw_only=True)
class Storage:
    """How a file is stored, whatever its layout."""

    compression: str | None
    roll_over_bytes: int
    most_chunks: int = _MOST_CHUNKS


@dataclass(kw_only=True)
class Plan:
    """The columns of a file as they are cut into chunks, and how many blocks it has room for."""

    layout: Layout
    columns: list[Column]
    capacity: int
    chunks: int = 0  # that a B-tree node must have room for

    @property
    def slots(self) -> int:
        """Chunks that all columns may have."""
        return sum(column.slots for column in self.columns)

    def checks(self, needs: Mapping[str, int]) -> int:
        """Number of checksums of a block that adds these rows to the tables."""
        return sum(c.checks(c.items or needs.get(c.table, 0)) for c in self.columns[:-1])


def make_plan(
    layout: Layout, storage: Storage, part: int = 0, needs: Mapping[str, int] | None = None
) -> Plan:
    """Cut columns into chunks.

    `part` is the number of the file within its run. `needs` tells how many rows the next block adds
    to a table.
    """
    needs = needs or {}
    columns, size = list(layout.columns()), layout.nbytes
    compressed = storage.compression is not None
    group, fewest = 1, _FEWEST_CHUNKS  # blocks that share a chunk; chunks of a file
    if not compressed:
        group = max(1, min(_SMALL // size, 256))
    for column in columns:
        items = column.items or 1
        least = _CHECKED if column.items else _CHECKED_ROWS
        column.unit = max(1, least // max(1, column.nbytes))
        if column.items:
            column.unit = min(column.unit, items)
            column.chunk = group * items
        if compressed and column.path.startswith("blocks/"):
            # A chunk that is compressed again moves within the file, and a kill would lose it.
            tiles = max(1, min(64, items, -(-items * column.nbytes // _TILE)))
            column.compression = storage.compression
            column.chunk = column.unit = -(-items // tiles)
        if column.chunk * column.nbytes > _HDF5_LIMIT:
            raise DataError(
                f"A block of {layout.rows} rows of {layout.num_envs} environments is too large for"
                f" HDF5 in '{column.path}'. Record fewer rows per block."
            )
    tiles = max((c.tiles for c in columns if c.compression), default=1)
    if compressed:
        fewest = max(fewest, _FEWEST_TILES // tiles)
    # Whole nodes are written whenever a chunk is added, and the first block brings all of them.
    nodes = max(_NODES, size * group // 8) << min(2 * part, 20)
    affordable = nodes // (len(columns) * tiles * _ENTRY + group * index_dtype(layout).itemsize)
    most = min(storage.most_chunks, _MOST_TILES // tiles, max(affordable, fewest))
    chunks = min(most, max(fewest, storage.roll_over_bytes // (size * group) + 1))
    plan = Plan(layout=layout, columns=columns, capacity=chunks * group, chunks=chunks * tiles)
    more = {"checks": plan.checks({c.table: max(1, needs.get(c.table, 0)) for c in columns})}
    for column in columns:
        column.slots = chunks * (column.tiles if column.compression else 1)
        if column.path == "index/step":
            column.chunk = max(group, 128) * column.items
        if not column.items:
            # It grows by any number of rows, and its chunks are so large that they suffice.
            rows = max(256, min(layout.num_envs, size // (8 * column.nbytes)))
            if column.table == "checks":
                rows = max(rows, more["checks"] * group)
            elif column.table != "ends":
                rows = min(256, max(1, _SMALL // max(column.nbytes, 1)))
            column.chunk = max(rows, -(-{**needs, **more}.get(column.table, 0) // chunks))
    return plan


def index_dtype(layout: Layout) -> np.dtype:
    """A block: its rows, rows lost before it, where its rows of the tables begin, and how many.

    "check" is that of the block's checksums, "own" that of this row.
    """
    models = len(layout.model)
    tables = [("first_model", "<i8", (models,)), ("models", "<i4", (models,))] if models else []
    counts = [("rows", "<i4"), ("gap", "<i4"), ("first_end", "<i8"), ("ends", "<i4"), *tables]
    checks = [("first_check", "<i8"), ("checks", "<i4"), ("check", "<u4"), ("own", "<u4")]
    # "done" comes last: a write that was cut off has not set it.
    return np.dtype([*counts, *checks, ("done", "i1")])


def own_check(row: bytes, dtype: np.dtype, number: int) -> int:
    """The checksum of a row of the index, which holds for the block of that number only."""
    assert dtype.fields is not None
    return crc32(row[: dtype.fields["own"][1]] + row[-1:], number)


def chunk_check(entry: bytes, slot: int) -> int:
    """The checksum of where a chunk lies, which holds for that slot of a column only."""
    return crc32(entry[:-4], slot)


def state_check(state: bytes) -> int:
    """The checksum of how a file was left."""
    return crc32(state[:-4])


def _axes(spec: ChannelSpec) -> list[str]:
    if len(spec.shape) == 1:
        return ["element"]
    return [f"axis {axis}" for axis in range(len(spec.shape))]
