"""Read data of an HDF5 file by offset, and compare it with its checksums.

Nothing is mapped into memory and the HDF5 library is not used, so a file that is truncated while it
is read, or was manipulated, leads to a clear error.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.formats.hdf5_header import END, PLACES
from mjlab_rec.data.formats.hdf5_layout import Column, Plan, chunk_check
from mjlab_rec.data.schema import DataError

if TYPE_CHECKING:
    from mjlab_rec.data.formats.hdf5_blocks import StoredPart

_DENSEST = 1100  # maximum compression ratio, for all compressions
_CACHE_BYTES = 32 << 20  # bytes of values in a reader's cache


class OpenFiles:
    """The files that stay open: those that were read last. Any number of readers may share them.

    A file that is dropped from here is closed once no thread reads it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._recent: OrderedDict[StoredFile, _Descriptor] = OrderedDict()

    def get(self, file: StoredFile) -> _Descriptor | None:
        """The descriptor of a file; None if it is not open."""
        found = self._recent.get(file)
        if found is not None:
            try:
                self._recent.move_to_end(file)
            except KeyError:  # Another thread dropped it.
                pass
        return found

    def keep(self, file: StoredFile, descriptor: _Descriptor) -> None:
        """Keep a file open, and drop those that were not read for the longest time."""
        # Each of these operations is atomic, so no lock is needed, which a forked process could
        # inherit while it is held.
        if self._most:
            self._recent[file] = descriptor
        while len(self._recent) > self._most:
            with contextlib.suppress(KeyError):
                self._recent.popitem(last=False)

    def drop(self, file: StoredFile) -> None:
        """Keep a file open no longer."""
        self._recent.pop(file, None)


