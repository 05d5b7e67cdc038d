"""The columns of an HDF5 file of a recording, their chunks, and the number of blocks that fit."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.formats.segments import END_DTYPE
from mjlab_rec.data.pictures.encoding import ENTRY_DTYPE
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

ENV_DTYPE = np.dtype(
    [("first_episode", "<i4"), ("first_step", "<i4"), ("total", "<f8"), ("recorded", "<f8")]
)
MODEL_DTYPE = np.dtype([("env_index", "<i4"), ("episode", "<i4")])
# The place of a chunk in the file. "mask" is not zero if it is not compressed.
CHUNK_DTYPE = np.dtype([("at", "<u8"), ("size", "<u4"), ("mask", "<u4"), ("check", "<u4")])
# The state of a file: 0 open, 1 the recording continues in the next part, 2 it is finished.
STATE_DTYPE = np.dtype([("state", "<i4"), ("blocks", "<i4"), ("check", "<u4")])
OPEN, CONTINUED, FINISHED = range(3)

_MOST_CHUNKS = 1024  # of a dataset
_MOST_TILES = 8192  # of a compressed dataset, which has several chunks per block
_FEWEST_CHUNKS = 16
_FEWEST_TILES = 256  # if blocks cannot share a chunk, so that short episodes do not fill a part
_NODES = 64 << 10  # bytes of B-tree nodes of the first part; the next ones have more
_ENTRY = 56 + 2 * CHUNK_DTYPE.itemsize  # bytes of a chunk in a B-tree node and in our lists
_SMALL = 64 << 10  # bytes of all chunks of a block below which several blocks share them
_TILE = 512 << 10  # bytes of a compressed chunk, all of which reading a row must decompress
_CHECKED = 16 << 10  # bytes of a channel with a common checksum: what reading a row must read
_CHECKED_ROWS = 4 << 10  # the same for a table
_RATIO = 8  # about how many times smaller encoded pictures are
_PICTURES = (64 << 10, 16 << 20)  # least and most bytes of a chunk of encoded pictures
_HDF5_LIMIT = (4 << 30) - 1  # bytes of a chunk


@dataclass(kw_only=True)
class Column:
    """A dataset that grows with each block: by a fixed number of items, or as a table by any."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...] = ()  # of an item
    items: int = 0  # of a block; 0: it is a table
    table: str = ""  # key of the number of items that a block adds to a table
    axes: tuple[str, ...] = ()
    spec: ChannelSpec | None = None  # the channel that it stores
    compression: str | None = None
    chunk: int = 1  # items of a chunk
    unit: int = 1  # items that share a checksum; 0: there are none, because entries have them
    slots: int = 0  # maximum number of chunks

    @property
    def nbytes(self) -> int:
        """Bytes of an item."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def tiles(self) -> int:
        """Chunks of a block, if it is compressed."""
        return -(-self.items // self.chunk)

    def checks(self, items: Any) -> Any:
        """Number of checksums for a number of items, or for several numbers."""
        return -(-items // self.unit) if self.unit else 0 * items


@dataclass(kw_only=True)
class Layout:
    """The quantities that have a column.

    Writers and readers derive the columns from it, so the type and shape of a column always match
    those of the channel.
    """

    info: RunInfo
    rows: int  # of a full block
    packed: bool = False  # whole episodes one after another, as if of a single environment
    values: Mapping[str, np.dtype] = field(default_factory=dict)
    model: Mapping[str, tuple[np.dtype, tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_envs = 1 if self.packed else len(self.info.envs)
        self.specs: Sequence[ChannelSpec] = self.info.channels if self.packed else self.info.stored
        chained = () if self.packed else self.info.chained
        self.chained = [spec for spec in self.specs if spec.name in chained]
        self.paths = dataset_paths(spec.name for spec in self.info.channels)
        self.value_paths = dataset_paths(self.values)
        self.streams = {
            spec.name: f"encoded/{self.paths[spec.name]}"
            for spec in self.specs
            if spec.codec and not spec.next_of
        }
        """The table of the bytes of each channel with encoded pictures. Its other columns hold
        entries that refer to them, and so do those of its next values."""

    def covers(self, other: Layout) -> bool:
        """Whether it has all columns of another layout."""
        return (
            other.values.keys() <= self.values.keys() and other.model.items() <= self.model.items()
        )

    def joined(self, other: Layout) -> Layout:
        """A layout with the columns of both."""
        values, model = {**other.values, **self.values}, {**other.model, **self.model}
        return replace(self, values=values, model=model)

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        row = sum(_nbytes(spec) for spec in self.specs)
        tail = sum(_nbytes(spec) for spec in self.chained)
        return self.num_envs * (self.rows * row + tail + ENV_DTYPE.itemsize) + 8 * self.rows

    def columns(self) -> Iterator[Column]:
        """All columns, without chunks; those with a fixed number of items per block come first.

        The checksums of a block are in this order, in the last column.
        """
        env = "env_index"
        for spec in self.specs:
            yield Column(
                path=f"blocks/{self.paths[spec.name]}",
                dtype=_kind(spec)[0],
                shape=(self.rows, *_kind(spec)[1]),
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
                dtype=_kind(spec)[0],
                shape=_kind(spec)[1],
                items=self.num_envs,
                axes=("block", env, *_axes(spec)),
                spec=spec,
            )
        ends = {"table": "ends", "axes": ("end",)}
        yield Column(path="ends", dtype=END_DTYPE, **ends)
        for spec in self.chained:
            yield Column(
                path=f"final/{self.paths[spec.name]}",
                dtype=_kind(spec)[0],
                shape=_kind(spec)[1],
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
        for spec in self.specs:
            if path := self.streams.get(spec.name):
                byte = np.dtype("u1")
                yield Column(path=path, dtype=byte, table=path, axes=("byte",), spec=spec)
        yield Column(path="index/checks", dtype=np.dtype("<u4"), table="checks", axes=("checksum",))


@dataclass(kw_only=True)
class Storage:
    """Options of storage."""

    compression: str | None
    roll_over_bytes: int
    blocks: int = 0  # of the recording, if that is known
    most_chunks: int = _MOST_CHUNKS


@dataclass(kw_only=True)
class Plan:
    """The columns of a file with their chunks, and the number of blocks that fit."""

    layout: Layout
    columns: list[Column]
    capacity: int
    chunks: int = 0  # capacity of a B-tree node

    @functools.cached_property
    def slots(self) -> int:
        """Maximum number of chunks of all columns."""
        return sum(column.slots for column in self.columns)

    @functools.cached_property
    def index_dtype(self) -> np.dtype:
        """A row of the list of blocks."""
        return index_dtype(self.layout)

    @functools.cached_property
    def by_path(self) -> dict[str, Column]:
        """The columns by path."""
        return {column.path: column for column in self.columns}

    @functools.cached_property
    def tables(self) -> list[Column]:
        """The columns that are tables."""
        return [column for column in self.columns if not column.items]

    @functools.cached_property
    def ahead(self) -> dict[str, tuple[int, int]]:
        """By path of a column: chunks of the columns before it, and checksums of a block's items
        there, except those of tables.
        """
        found, slots, checks = {}, 0, 0
        for column in self.columns:
            found[column.path] = slots, checks
            slots, checks = slots + column.slots, checks + column.checks(column.items)
        return found

    def checks(self, needs: Mapping[str, int]) -> int:
        """Number of checksums of a block that adds these rows to the tables."""
        return sum(c.checks(c.items or needs.get(c.table, 0)) for c in self.columns[:-1])


def make_plan(
    layout: Layout, storage: Storage, part: int = 0, needs: Mapping[str, int] | None = None
) -> Plan:
    """Choose the chunks of all columns.

    `part` is the number of the file. `needs` is the number of rows that the next block adds to each
    table.
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
        encoded = column.spec is not None and bool(column.spec.codec)
        if column.table in layout.streams.values():
            column.unit = 0
        if column.items:
            column.unit = min(column.unit, items)
            column.chunk = group * items
        if compressed and column.path.startswith("blocks/") and not encoded:
            # Chunks are never shared: compressing one again would move it, and a kill could lose
            # it.
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
    # Adding a chunk writes a whole node, and the first block creates all nodes.
    nodes = max(_NODES, size * group // 8) << min(2 * part, 20)
    affordable = nodes // (len(columns) * tiles * _ENTRY + group * index_dtype(layout).itemsize)
    known = -(-storage.blocks // group)
    most = min(storage.most_chunks, _MOST_TILES // tiles, max(affordable, fewest, known))
    chunks = min(most, max(fewest, storage.roll_over_bytes // (size * group) + 1))
    plan = Plan(layout=layout, columns=columns, capacity=chunks * group, chunks=chunks * tiles)
    more = {"checks": plan.checks({c.table: max(1, needs.get(c.table, 0)) for c in columns})}
    for column in columns:
        column.slots = chunks * (column.tiles if column.compression else 1)
        if column.path == "index/step":
            column.chunk = max(group, 128) * column.items
        if not column.items:
            # It grows by any number of rows; its chunks are large enough for all blocks.
            rows = max(256, min(layout.num_envs, size // (8 * column.nbytes)))
            if column.table == "checks":
                rows = max(rows, more["checks"] * group)
            elif column.table in layout.streams.values():
                assert column.spec is not None
                raw = layout.num_envs * layout.rows * column.spec.nbytes
                rows = min(max(group * raw // _RATIO, _PICTURES[0]), _PICTURES[1])
            elif column.table != "ends":
                rows = min(256, max(1, _SMALL // max(column.nbytes, 1)))
            column.chunk = max(rows, -(-{**needs, **more}.get(column.table, 0) // chunks))
    return plan


def index_dtype(layout: Layout) -> np.dtype:
    """A block: its rows, rows lost before it, and first row and number of rows in each table.

    "check" is the checksum of the block's checksums, "own" that of this row.
    """
    models = len(layout.model)
    tables = [("first_model", "<i8", (models,)), ("models", "<i4", (models,))] if models else []
    if streams := len(layout.streams):
        tables += [("first_encoded", "<i8", (streams,)), ("encoded", "<i8", (streams,))]
    counts = [("rows", "<i4"), ("gap", "<i4"), ("first_end", "<i8"), ("ends", "<i4"), *tables]
    checks = [("first_check", "<i8"), ("checks", "<i4"), ("check", "<u4"), ("own", "<u4")]
    # "done" comes last, so an incomplete write does not set it.
    return np.dtype([*counts, *checks, ("done", "i1")])


def own_check(row: bytes, dtype: np.dtype, number: int) -> int:
    """The checksum of a row of the index, which depends on the block's number."""
    assert dtype.fields is not None
    return crc32(row[: dtype.fields["own"][1]] + row[-1:], number)


def chunk_check(entry: bytes, slot: int) -> int:
    """The checksum of a chunk's place, which depends on its slot."""
    return crc32(entry[:-4], slot)


def state_check(state: bytes) -> int:
    """The checksum of a file's state."""
    return crc32(state[:-4])


def _kind(spec: ChannelSpec) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of a value in a column."""
    return (ENTRY_DTYPE, ()) if spec.codec else (spec.dtype, spec.shape)


def _nbytes(spec: ChannelSpec) -> int:
    """Bytes of a value in a file, for encoded ones an estimate."""
    return ENTRY_DTYPE.itemsize + spec.nbytes // _RATIO if spec.codec else spec.nbytes


def _axes(spec: ChannelSpec) -> list[str]:
    if spec.codec:
        return []
    if len(spec.shape) == 1:
        return ["element"]
    return [f"axis {axis}" for axis in range(len(spec.shape))]
