"""A recording in HDF5 survives a kill between any two writes to its file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from test_data_hdf5 import World, as_episode, make_info

from mjlab_rec.data.formats import hdf5_layout
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader, Hdf5Writer
from mjlab_rec.data.schema import Block, ModelRows

PAGE = 4096


class RecordingFile:
    """A file in memory that logs each write."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.position = 0
        self.log: list[tuple[int, bytes | None]] = []  # offset and content; None: cut off there

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, len(self.content))[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: memoryview) -> int:
        n = max(0, min(len(buffer), len(self.content) - self.position))
        buffer[:n] = self.content[self.position : self.position + n]
        self.position += n
        return n

    def read(self, size: int) -> bytes:
        """Required by h5py."""
        raise NotImplementedError

    def write(self, data: bytes) -> int:
        # HDF5 fails badly if there is no room for its writes.
        assert self.position + len(data) <= len(self.content)
        self._apply(self.position, bytes(data))
        self.position += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self.position if size is None else size
        self._apply(size, None)
        return size

    def flush(self) -> None:
        pass

    def reserve(self, size: int) -> None:
        if size > len(self.content):
            self._apply(size - 1, b"\0")

    def write_at(self, values: np.ndarray, offset: int) -> None:
        self._apply(offset, values.tobytes())

    def _apply(self, offset: int, data: bytes | None) -> None:
        self.log.append((offset, data))
        apply(self.content, offset, data)


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    end = offset if data is None else offset + len(data)
    if end > len(content):
        content.extend(bytes(end - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:end] = data


class RecordedWriter(Hdf5Writer):
    """Writes every part to a recording file."""

    most_chunks = 72

    def _place(self, path: Path, content: bytes) -> tuple[h5py.File, Any]:
        self.written = getattr(self, "written", [])
        self.target = RecordingFile()
        self.target.reserve(len(content))
        self.target.write(content)
        self.written.append(self.target)
        disk = SimpleNamespace(
            reserve=self.target.reserve,
            write=self.target.write_at,
            drop_cached=lambda: None,
            deleted=False,
        )
        return h5py.File(self.target, "r+", libver="earliest"), disk


def prefixes(log: list, safe: int, whole: set[int], stride: int) -> Iterator[tuple[int, bytes]]:
    """The content of a file if its process dies during or after each write from `safe` on.

    All prefixes that end with a write in `whole`, and every `stride`-th of the others.
    """
    content = bytearray()
    for number, (offset, data) in enumerate(log):
        chosen = number in whole or number % stride == 0
        if number >= safe and chosen and data is not None:
            for page in range((offset // PAGE + 1) * PAGE, offset + len(data), PAGE):
                if (page // PAGE + number) % 11 == 0:  # some of the pages
                    torn = bytearray(content)
                    apply(torn, offset, data[: page - offset])
                    yield number, bytes(torn)
        apply(content, offset, data)
        if number + 1 >= safe and chosen:
            yield number + 1, bytes(content)


def make_blocks(count: int, p_end: float) -> list[Block]:
    world = World(make_info(), rows=8)
    blocks = []
    for number in range(count):
        block = world.block(rows=5 if number % 6 == 4 else None, p_end=p_end)
        env_indices = np.arange(number % 3, dtype=np.int32)
        block.model = ModelRows(
            env_index=env_indices,
            episode=block.first_episode[env_indices],
            fields={"mass": np.ones((len(env_indices), 2))},
        )
        block.ends.values["peak"] = np.full(len(block.ends), float(number))
        blocks.append(block)
    return blocks


@pytest.mark.parametrize("compression, small", [(None, 1), (None, 4000)])
def test_every_block_survives_a_kill_at_any_write(compression, small, tmp_path, monkeypatch):
    """One or several blocks per chunk, and more chunks than fit a default B-tree node."""
    monkeypatch.setattr(hdf5_layout, "_SMALL", small)
    monkeypatch.setattr(hdf5_layout, "_NODES", 1 << 20)
    options = WriterOptions(path=str(tmp_path / "a.h5"), block_rows=8, compression=compression)
    writer = RecordedWriter(make_info(), options)
    blocks = make_blocks(80, p_end=0.1)
    marks: list[list[int]] = []  # of each part: writes after each of its blocks
    held: list[list[Block]] = []
    for block in blocks:
        writer.write(block)
        if len(writer.written) - 1 > len(marks):  # The first had no datasets yet.
            marks.append([])
            held.append([])
        marks[-1].append(len(writer.target.log))
        held[-1].append(block)
    writer.close()
    if small == 1:
        assert [len(part) for part in held] == [72, 8]
    before: list[Block] = []
    killed = tmp_path / "killed.h5"
    for target, marked, expected in zip(writer.written[1:], marks, held, strict=True):
        part = killed.with_name("killed.part001.h5") if before else killed
        # Before its first block, a file has no name.
        near = set(range(marked[0], marked[1])) | set(range(marked[-1], len(target.log)))
        if len(marked) > 65:
            near |= set(range(marked[63], marked[64]))
        for number, content in prefixes(target.log, marked[0], near, 251):
            promised = sum(mark <= number for mark in marked)
            with h5py.File(io.BytesIO(content), "r") as file:
                counted = int(file["index/blocks"]["done"].sum())
                assert counted in (promised, promised + 1)
                for b, block in enumerate(expected[:counted]):
                    if b % 9 == 0 or b > counted - 3:
                        stored = file["blocks/action"][b].swapaxes(0, 1)[: block.rows]
                        np.testing.assert_array_equal(stored, block.arrays["action"])
            if number % 3 == 0 or number in marked:
                part.write_bytes(content)
                check_reader(killed, before + expected[:counted])
        before += expected


def check_reader(path: Path, blocks: list[Block]) -> None:
    """Compare the reader's episodes with the blocks."""
    reader = Hdf5Reader(path)
    table = reader.episodes
    assert table["rows"].sum() == 5 * sum(block.rows for block in blocks)
    names = ("obs/actor", "next_obs/actor")
    found = [reader.read(int(at), names) for at in np.flatnonzero(table["env"] == 30)]
    for name in names:
        pieces = [arrays[name] for arrays in found]
        expected = [block.dense(name)[:, 3] for block in blocks]
        np.testing.assert_array_equal(np.concatenate(pieces), np.concatenate(expected))
    last = table.filter(table["env"] == 20).row(-1, named=True)
    final = blocks[-1]
    if last["number"] not in final.ends.episode[final.ends.env_index == 2]:
        assert last["return"] == pytest.approx(final.total[2])
    known = {
        (10 * env_index, episode)
        for block in blocks
        for env_index, episode in zip(block.ends.env_index, block.ends.episode, strict=True)
    }
    for row in table.iter_rows(named=True):
        assert (row["peak"] is not None) == ((row["env"], row["number"]) in known)
    reader.close()


def test_chosen_episodes_survive_a_kill_at_any_write(tmp_path):
    info = make_info()
    world = World(info, rows=8, seed=3)
    for _ in range(130):
        world.block(p_end=0.02)
    logs = [log for log in world.episodes() if log.ended][:30]
    options = WriterOptions(path=str(tmp_path / "a.h5"), block_rows=1)
    writer = RecordedWriter(info, options)
    marks = []
    for log in logs:
        writer.write_episode(as_episode(log))
        marks.append(len(writer.target.log))
    writer.close()
    _, target = writer.written
    path = tmp_path / "killed.h5"
    for number, content in prefixes(target.log, marks[0], set(range(marks[0], marks[1])), 251):
        path.write_bytes(content)
        reader = Hdf5Reader(path)
        rows = {(e["env"], e["number"]): e["rows"] for e in reader.episodes.to_dicts()}
        promised = sum(mark <= number for mark in marks)
        assert len(rows) in (promised, promised + 1)
        for log in logs[: len(rows)]:
            assert rows[log.env, log.number] == len(log.rows)
        reader.close()
