"""The episode log holds whole lines only, whatever happens to its file."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Block, DataError, Ends, RunInfo
from mjlab_rec.recorders.episode_log import EpisodeLogWriter

INFO = RunInfo(channels=(), envs=(0,), step_dt=0.1)


def make(path: Path, **options: Any) -> EpisodeLogWriter:
    return EpisodeLogWriter(INFO, WriterOptions(path=str(path), **options))


def block(*episodes: int) -> Block:
    """Ends of these episodes."""
    count = len(episodes)
    zeros = np.zeros(count)
    return Block(
        info=INFO,
        rows=count,
        arrays={},
        tail={},
        step=np.arange(count),
        first_episode=np.zeros(1, np.int32),
        first_step=np.zeros(1, np.int32),
        total=np.zeros(1),
        recorded=np.zeros(1),
        ends=Ends(
            env_index=zeros.astype(np.int32),
            row=np.arange(count, dtype=np.int32),
            at=np.arange(count),
            length=np.ones(count, np.int32),
            episode=np.array(episodes, np.int32),
            total=zeros,
            rows=np.ones(count, np.int32),
            recorded=zeros,
            terminated=zeros.astype(bool),
            truncated=zeros.astype(bool),
            success=zeros.astype(np.int8),
            final={},
            values={},
        ),
    )


def episodes(path: Path) -> list[int]:
    """The episodes in the file, each of whose lines must be whole."""
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["episode"] for line in text.splitlines()]


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let files grow to this size only, as if the disk was full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_whole_lines_and_later_ones_are_written(tmp_path):
    path = tmp_path / "a.jsonl"
    writer = make(path)
    writer.write(block(0, 1))
    size = path.stat().st_size
    with room(size + size // 4):
        with pytest.raises(DataError, match="Writing to .*a.jsonl' failed: File too large"):
            writer.write(block(2, 3))
        assert episodes(path) == [0, 1]
        with pytest.raises(DataError, match="File too large"):
            writer.write(block(4))
    writer.write(block(5))
    assert writer.nbytes == path.stat().st_size
    writer.close()
    assert episodes(path) == [0, 1, 5]


def test_a_short_write_is_gone_on_with(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    writer = make(path)
    file = writer._file

    class Short:
        fileno = file.fileno
        close = file.close

        def write(self, data: bytes) -> int:
            return file.write(data[:7])

    monkeypatch.setattr(writer, "_file", Short())
    writer.write(block(0, 1, 2))
    writer.close()
    assert episodes(path) == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 5, 70])
def test_appending_after_a_kill_removes_an_unfinished_line(cut, tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    writer = make(path)
    writer.write(block(0, 1))
    writer.close()
    os.truncate(path, path.stat().st_size - cut)
    writer = make(path, if_exists="append")
    writer.write(block(7))
    writer.close()
    # Of a line that only lacks its end nothing is lost.
    assert episodes(path) == ([0, 1, 7] if cut == 1 else [0, 7])
    assert ("removed the last line" in caplog.text) == (cut > 1)


def test_a_long_unfinished_line_is_removed_too(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    for start in (b"", b'{"episode": 3}\n'):
        path.write_bytes(start + b"{" + b" " * 200_000)
        make(path, if_exists="append").close()
        assert path.read_bytes() == start


def test_a_file_that_is_no_episode_log_is_left_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("my notes")
    for _ in range(2):  # The path is free again after an error.
        with pytest.raises(DataError, match="is not an episode log"):
            make(path, if_exists="append")
    assert path.read_text() == "my notes"
    make(path, if_exists="overwrite").close()


def test_a_file_that_was_removed_is_noticed(tmp_path):
    path = tmp_path / "a.jsonl"
    writer = make(path)
    path.unlink()
    with pytest.raises(DataError, match="was removed while episodes were being written"):
        writer.write(block(0))
    writer.close()


def test_lines_wait_for_the_disk_if_they_must_survive_a_loss_of_power(tmp_path, monkeypatch):
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: waited.append(os.fstat(descriptor).st_size))
    path = tmp_path / "a.jsonl"
    writer = make(path, durability="power")
    assert len(waited) == 2  # The file and its folder.
    writer.write(block(0))
    assert waited[2:] == [path.stat().st_size]
    writer.close()
    writer = make(tmp_path / "b.jsonl")
    writer.write(block(0))
    writer.close()
    assert len(waited) == 3
