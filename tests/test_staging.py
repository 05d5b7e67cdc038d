"""When blocks are handed over to the writer, and how fast they are written."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from mjlab_rec.data.block_memory import BlockMemory, BlockShape
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader, Hdf5Writer
from mjlab_rec.data.schema import Block, ChannelSpec, RunInfo
from mjlab_rec.data.staging import Staging
from mjlab_rec.data.worker import Worker

REWARD = ChannelSpec(name="reward", dtype=np.dtype("float32"))
INFO = RunInfo(channels=(REWARD,), envs=(0, 1), step_dt=0.1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Recording:
    """Records a row per second, and notes the steps and the pace of each block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, seconds: float = 1e9) -> None:
        self.clock = Clock()
        self.blocks: list[list[int]] = []
        self.moments: list[float] = []
        monkeypatch.setattr("mjlab_rec.data.staging._LARGE", 0)
        monkeypatch.setattr(Worker, "pause_until", lambda _, moment: self.moments.append(moment))
        shape = BlockShape(rows=rows, ends=8)
        self.staging = Staging(
            INFO, shape, "cpu", 3, "block", self.work, "Recorder", seconds, self.clock
        )

    def work(self, block: Block) -> None:
        self.blocks.append(block.step.tolist())
        for done in (0.5, 1.0):
            block.pace(done)

    def take(self, step: int, seconds: float) -> None:
        self.clock.now += seconds
        self.staging.check()
        if not self.staging.has_room(0):
            self.staging.hand_over()
            self.staging.flush()
        self.staging.begin_step()
        self.staging.commit(step)


def test_an_old_block_is_handed_over_though_it_is_not_full(monkeypatch):
    recording = Recording(monkeypatch, rows=10, seconds=5.0)
    for step in range(12):
        recording.take(step, seconds=2.0)
    recording.staging.finish()
    assert recording.blocks == [[0, 1], [2, 3, 4], [5, 6, 7], [8, 9, 10], [11]]


def test_a_block_is_written_while_the_next_one_fills(monkeypatch):
    recording = Recording(monkeypatch, rows=2)
    for step in range(5):
        recording.take(step, seconds=1.0)
    # Two seconds between blocks; the first block begins with the recording.
    assert recording.moments == pytest.approx([3 + 1.0, 3 + 2.0, 5 + 0.7, 5 + 1.4])
    recording.staging.finish()


def test_a_block_takes_no_longer_than_two_seconds(monkeypatch):
    recording = Recording(monkeypatch, rows=1)
    recording.take(0, seconds=0.0)
    recording.take(1, seconds=100.0)
    recording.take(2, seconds=0.01)
    assert recording.moments == pytest.approx([101.0, 102.0, 100.0135, 100.017])
    recording.staging.finish()


def test_a_small_block_is_written_at_once(monkeypatch):
    recording = Recording(monkeypatch, rows=1)
    monkeypatch.setattr("mjlab_rec.data.staging._LARGE", 1 << 20)
    recording.take(0, seconds=1.0)
    recording.take(1, seconds=1.0)
    assert recording.moments == [2.0, 2.0]
    recording.staging.finish()


def test_hdf5_reports_how_much_of_a_block_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5._TILE", 64)
    image = ChannelSpec(name="image", dtype=np.dtype("uint8"), shape=(4, 4))
    info = RunInfo(channels=(REWARD, image), envs=tuple(range(2048)), step_dt=0.1)
    shares: list[float] = []
    shape = BlockShape(rows=8, ends=8)
    path = tmp_path / "a.h5"
    writer = Hdf5Writer(info, WriterOptions(path=str(path), block_rows=8))

    def work(block: Block) -> None:
        block.pace = shares.append
        writer.write(block)

    staging = Staging(info, shape, "cpu", 2, "block", work, "Recorder")
    for step in range(8):
        staging.begin_step()
        staging.commit(step)
    staging.finish()
    writer.close()
    assert len(shares) > 10
    assert shares == sorted(shares) and 0.8 < shares[-1] <= 1.0
    assert Hdf5Reader(path).verify() == []


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice")
def test_a_long_recording_drops_its_page_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5_file._RECENT", 40_000)
    reported: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, at, size, advice: reported.append((at, size, advice))
    )
    path = tmp_path / "a.h5"
    sizes: list[int] = []
    writer = Hdf5Writer(INFO, WriterOptions(path=str(path), block_rows=4000))

    def work(block: Block) -> None:
        writer.write(block)
        sizes.append(path.stat().st_size)

    staging = Staging(INFO, BlockShape(rows=4000, ends=8), "cpu", 2, "block", work, "Recorder")
    for step in range(5 * 4000):
        if not staging.has_room(0):
            staging.hand_over()
        staging.begin_step()
        staging.commit(step)
    staging.finish()
    writer.close()
    assert len(sizes) == len(reported) == 5
    for size, (at, length, advice) in zip(sizes, reported, strict=True):
        assert advice == os.POSIX_FADV_DONTNEED
        assert at >= 0 and at + length == size - 40_000 and length <= 80_000


def test_memory_of_a_block_is_zero_aligned_and_its_own():
    one, other = (
        BlockMemory(INFO, BlockShape(rows=5, ends=8), torch.device("cpu")) for _ in range(2)
    )
    for memory in (one, other):
        assert not memory.all.any() and memory.all.data_ptr() % 64 == 0
    one.channels["reward"].fill_(3.0)
    assert one.channels["reward"].shape == (5, 2) and not other.all.any()
