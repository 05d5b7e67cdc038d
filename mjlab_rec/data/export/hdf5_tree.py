"""Write HDF5 files with a group for each episode, at the speed of the disk.

Learning libraries want a group with a few datasets for each episode. The HDF5 library takes about a
millisecond to create one, which is many times as long as writing its values. All groups of a
recording have the same objects with the same names, so here their headers are copies of one
template with other addresses and sizes, and the values of many episodes are written at once.

Headers are those of the oldest version of the format, which every HDF5 library can read and change:
version 1 object headers, contiguous datasets, links of an episode in the header of its group, and a
symbol table for the group of all episodes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5t

UNDEFINED = (1 << 64) - 1
_SUPERBLOCK = 96  # bytes
_LEAF_K, _NODE_K = 4, 16  # HDF5's defaults: half the entries of a symbol node and of a B-tree node
# Types of messages in object headers.
_SPACE, _LINKS, _TYPE, _FILL, _LINK, _LAYOUT, _GROUP, _ATTRIBUTE, _TABLE = (
    *(0x01, 0x02, 0x03, 0x05, 0x06, 0x08, 0x0A, 0x0C, 0x11),
)
_ENTRY = np.dtype([("name", "<u8"), ("at", "<u8"), ("cached", "<u8"), ("scratch", "V16")])
_SYMBOLS = np.dtype([("head", "S8"), ("entries", _ENTRY, (2 * _LEAF_K,))])


@dataclass(frozen=True, kw_only=True)
class Values:
    """A dataset of each of E episodes: their items, one episode after another."""

    items: np.ndarray  # (sum of counts, *shape)
    counts: np.ndarray | None = None  # (E,); None: one item each, without an axis for it

    @property
    def kind(self) -> tuple[np.dtype, tuple[int, ...], bool]:
        """What the header of such a dataset depends on."""
        return self.items.dtype, self.items.shape[1:], self.counts is None


class EpisodeFile:
    """Writes a file with a group for each episode. It is no HDF5 file before ``close``.

    Args:
        path: A new file.
        group: The group of all episodes; empty: the root group.
    """

    def __init__(self, path: Path, group: str = "") -> None:
        self._file = open(path, "xb", buffering=0)
        self._group = group
        self._names: list[bytes] = []
        self._places: list[np.ndarray] = []
        self._templates: dict[Any, _Template] = {}
        self._size = 0
        self._write(bytes(_SUPERBLOCK))

    def add(
        self,
        names: Sequence[str],
        datasets: Mapping[str, Values],
        attributes: Mapping[str, np.ndarray],
    ) -> None:
        """Write E episodes.

        Args:
            names: Names of their groups, which must be new, (E,).
            datasets: Their datasets, by path.
            attributes: Values of attributes of their groups, each (E,).
        """
        if not names:
            return
        kinds = {path: values.kind for path, values in datasets.items()}
        types = {name: values.dtype for name, values in attributes.items()}
        key = tuple(kinds.items()), tuple(types.items())
        if key not in self._templates:
            self._templates[key] = _Template(kinds, types)
        template = self._templates[key]
        first = self._size
        at = first + len(template) * len(names)
        places = {}
        for path, values in datasets.items():
            places[path] = at
            at += _padded(values.items.nbytes)
        self._write(_bytes(template.heads(len(names), first, places, datasets, attributes)))
        for values in datasets.values():
            content = _bytes(values.items)
            self._write(content)
            self._write(bytes(_padded(len(content)) - len(content)))
        self._names += [name.encode() for name in names]
        self._places.append(first + len(template) * np.arange(len(names), dtype=np.uint64))

    def close(self) -> None:
        """Write the table of all episodes, and the beginning of the file."""
        places = np.concatenate([np.zeros(0, np.uint64), *self._places])
        root = table, heap = self._symbol_table(self._names, places)
        header = self._header(table, heap)
        if self._group:
            root = self._symbol_table([self._group.encode()], np.array([header], np.uint64))
            header = self._header(*root)
        superblock = b"\x89HDF\r\n\x1a\n" + struct.pack(
            "<8B2HI4Q2Q2I2Q",
            *(0, 0, 0, 0, 0, 8, 8, 0),
            *(_LEAF_K, _NODE_K, 0),
            *(0, UNDEFINED, self._size, UNDEFINED),
            *(0, header, 1, 0, *root),
        )
        self._file.seek(0)
        self._file.write(superblock)
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is, after an error. May be called after ``close``."""
        self._file.close()

    def _write(self, content: Any) -> int:
        """Append content; returns its offset."""
        at, left = self._size, memoryview(content).cast("B")
        self._size += len(left)
        while left:
            left = left[self._file.write(left) :]
        return at

    def _header(self, table: int, heap: int) -> int:
        """Write the header of a group with a symbol table."""
        return self._write(_object([(_TABLE, struct.pack("<2Q", table, heap))]))

    def _symbol_table(self, names: Sequence[bytes], places: np.ndarray) -> tuple[int, int]:
        """Write the names and places of a group's links; returns the offsets of tree and heap."""
        order = sorted(range(len(names)), key=names.__getitem__)
        # A name at 0, the empty one, is the first key of the tree.
        texts = [bytes(8), *(_fill(names[i] + b"\0") for i in order)]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.uint64)
        content = b"".join(texts)
        data = self._write(content)
        no_free_block = 1
        heap = self._write(b"HEAP" + struct.pack("<4x3Q", len(content), no_free_block, data))
        width = 2 * _LEAF_K
        nodes = np.zeros(-(-len(names) // width), _SYMBOLS)
        entries = np.zeros(len(nodes) * width, _ENTRY)
        entries["name"][: len(names)] = offsets[1:-1]
        entries["at"][: len(names)] = places[order]
        nodes["entries"] = entries.reshape(len(nodes), width)
        used = np.full(len(nodes), width)
        used[-1:] = len(names) - width * (len(nodes) - 1)
        nodes["head"] = [b"SNOD" + struct.pack("<BxH", 1, n) for n in used]
        at = self._write(_bytes(nodes)) + nodes.itemsize * np.arange(len(nodes), dtype=np.uint64)
        last = np.append(offsets[:1], offsets[1:-1][np.cumsum(used) - 1])  # names, by key
        return self._tree(at, last), heap

    def _tree(self, children: np.ndarray, keys: np.ndarray) -> int:
        """Write a B-tree of symbol nodes, whose keys are around them; returns its offset."""
        level, width = 0, 2 * _NODE_K
        size = 24 + 8 * (2 * width + 1)
        while True:
            count = max(1, -(-len(children) // width))
            first = self._size
            nodes = []
            for i in range(count):
                some = slice(i * width, (i + 1) * width)
                mine, around = children[some], keys[i * width : (i + 1) * width + 1]
                body = np.zeros(2 * width + 1, "<u8")
                body[: 2 * len(mine) + 1 : 2] = around
                body[1 : 2 * len(mine) : 2] = mine
                left = first + (i - 1) * size if i else UNDEFINED
                right = first + (i + 1) * size if i + 1 < count else UNDEFINED
                head = b"TREE" + struct.pack("<2BH2Q", 0, level, len(mine), left, right)
                nodes.append(head + body.tobytes())
            self._write(b"".join(nodes))
            if count == 1:
                return first
            children = first + size * np.arange(count, dtype=np.uint64)
            keys = np.append(keys[:-1:width], keys[-1:])
            level += 1


@dataclass
class _Group:
    """An object of an episode: a group with its members, or a dataset."""

    members: dict[str, _Group] = field(default_factory=dict)
    dataset: str = ""  # its path, if it is one
    at: int = 0  # offset of its header in the template

    def all(self) -> list[_Group]:
        """This object and everything in it."""
        return [self, *(each for member in self.members.values() for each in member.all())]


class _Template:
    """The headers of all objects of an episode, without what differs between episodes."""

    def __init__(
        self,
        kinds: Mapping[str, tuple[np.dtype, tuple[int, ...], bool]],
        types: Mapping[str, np.dtype],
    ) -> None:
        self._kinds = kinds
        self._lengths: dict[str, int] = {}  # dataset -> offset of its number of items
        self._layouts: dict[str, int] = {}  # dataset -> offset of its address and size
        self._attributes: dict[str, int] = {}  # attribute -> offset of its value
        self._links: list[tuple[int, _Group]] = []
        root = _Group()
        for path in kinds:
            group = root
            *above, name = path.split("/")
            for key in above:
                group = group.members.setdefault(key, _Group())
            group.members[name] = _Group(dataset=path)
        content = bytearray()
        for each in root.all():
            each.at = len(content)
            messages, marks = self._messages(each, types if each is root else {})
            content += _object(messages)
            at = each.at + 16
            for (_, body), mark in zip(messages, marks, strict=True):
                for found, key, offset in mark:
                    found[key] = at + 8 + offset
                at += 8 + _padded(len(body))
            for member, offset in self._members.items():
                self._links.append((offset, each.members[member]))
        self._content = np.frombuffer(bytes(content), np.uint8)

    def __len__(self) -> int:
        return len(self._content)

    def heads(
        self,
        count: int,
        first: int,
        places: Mapping[str, int],
        datasets: Mapping[str, Values],
        attributes: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        """The headers of some episodes, the first one at an offset, (count, bytes) uint8.

        Args:
            count: Number of episodes.
            first: Offset of the first one's header in the file.
            places: Offset of the first one's values in each dataset.
            datasets: The datasets.
            attributes: The attributes.
        """
        heads = np.empty((count, len(self)), np.uint8)
        heads[:] = self._content

        def put(at: int, values: np.ndarray) -> None:
            size = values.dtype.itemsize
            heads[:, at : at + size] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, size)

        starts = first + len(self) * np.arange(count, dtype="<u8")
        for at, member in self._links:
            put(at, starts + np.uint64(member.at))
        for path, (dtype, shape, single) in self._kinds.items():
            counts = datasets[path].counts
            counts = np.ones(count, "<u8") if counts is None else counts.astype("<u8")
            sizes = counts * np.uint64(dtype.itemsize * int(np.prod(shape, dtype=int)))
            ends = np.cumsum(sizes, dtype="<u8") + np.uint64(places[path])
            if not single:
                put(self._lengths[path], counts)
            put(self._layouts[path], np.where(sizes > 0, ends - sizes, np.uint64(UNDEFINED)))
            put(self._layouts[path] + 8, sizes)
        for name, at in self._attributes.items():
            put(at, attributes[name])
        return heads

    def _messages(
        self, group: _Group, types: Mapping[str, np.dtype]
    ) -> tuple[list[tuple[int, bytes]], list[list[tuple[dict[str, int], str, int]]]]:
        """The messages of an object, and for each where which values are in it."""
        self._members: dict[str, int] = {}
        messages: list[tuple[int, bytes]] = []
        marks: list[list[tuple[dict[str, int], str, int]]] = []

        def add(
            kind: int, body: bytes, found: dict[str, int] | None = None, key: str = "", at: int = 0
        ) -> None:
            messages.append((kind, body))
            marks.append([] if found is None else [(found, key, at)])

        if path := group.dataset:
            dtype, shape, single = self._kinds[path]
            lengths = None if single else self._lengths
            add(_SPACE, _space(shape if single else (0, *shape)), lengths, path, 8)
            add(_TYPE, _type(dtype))
            # Allocated late, filled unless the user sets a value, which is the default.
            add(_FILL, struct.pack("<4BI", 2, 2, 2, 1, 0))
            add(_LAYOUT, struct.pack("<2B2Q", 3, 1, 0, 0), self._layouts, path, 2)
            return messages, marks
        add(_LINKS, struct.pack("<2B2Q", 0, 0, UNDEFINED, UNDEFINED))
        # As many links as there are stay in the header, with the default number as the minimum.
        most, least = max(8, len(group.members)), 6
        add(_GROUP, struct.pack("<2B2H", 0, 1, most, least))
        for name in group.members:
            text = name.encode()
            utf8 = 0x10 * (not text.isascii())  # one more byte says that the name is UTF-8
            head = struct.pack("<2B", 1, utf8 | 1) + b"\1" * bool(utf8)
            head += struct.pack("<H", len(text)) + text
            add(_LINK, head + bytes(8), self._members, name, len(head))
        for name, dtype in types.items():
            text, kind, space = name.encode() + b"\0", _type(dtype), _space(())
            head = struct.pack("<2B3H", 1, 0, len(text), len(kind), len(space))
            head += _fill(text) + _fill(kind) + _fill(space)
            add(_ATTRIBUTE, head + bytes(dtype.itemsize), self._attributes, name, len(head))
        return messages, marks


def _object(messages: Sequence[tuple[int, bytes]]) -> bytes:
    """An object header with these messages."""
    body = b"".join(
        struct.pack("<2HB3x", kind, _padded(len(content)), 0) + _fill(content)
        for kind, content in messages
    )
    return struct.pack("<BxH2I4x", 1, len(messages), 1, len(body)) + body


def _space(shape: Sequence[int]) -> bytes:
    """A dataspace of fixed size."""
    return struct.pack("<3B5x", 1, len(shape), 0) + struct.pack(f"<{len(shape)}Q", *shape)


def _type(dtype: np.dtype) -> bytes:
    """The description of a type, as h5py stores it."""
    # Two bytes before it are those of a description outside of a file.
    return h5t.py_create(dtype, logical=True).encode()[2:]


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _fill(content: bytes) -> bytes:
    return content.ljust(_padded(len(content)), b"\0")
