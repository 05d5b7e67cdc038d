"""A file next to a recording of many parts, from which it is opened without opening each part.

The recorder adds a record whenever a part is complete, and joins them when the recording is closed.
It is not needed: what it lacks is read from the parts, and it is left out if a part was changed.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.files import index_path
from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_chunks import Chunk, chunk_of, joined
from mjlab_rec.data.formats.hdf5_header import Header
from mjlab_rec.data.formats.hdf5_layout import ENV_DTYPE, MODEL_DTYPE, Layout
from mjlab_rec.data.formats.hdf5_stored import Cache, OpenFiles
from mjlab_rec.data.formats.segments import END_DTYPE
from mjlab_rec.data.schema import ChannelSpec, DataError

_LOG = logging.getLogger(__name__)

_MARK = b"mjlab_rec index\n"
_MOST_BYTES = 256 << 20
_LOADED = 256  # parts whose columns are known at a time
_NUMBERS = ("counts", "block", "rows", "gap", "ended")


@dataclass(kw_only=True)
class Record:
    """Consecutive parts of a run."""

    run: str
    layout: int  # checksum of the layout
    first: int  # number of the first part
    names: list[str]
    sizes: list[int]
    state: int  # of the last part
    chunk: Chunk


class IndexedParts:
    """The parts of a record. Each is opened when something of it is read.

    Args:
        folder: Their folder.
        record: The record.
        header: The header of a part of the run.
        check: Whether to compare checksums.
        files: Where files stay open for a while.
        cache: Values that were read and checked.
    """

    lost: Mapping[int, str] = MappingProxyType({})
    missing = ""
    problems: Sequence[str] = ()

    def __init__(
        self,
        folder: Path,
        record: Record,
        header: Header,
        check: bool,
        files: OpenFiles,
        cache: Cache,
    ) -> None:
        self.folder, self.record, self.header, self.check = folder, record, header, check
        self.files, self.cache = files, cache
        self.run, self.number, self.state = record.run, record.first, record.state
        self.path, self.info = folder / record.names[0], header.info
        self.layout: Layout | None = None if header.plan is None else header.plan.layout
        self.blocks = range(len(record.chunk.block))
        self.closed = False

    @functools.cached_property
    def parts(self) -> list[IndexedPart]:
        """The parts."""
        counts = self.record.chunk.counts.tolist()
        return [IndexedPart(self, at, count) for at, count in enumerate(counts)]

    def close(self) -> None:
        """Close the files. May be called twice."""
        self.closed = True
        for part in vars(self).get("parts", ()):
            if (opened := self.cache.parts.pop(part, None)) is not None:
                opened.close()


class IndexedPart:
    """A part that is known from the index."""

    __slots__ = ("_at", "_count", "shared")  # There may be very many of them.

    def __init__(self, shared: IndexedParts, at: int, count: int) -> None:
        self.shared, self._at, self._count = shared, at, count

    @property
    def path(self) -> Path:
        """The file."""
        return self.shared.folder / self.shared.record.names[self._at]

    @property
    def number(self) -> int:
        """Its number in the run."""
        return self.shared.number + self._at

    @property
    def blocks(self) -> range:
        """The blocks that can be read."""
        return range(self._count)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.loaded(), name)

    def loaded(self) -> StoredPart:
        """The part, opened."""
        shared = self.shared
        known = shared.cache.parts
        part = known.get(self)
        if part is None:
            if shared.closed:
                raise DataError(f"'{self.path}' was closed. Open the recording again.")
            part = StoredPart(
                self.path,
                shared.check,
                shared.files,
                shared.cache,
                first=1 << 62,
                attached=False,
                like=shared.header,
            )
            if (part.run, part.number, len(part.index)) != (shared.run, self.number, self._count):
                raise DataError(
                    f"'{self.path}' was replaced. Remove '{index_path(self.path).name}' and the"
                    " like, which describe an older recording, and open it again."
                )
            known[self] = part
            while len(known) > _LOADED:
                try:
                    known.popitem(last=False)
                except KeyError:  # Another thread was faster.
                    break
        return part


def add_part(first: Path, file: Path) -> None:
    """Add a complete part to the index of the recording that begins with `first`."""
    part = StoredPart(file)
    try:
        if not part.blocks or part.layout is None:
            return
        if part.lost or part.missing or part.problems:
            return
        record = Record(
            run=part.run,
            layout=layout_check(part.layout),
            first=part.number,
            names=[file.name],
            sizes=[file.stat().st_size],
            state=part.state,
            chunk=chunk_of(part),
        )
    finally:
        part.close()
    with open(index_path(first), "ab") as stream:
        if stream.tell() < _MOST_BYTES:
            stream.write(_dumped(record))


def join_records(first: Path) -> None:
    """Join the records of consecutive parts, so that they are read at once."""
    records = _load(index_path(first))
    together: list[list[Record]] = []
    for record in records:
        last = together[-1][-1] if together else None
        if last is not None and (last.run, last.layout, last.first + len(last.names)) == (
            record.run,
            record.layout,
            record.first,
        ):
            together[-1].append(record)
        else:
            together.append([record])
    content = b"".join(_dumped(_joined(some)) for some in together)
    plain_files.replace(index_path(first), content, sync=False)


def read_index(first: Path) -> dict[str, Record]:
    """The records by the name of their first part, without those that do not fit the files."""
    found: dict[str, Record] = {}
    folder = os.fspath(first.parent)
    try:
        for record in _load(index_path(first)):
            try:
                sizes = [os.stat(f"{folder}/{name}").st_size for name in record.names]
            except FileNotFoundError:
                continue
            if sizes == record.sizes:
                found[record.names[0]] = record
    except (OSError, DataError) as error:
        _LOG.debug("%s: %s", index_path(first), error)
    return found


def layout_check(layout: Layout) -> int:
    """A checksum of the quantities that have a column."""
    values = {name: dtype.str for name, dtype in layout.values.items()}
    model = {name: [dtype.str, list(shape)] for name, (dtype, shape) in layout.model.items()}
    facts = [layout.rows, layout.packed, layout.num_envs, values, model]
    return crc32(json.dumps(facts).encode(), _channels_check(layout.info.channels))


@functools.lru_cache(maxsize=16)
def _channels_check(channels: Sequence[ChannelSpec]) -> int:
    return crc32(json.dumps([spec.to_json() for spec in channels]).encode())


def _joined(records: Sequence[Record]) -> Record:
    first, last = records[0], records[-1]
    return Record(
        run=first.run,
        layout=first.layout,
        first=first.first,
        names=[name for record in records for name in record.names],
        sizes=[size for record in records for size in record.sizes],
        state=last.state,
        chunk=joined([record.chunk for record in records]),
    )


def _dumped(record: Record) -> bytes:
    chunk = record.chunk
    arrays = {name: getattr(chunk, name).astype("<i8") for name in _NUMBERS}
    arrays |= {"step": chunk.step.astype("<i8"), "envs": chunk.envs, "ends": chunk.ends}
    arrays |= {f"values/{name}": values.astype("<f8") for name, values in chunk.values.items()}
    for name, (where, counts) in chunk.changes.items():
        arrays |= {f"where/{name}": where, f"changes/{name}": counts.astype("<i8")}
    about = {
        **{name: value for name, value in vars(record).items() if name != "chunk"},
        "arrays": {name: array.shape for name, array in arrays.items()},
    }
    text = json.dumps(about).encode()
    body = len(text).to_bytes(8, "little") + text
    body += b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return _MARK + len(body).to_bytes(8, "little") + body + crc32(body).to_bytes(4, "little")


def _load(path: Path) -> list[Record]:
    """The complete records of a file; nothing if there is no such file."""
    if not os.path.lexists(path):
        return []
    content = memoryview(plain_files.read(path, most=2 * _MOST_BYTES, follow=False))
    records, at = [], 0
    while content[at : at + len(_MARK)] == _MARK:
        at += len(_MARK)
        size = int.from_bytes(content[at : at + 8], "little")
        body, at = content[at + 8 : at + 8 + size], at + 8 + size + 4
        if at > len(content) or crc32(body) != int.from_bytes(content[at - 4 : at], "little"):
            break  # The process ended while it was written.
        try:
            records.append(_parsed(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"'{path}' is no index of a recording: {error}") from error
    return records


def _parsed(body: memoryview) -> Record:
    size = int.from_bytes(body[:8], "little")
    about, at = json.loads(bytes(body[8 : 8 + size])), 8 + size
    arrays: dict[str, np.ndarray] = {}
    kinds = {"envs": ENV_DTYPE, "ends": END_DTYPE, "values": np.dtype("<f8"), "where": MODEL_DTYPE}
    for name, shape in about.pop("arrays").items():
        dtype = kinds.get(name.partition("/")[0], np.dtype("<i8"))
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    values = {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith("values/")}
    changes = {
        name.partition("/")[2]: (array, arrays[f"changes/{name.partition('/')[2]}"])
        for name, array in arrays.items()
        if name.startswith("where/")
    }
    plain = {name: arrays[name] for name in (*_NUMBERS, "step", "envs", "ends")}
    return Record(**about, chunk=Chunk(**plain, values=values, changes=changes))
