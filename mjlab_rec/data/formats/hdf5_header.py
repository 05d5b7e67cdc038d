"""The header of a recording in HDF5, which is found without the HDF5 library.

HDF5 finds data by a chain of addresses, and one wrong byte in any of them can make the whole file
unreadable or crash the library. So our reader does not use it. At two fixed offsets that HDF5 does
not use there are locators; each one points to a copy of the header, a JSON text with the offset of
everything else. The places of data that is added later are in lists of fixed size.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.episode_table import model_kinds
from mjlab_rec.data.formats.hdf5_layout import (
    CHUNK_DTYPE,
    STATE_DTYPE,
    Layout,
    Plan,
)
from mjlab_rec.data.schema import FORMAT_VERSION, ChannelSpec, DataError, RunInfo
from mjlab_rec.data.values import check_count, check_dtype

MARK = b"mjlab_rec blocks"
PLACES = (1024, 1536)
END = 2048  # bytes that are read to find the header

_LOCATOR = struct.Struct("<16sIQQI")  # mark, version, offset and size of the header, its checksum
_CHECK = struct.Struct("<I")
_MOST = 1 << 40  # an upper limit of all counts and sizes


@dataclass(kw_only=True)
class Header:
    """The description of a file, without data that is added later."""

    info: RunInfo
    run: str
    part: int  # number within the run
    attachments: dict[str, tuple[int, int, int]]  # offset, size, checksum
    state: int  # offset of the state of the file
    plan: Plan | None = None  # None: there are no columns yet
    index: int = 0  # offset of the list of blocks
    chunks: int = 0  # offset of the list of chunks
    problems: list[str] = field(default_factory=list)
    described: tuple[int, int] = (0, 0)  # size and checksum of the text up to the end of `info`

    def dump(self) -> bytes:
        """The text that ``load`` reads."""
        data: dict[str, Any] = {
            "info": self.info.to_json(),
            "run": self.run,
            "part": self.part,
            "attachments": self.attachments,
            "state": self.state,
        }
        if self.plan is not None:
            layout = self.plan.layout
            data["plan"] = {
                "rows": layout.rows,
                "packed": layout.packed,
                "values": {name: dtype.str for name, dtype in layout.values.items()},
                "model": {n: [dtype.str, shape] for n, (dtype, shape) in layout.model.items()},
                "capacity": self.plan.capacity,
                "columns": [[c.chunk, c.unit, c.slots, c.compression] for c in self.plan.columns],
                "index": self.index,
                "chunks": self.chunks,
            }
        return json.dumps(data).encode()


def locators(headers: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """The locators at the fixed offsets, for copies of the header and their offsets."""
    found = {}
    for place, (at, text) in zip(PLACES, headers, strict=True):
        locator = _LOCATOR.pack(MARK, FORMAT_VERSION, at, len(text), crc32(text))
        found[place] = locator + _CHECK.pack(crc32(locator))
    return found


def is_ours(start: bytes) -> bool:
    """Whether a file is a recording, by its first ``END`` bytes."""
    return any(start[place : place + len(MARK)] == MARK for place in PLACES)


def stored_end(start: bytes) -> int:
    """The size of a file according to HDF5, by its first ``END`` bytes; 0 if it is not known.

    The HDF5 library does not open a file that is smaller.
    """
    if len(start) < 96 or start[8] > 1:  # newer superblocks are not ours
        return 0
    _, _, end = struct.unpack_from("<3Q", start, 24 + 4 * start[8])
    return end


def load(
    read: Callable[[int, int], bytes], size: int, path: Path, like: Header | None = None
) -> Header:
    """Load the header of a file.

    Args:
        read: Reads from the file; takes an offset and a size.
        size: The size of the file.
        path: The file, for messages.
        like: The header of another part, whose description is shared if this one has the same.
    """
    start = read(0, min(END, size))
    texts, problems, versions = [], [], set()
    for copy, place in enumerate(PLACES, 1):
        locator = start[place : place + _LOCATOR.size]
        check = start[place + _LOCATOR.size : place + _LOCATOR.size + _CHECK.size]
        what = f"'{path}': copy {copy} of its header"
        if len(check) < _CHECK.size or _CHECK.pack(crc32(locator)) != check:
            problems.append(f"{what} cannot be found.")
            continue
        mark, version, at, length, expected = _LOCATOR.unpack(locator)
        versions.add(version)
        if mark != MARK or at + length > size:
            problems.append(f"{what} is cut off.")
            continue
        text = read(at, length)
        if crc32(text) == expected:
            texts.append(text)
        else:
            problems.append(f"{what} is damaged.")
    if versions and FORMAT_VERSION not in versions:
        raise DataError(
            f"'{path}' was recorded in format version {versions.pop()}, but this mjlab_rec reads"
            f" version {FORMAT_VERSION}."
        )
    if not texts and not is_ours(start):
        raise DataError(
            f"'{path}' was not recorded by mjlab_rec, or another program rewrote it: it has no"
            " header of a recording."
        )
    if not texts:
        raise DataError(f"'{path}' is damaged. {' '.join(problems)}")
    with damage(f"The header of '{path}'", path):
        header = _parse(texts[0], size, like)
    header.problems = problems
    return header


def _parse(text: bytes, size: int, like: Header | None) -> Header:
    if like is not None and like.described[0] and like.described == _start(text, like.described[0]):
        described = like.described
        data = json.loads(b"{" + text[described[0] :])
        # Each run has attached files of its own.
        info = like.info if data["run"] == like.run else replace(like.info, attachments={})
    else:
        data, described = _split(text)
        info = RunInfo.from_json(data["info"])
    attachments = {}
    for name, numbers in data["attachments"].items():
        at, length, check = map(_count, numbers)
        _within(at, length, size, f"the attached file '{name:.100}'")
        attachments[str(name)] = (at, length, check)
    header = Header(
        info=info,
        run=str(data["run"]),
        part=_count(data["part"]),
        attachments=attachments,
        state=_count(data["state"]),
        described=described,
    )
    _within(header.state, STATE_DTYPE.itemsize, size, "its state")
    if "plan" in data:
        plan = data["plan"]
        header.index, header.chunks = _count(plan.pop("index")), _count(plan.pop("chunks"))
        header.plan = _plan(info.channels, info.envs, json.dumps(plan))
        index = header.plan.capacity * header.plan.index_dtype.itemsize
        _within(header.index, index, size, f"the list of {header.plan.capacity} blocks")
        chunks = 2 * header.plan.slots * CHUNK_DTYPE.itemsize
        _within(header.chunks, chunks, size, f"the list of {header.plan.slots} chunks")
    return header


def _split(text: bytes) -> tuple[dict[str, Any], tuple[int, int]]:
    """The data of a header, and the size and checksum of its text up to the end of `info`."""
    begin, end = b'{"info": ', b", "
    if text.startswith(begin) and text.isascii():
        info, at = json.JSONDecoder().raw_decode(text.decode(), len(begin))
        if text[at : at + len(end)] == end:
            at += len(end)
            return {**json.loads(b"{" + text[at:]), "info": info}, _start(text, at)
    return json.loads(text), (0, 0)


def _start(text: bytes, size: int) -> tuple[int, int]:
    return size, crc32(memoryview(text)[:size])


@functools.lru_cache(maxsize=64)
def _plan(channels: tuple[ChannelSpec, ...], envs: tuple[int, ...], text: str) -> Plan:
    """The plan with this text, which many parts of many recordings share."""
    data = json.loads(text)
    layout = Layout(
        info=RunInfo(channels=channels, envs=envs, step_dt=0.0),
        rows=_count(data["rows"], 1),
        packed=bool(data["packed"]),
        values={name: check_dtype(text, name) for name, text in data["values"].items()},
        model=model_kinds(data["model"], "its plan"),
    )
    columns = list(layout.columns())
    for column, numbers in zip(columns, data["columns"], strict=True):
        chunk, unit, slots, compression = numbers
        column.chunk = _count(chunk, 1)
        column.unit = _count(unit, column.table not in layout.streams.values())
        column.slots, column.compression = _count(slots), compression
        if compression not in (None, "gzip", "lzf"):
            raise ValueError(f"the compression {compression!r:.20}")
        if column.items:
            whole = compression is not None or column.chunk % column.items == 0
            if not whole or column.unit > column.items or (compression and chunk != unit):
                raise ValueError(f"chunks of {chunk} items in '{column.path}'")
    return Plan(layout=layout, columns=columns, capacity=_count(data["capacity"]))


def _count(value: Any, least: int = 0) -> int:
    return check_count(value, "A number", least, _MOST)


def _within(at: int, length: int, size: int, what: str) -> None:
    if at + length > size:
        raise ValueError(f"{what} would end at byte {at + length}, but the file ends at {size}")