class _Descriptor:
    """An open file, which is closed with the last reference to it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Any = os.close) -> None:  # `os` may be gone when Python ends.
        close(self.number)


class StoredFile:
    """A file that is read by offset, also in forked and spawned processes.

    It is opened when it is read, so that a recording may have more parts than a process can have
    open files.

    Args:
        path: The file.
        files: Where it stays open for a while.
    """

    def __init__(self, path: Path, files: OpenFiles) -> None:
        self.path = path
        self.files = files
        self._absolute = path.absolute()
        self._closed = False
        descriptor = self._opened()
        self.size = os.fstat(descriptor.number).st_size
        self._locators = self._read_locators(descriptor)
        files.keep(self, descriptor)

    def read(self, at: int, size: int) -> bytes:
        """Read bytes at an offset."""
        if at + size > self.size:
            raise self._cut_off(at + size)
        descriptor = self._descriptor()
        content = plain_files.read_at(descriptor.number, self.path, at, size)
        if len(content) < size:
            raise self._cut_off(at + size)
        return content

    def update_size(self) -> None:
        """Update the size of the file."""
        descriptor = self._descriptor()  # It stays open as long as there is a reference.
        self.size = os.fstat(descriptor.number).st_size

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._closed = True
        self.files.drop(self)

    def _descriptor(self) -> _Descriptor:
        found = self.files.get(self)
        if found is None:
            found = self._opened()
            # The locators never change and differ between files.
            if self._read_locators(found) != self._locators:
                raise DataError(f"'{self.path}' was replaced after it was opened. Open it again.")
            self.files.keep(self, found)
        return found

    def _opened(self) -> _Descriptor:
        if self._closed:
            raise DataError(f"'{self.path}' was closed. Open the recording again.")
        return _Descriptor(plain_files.opened(self._absolute))

    def _read_locators(self, descriptor: _Descriptor) -> bytes:
        return plain_files.read_at(descriptor.number, self.path, PLACES[0], END - PLACES[0])

    def _cut_off(self, end: int) -> DataError:
        return DataError(
            f"'{self.path}' ends before byte {end}: it was cut off. Other episodes may be complete."
        )


class Cache:
    """A cache of values that were read and checked, and of parts that were opened."""

    def __init__(self) -> None:
        self.parts: OrderedDict[Any, StoredPart] = OrderedDict()
        self._values: dict[Any, np.ndarray] = {}
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, key: Any) -> np.ndarray | None:
        """Cached values, or None."""
        return self._values.get(key)

    def put(self, key: Any, values: np.ndarray) -> None:
        """Add values, and drop the oldest ones if the cache is too large."""
        # A process that was forked while another thread held the lock must not wait for it.
        if values.nbytes > _CACHE_BYTES // 4 or not self._lock.acquire(blocking=False):
            return
        try:
            old = self._values.pop(key, None)
            self._values[key] = values
            self._nbytes += values.nbytes - (0 if old is None else old.nbytes)
            while self._nbytes > _CACHE_BYTES:
                self._nbytes -= self._values.pop(next(iter(self._values))).nbytes
        finally:
            self._lock.release()


class StoredColumns(Mapping[str, "StoredColumn"]):
    """The columns of a file by path. Each is made when it is first used."""

    def __init__(self, blocks: StoredPart, plan: Plan) -> None:
        self._blocks, self._plan = blocks, plan
        self._made: dict[str, StoredColumn] = {}

    def __getitem__(self, path: str) -> StoredColumn:
        found = self._made.get(path)
        if found is None:
            found = StoredColumn(self._blocks, self._plan.by_path[path])
            found = self._made.setdefault(path, found)  # Another thread may have been faster.
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.by_path)

    def __len__(self) -> int:
        return len(self._plan.by_path)


class StoredColumn:
    """A column of a file, read in units: the items that share a checksum.

    Args:
        blocks: The blocks of the file.
        column: Description of the column.
    """

    def __init__(self, blocks: StoredPart, column: Column) -> None:
        self.column = column
        self._blocks = blocks
        self._file = blocks.file
        chunks = blocks.chunks(column, 0)
        if wrong := _wrong_entries(chunks):
            chunks, other = chunks.copy(), blocks.chunks(column, 1)
            chunks[wrong] = other[wrong]
            chunks[[slot for slot in _wrong_entries(other) if slot in wrong]] = 0
        size, most = chunks["size"].astype(np.int64), column.chunk * column.nbytes
        packed = (chunks["mask"] == 0) & (column.compression is not None)
        possible = np.where(packed, _DENSEST * size >= most, size == most)
        possible &= chunks["at"] < 1 << 60
        # 0 if both copies of an entry are damaged.
        self._at = np.where(possible, chunks["at"], 0).astype(np.int64)
        self._size, self._packed = size, packed

    def items(self, block: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items of a block: an array with at least these items, and their places in it.

        The array must not be changed.
        """
        size = self.column.unit
        if len(numbers) == 1:
            unit, within = divmod(int(numbers[0]), size)
            return self.unit(block, unit), np.array([within])
        units, which = np.unique(numbers // size, return_inverse=True)
        if 2 * len(units) > self.column.checks(self._blocks.span(self.column, block)[1]):
            return self.block(block), numbers
        values = [self.unit(block, unit) for unit in units.tolist()]
        return np.concatenate(values), which * size + numbers % size

    def unit(self, block: int, number: int) -> np.ndarray:
        """Items of a block that share a checksum."""
        key = self, block, number
        values = self._blocks.cache.get(key)
        if values is None:
            first, (_, count) = number * self.column.unit, self._blocks.span(self.column, block)
            values = self._read_items(block, first, min(self.column.unit, count - first))
            self._blocks.cache.put(key, values)
        return values

    def block(self, block: int) -> np.ndarray:
        """All items of a block."""
        count = self._blocks.span(self.column, block)[1]
        if not self.column.compression:
            return self._read_items(block, 0, count)
        starts = range(0, count, self.column.unit)
        units = [self._read_items(block, at, min(self.column.unit, count - at)) for at in starts]
        return np.concatenate(units)

    def span(self, block: int, first: int, last: int) -> tuple[np.ndarray, int]:
        """The units with the items from `first` to before `last`, and the number of their first.

        Nothing is cached. Several threads may call it.
        """
        size, count = self.column.unit, self._blocks.span(self.column, block)[1]
        first, last = first - first % size, min(last + -last % size, count)
        if not self.column.compression:
            return self._read_items(block, first, last - first), first
        units = [
            self._read_items(block, at, min(size, last - at)) for at in range(first, last, size)
        ]
        return units[0] if len(units) == 1 else np.concatenate(units), first

    def ends(self, first: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Offsets after blocks, given their first items and numbers of items."""
        column = self.column
        if not len(self._at):
            return np.zeros(len(first), np.int64)
        if column.compression:
            tiles = (self._at + self._size).reshape(-1, column.tiles).max(axis=1)
            return tiles[np.minimum(first // column.items, len(tiles) - 1)]
        last = np.maximum(first + count - 1, 0)
        at = self._at[np.minimum(last // column.chunk, len(self._at) - 1)]
        return np.where(count > 0, at + (last % column.chunk + 1) * column.nbytes, 0)

    def content(self, block: int, first: int, count: int) -> bytes:
        """The bytes of items of a block that begin with a unit, without comparing checksums.

        Of a compressed column, at most a unit can be read.
        """
        column = self.column
        if column.compression:
            content = self._unpacked(block * column.tiles + first // column.unit)
            return content[: count * column.nbytes]
        return self.stretch(self._blocks.span(column, block)[0] + first, count)

    def _read_items(self, block: int, first: int, count: int) -> np.ndarray:
        """Read items of a block that begin with a unit."""
        column, content = self.column, self.content(block, first, count)
        for start, damaged in self.wrong(block, first, content):
            raise DataError(self._blocks.damage(column, block, start, damaged))
        return np.frombuffer(content, column.dtype).reshape(count, *column.shape)

    def wrong(self, block: int, first: int, content: bytes) -> Iterator[tuple[int, int]]:
        """First item and number of items of each unit whose checksum differs.

        Args:
            block: The block.
            first: The first item, with which a unit begins.
            content: What was read.
        """
        column, expected = self.column, self._blocks.expected(self.column, block)
        if expected is None:
            return
        size, view = column.unit * column.nbytes, memoryview(content)
        for number, at in enumerate(range(0, len(view), size), first // column.unit):
            piece = view[at : at + size]
            if crc32(piece) != expected[number]:
                yield number * column.unit, len(piece) // column.nbytes

    def stretch(self, start: int, count: int) -> bytes:
        """Read items from one or more chunks, without comparing checksums."""
        column, pieces = self.column, []
        while count:
            slot, within = divmod(start, column.chunk)
            some = min(count, column.chunk - within)
            at = self._place(slot) + within * column.nbytes
            pieces.append(self._file.read(at, some * column.nbytes))
            start, count = start + some, count - some
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _unpacked(self, slot: int) -> bytes:
        wanted = self.column.chunk * self.column.nbytes
        content = self._file.read(self._place(slot), int(self._size[slot]))
        if self._packed[slot]:
            unpack = _inflated if self.column.compression == "gzip" else _lzf
            try:
                content = unpack(content, wanted)
            except (zlib.error, IndexError, ValueError):
                content = b""
        if len(content) != wanted:
            raise DataError(
                f"'{self._file.path}': chunk {slot} of '{self.column.path}' is damaged: it cannot"
                " be decompressed. Other episodes can be read."
            )
        return content

    def _place(self, slot: int) -> int:
        """Offset of a chunk."""
        at = int(self._at[slot]) if slot < len(self._at) else 0
        if not at:
            raise DataError(
                f"'{self._file.path}': chunk {slot} of '{self.column.path}' cannot be found,"
                " because its entry in the list of chunks is damaged. Other episodes can be read."
            )
        return at


def _wrong_entries(chunks: np.ndarray) -> list[int]:
    """The slots in a list of chunks whose checksums are wrong."""
    content, size = chunks.tobytes(), chunks.itemsize
    entries = (content[at : at + size] for at in range(0, len(content), size))
    checks = chunks["check"].tolist()
    return [slot for slot, each in enumerate(entries) if chunk_check(each, slot) != checks[slot]]


def _inflated(content: bytes, size: int) -> bytes:
    """Decompress zlib data, at most one byte too much."""
    return zlib.decompressobj().decompress(content, size + 1)


def _lzf(content: bytes, size: int) -> bytes:
    """Decompress LZF data, at most a little more than `size` bytes."""
    out = bytearray()
    at, end = 0, len(content)
    while at < end and len(out) <= size:
        control = content[at]
        at += 1
        if control < 32:  # that many literal bytes plus one
            out += content[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5  # a copy of earlier bytes
        if length == 7:
            length += content[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - content[at] - 1
        at += 1
        length += 2
        if start < 0:
            raise ValueError("a reference before the beginning")
        piece = out[start : start + length]
        while len(piece) < length:
            piece += piece[: length - len(piece)]
        out += piece
    return bytes(out)
