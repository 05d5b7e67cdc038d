"""Files in robomimic's layout while they are written: full disks, readers and forks."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damaged_files import read_all, record
from data_worlds import World, episodes_of, same
from waiting import PATIENCE_S

from mjlab_rec.data.formats import robomimic_reader
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5_file import RawFile
from mjlab_rec.data.formats.robomimic import RobomimicReader, RobomimicWriter
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo


def episodes(seed: int = 0) -> list[Episode]:
    return list(episodes_of(World(num_envs=2, steps=12, model=True, seed=seed)))


def make(path: Path, **options: Any) -> RobomimicWriter:
    return RobomimicWriter(World(num_envs=2).info, WriterOptions(path=str(path), **options))


def check(path: Path, expected: list[tuple[int, Episode]]) -> None:
    """Compare everything that can be read with episodes and their renumbering."""
    reader = RobomimicReader(path)
    assert reader.verify() == []
    keys = reader.episodes.select("env", "number").rows()
    assert keys == sorted((e.env, e.number + offset) for offset, e in expected)
    for offset, episode in expected:
        index = keys.index((episode.env, episode.number + offset))
        arrays = reader.read(index, list(episode.arrays))
        assert all(same(arrays[name], episode.arrays[name]) for name in arrays)
        model = reader.model(index)
        assert all(same(model[name], episode.model[name]) for name in episode.model)
    reader.close()


def finished(path: Path) -> bool:
    reader = RobomimicReader(path)
    reader.close()
    return reader.finished


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_recording_is_finished_only_when_it_was_closed(tmp_path):
    path = tmp_path / "demos.h5"
    first, second, *_ = episodes()
    writer = make(path)
    assert not finished(path)
    writer.write_episode(first)
    assert not finished(path)
    writer.close()
    assert finished(path)
    writer = make(path, if_exists="append", roll_over_bytes=1)
    assert not finished(path)
    writer.write_episode(first)
    writer.write_episode(second)
    assert not finished(path)
    writer.close()
    assert finished(path)
    assert len(writer.files) == 2


def test_appended_episodes_never_repeat_a_number(tmp_path):
    path, expected, offset = tmp_path / "demos.h5", [], 0
    for seed in range(3):
        writer = make(path, if_exists="append")
        new = episodes(seed)
        for episode in new:
            writer.write_episode(episode)
        writer.close()
        expected += [(offset, episode) for episode in new]
        offset += 1 + max(episode.number for episode in new)
    check(path, expected)


def test_appending_to_files_of_other_programs_is_refused(tmp_path):
    path = tmp_path / "demos.h5"
    with h5py.File(path, "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match="Cannot append to .* not recorded by mjlab_rec"):
        make(path, if_exists="append")
    make(path, if_exists="number").close()


def test_episodes_of_other_programs_get_different_numbers(tmp_path):
    for part in range(3):
        name = f"demos.part{part:03d}.h5" if part else "demos.h5"
        with h5py.File(tmp_path / name, "w") as file:
            for number in (0, 3):
                demo = file.create_group(f"data/demo_{number}")
                demo["actions"] = np.full((2, 1), 10 * part + number, np.float32)
    reader = RobomimicReader(tmp_path / "demos.h5")
    assert reader.episodes["number"].to_list() == [0, 3, 4, 5, 6, 7]
    found = [reader.read(index, ["action"])["action"][0, 0] for index in range(6)]
    assert found == [0, 3, 10, 13, 20, 23]
    reader.close()


def test_files_of_another_recording_are_skipped(tmp_path, caplog):
    path = record("robomimic", tmp_path / "demos.h5", World(num_envs=2, steps=6))
    with h5py.File(tmp_path / "demos.part001.h5", "w") as file:
        file.create_group("data/demo_0")["actions"] = np.zeros((2, 1))
    info = RunInfo(channels=(ChannelSpec(name="x", dtype=np.dtype("f4")),), envs=(0,), step_dt=1.0)
    RobomimicWriter(info, WriterOptions(path=str(tmp_path / "other.h5"))).close()
    (tmp_path / "other.h5").rename(tmp_path / "demos.part002.h5")
    reader = RobomimicReader(path)
    assert reader.info.channels == World().info.channels
    assert "are not parts of one recording" in caplog.text
    assert "it has other channels" in caplog.text
    assert len(reader.verify()) == 2
    reader.close()


@pytest.mark.parametrize("method", ["reserve", "write"])
def test_a_full_disk_loses_only_the_episodes_without_room(method, tmp_path, monkeypatch):
    path = tmp_path / "demos.h5"
    first, second, third, *_ = episodes()
    writer = make(path)
    writer.write_episode(first)
    with monkeypatch.context() as patch:
        if method == "reserve":
            patch.setattr(RawFile, "reserve", full)
        else:
            usual = h5py.Group.create_dataset

            def create(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
                return full() if name == "dones" else usual(self, name, *args, **kwargs)

            patch.setattr(h5py.Group, "create_dataset", create)
        for _ in range(2):
            with pytest.raises(DataError, match=r"No space left on device\. Data written"):
                writer.write_episode(second)
    check(path, [(0, first)])
    writer.write_episode(third)
    writer.close()
    check(path, [(0, first), (0, third)])
    assert finished(path)


def test_a_recording_that_was_removed_is_noticed_with_the_next_episode(tmp_path):
    path = tmp_path / "demos.h5"
    writer = make(path)
    writer.write_episode(episodes()[0])
    path.unlink()
    with pytest.raises(DataError, match="removed or replaced while it was being written"):
        writer.write_episode(episodes()[1])
    assert writer.nbytes == 0
    writer.close()


@pytest.mark.parametrize("durability, count", [("kill", 0), ("power", 4)])
def test_with_power_each_episode_waits_for_the_disk(durability, count, tmp_path, monkeypatch):
    calls, usual = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append(1), usual(descriptor))[1])
    writer = make(tmp_path / "demos.h5", durability=durability)
    before = len(calls)
    for episode in episodes()[:3]:
        writer.write_episode(episode)
    writer.close()
    assert len(calls) - before == count
    assert bool(before) == bool(count)


@pytest.mark.parametrize("warm", [False, True])
def test_a_forked_child_can_read(warm, tmp_path):
    path = record("robomimic", tmp_path / "demos.h5", World(num_envs=2, steps=12, model=True))
    reader = RobomimicReader(path)
    expected = [(0, episode) for episode in episodes()]
    check(path, expected)
    if warm:
        read_all(reader)

    def child() -> None:
        keys = [(row["env"], row["number"]) for row in reader._rows]
        for _, episode in expected:
            arrays = reader.read(keys.index((episode.env, episode.number)), list(episode.arrays))
            if not all(same(arrays[name], episode.arrays[name]) for name in arrays):
                os._exit(3)
        os._exit(7 if reader._files[0]._process == os.getpid() else 4)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE_S)
    process.kill()
    assert process.exitcode == 7
    read_all(reader)  # the parent's file is still open
    reader.close()


def grow(path: str, go: Any, was_read: Any) -> None:
    writer = make(Path(path))
    go.set()
    episode = episodes()[0]
    for number in range(100):
        if number == 50:
            assert was_read.wait(PATIENCE_S)
        episode.number = number
        writer.write_episode(episode)
    writer.close()


def test_a_growing_file_is_read_or_refused_with_a_clear_error(tmp_path, monkeypatch):
    """While another process writes, all returned values are correct."""
    monkeypatch.setattr(robomimic_reader, "_PAUSE_S", 0.001)
    path = tmp_path / "demos.h5"
    context = multiprocessing.get_context("spawn")
    go, was_read = context.Event(), context.Event()
    process = context.Process(target=grow, args=(str(path), go, was_read))
    process.start()
    assert go.wait(PATIENCE_S)
    known = episodes()[0].arrays
    opened = 0
    while process.is_alive() or not opened:
        try:
            reader = RobomimicReader(path)
        except DataError:
            continue
        opened += 1
        for index in range(len(reader.episodes))[-3:]:
            try:
                arrays = reader.read(index, ["action", "camera"])
            except DataError:
                continue
            assert same(arrays["action"], known["action"])
            assert same(arrays["camera"], known["camera"])
        reader.close()
        if opened > 3:
            was_read.set()
    process.join()
    assert process.exitcode == 0
    reader = RobomimicReader(path)
    assert len(reader.episodes) == 100
    assert reader.finished
    reader.close()


def test_reading_is_retried_while_a_file_is_written(tmp_path, monkeypatch):
    path = record("robomimic", tmp_path / "demos.h5", World(num_envs=2, steps=12))
    monkeypatch.setattr(robomimic_reader, "_PAUSE_S", 0.0)
    monkeypatch.setattr(robomimic_reader, "_GROWING_S", 1e9)
    reader = RobomimicReader(path)
    whole = path.read_bytes()
    at = whole.index(reader.read(0, ["camera"])["camera"].tobytes())
    reader.close()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    reader = RobomimicReader(path)
    tries = []
    usual = robomimic_reader._File._grows

    def grows(self: Any) -> bool:
        tries.append(threading.get_ident())
        if len(tries) == 3:
            path.write_bytes(whole)
        return usual(self)

    monkeypatch.setattr(robomimic_reader._File, "_grows", grows)
    assert reader.read(0, ["camera"])["camera"].tobytes()[0] == whole[at]
    assert len(tries) == 3
    reader.close()
