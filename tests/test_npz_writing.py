"""NumPy archives while they are written: kills, full disks, readers and forks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import files_of, read_all, record
from data_worlds import World, episodes_of, same
from waiting import PATIENCE_S

from mjlab_rec.data.formats import npz
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.npz import NpzReader, NpzWriter
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo

INFO = World().info


def episodes() -> list[Episode]:
    return list(episodes_of(World(num_envs=2, steps=20, model=True)))


def make(path: Path, **options: Any) -> NpzWriter:
    return NpzWriter(World(num_envs=2).info, WriterOptions(path=str(path), **options))


def check(path: Path, expected: list[Episode], offset: int = 0) -> None:
    """Compare everything that can be read with episodes."""
    reader = NpzReader(path)
    assert reader.verify() == []
    rows = reader.episodes.to_dicts()
    keys = [(row["env"], row["number"]) for row in rows]
    assert keys == sorted((e.env, e.number + offset) for e in expected)
    for episode in expected:
        index = keys.index((episode.env, episode.number + offset))
        arrays = reader.read(index, list(episode.arrays))
        assert all(same(arrays[name], episode.arrays[name]) for name in arrays)


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


# -- finished --------------------------------------------------------------------------------------


def test_a_folder_is_finished_only_when_it_was_closed(tmp_path):
    path = tmp_path / "run"
    first, second, *_ = episodes()
    writer = make(path)
    assert not NpzReader(path).finished
    writer.write_episode(first)
    assert not NpzReader(path).finished
    writer.close()
    assert NpzReader(path).finished
    writer = make(path, if_exists="append")
    assert not NpzReader(path).finished
    writer.write_episode(second)
    writer.close()
    assert NpzReader(path).finished
    assert NpzReader(path).verify() == []


def test_parts_are_finished_only_when_the_last_one_is_there(tmp_path):
    path = tmp_path / "run.npz"
    writer = make(path, roll_over_bytes=1)
    writer.write_episode(episodes()[0])
    assert not NpzReader(path).finished
    writer.close()
    assert NpzReader(path).finished
    check(path, episodes()[:1])


# -- failures --------------------------------------------------------------------------------------


def fail_in(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "file":
        monkeypatch.setattr(npz, "write_archive", full)
    elif how == "rename":
        monkeypatch.setattr(os, "replace", full)
    elif how == "line":
        monkeypatch.setattr(os, "write", full)
    elif how == "half a line":
        whole, calls = os.write, []

        def write(descriptor: int, data: bytes) -> int:
            calls.append(data)
            return whole(descriptor, data[:7]) if len(calls) == 1 else full()  # type: ignore

        monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("how", ["file", "rename", "line", "half a line"])
def test_a_full_disk_loses_only_the_episodes_without_room(how, tmp_path, monkeypatch):
    path = tmp_path / "run"
    first, second, third, *_ = episodes()
    writer = make(path)
    writer.write_episode(first)
    before = [(file, file.read_bytes()) for file in files_of(path)]
    with monkeypatch.context() as patch:
        fail_in(patch, how)
        for _ in range(2):
            with pytest.raises(DataError, match=r"run.*: No space left on device\. Data written"):
                writer.write_episode(second)
    assert [(file, file.read_bytes()) for file in files_of(path)] == before
    check(path, [first])
    writer.write_episode(third)
    writer.close()
    check(path, [first, third])


def test_a_full_disk_loses_no_episode_of_a_single_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    writer = make(path, roll_over_bytes=1)
    with monkeypatch.context() as patch:
        patch.setattr(npz, "write_archive", full)
        for episode in episodes()[:3]:
            with pytest.raises(
                DataError, match=r"No space left on device\. Its episodes are still"
            ):
                writer.write_episode(episode)
    for episode in episodes()[3:]:
        writer.write_episode(episode)
    writer.close()
    assert writer.files[0] == path
    check(path, episodes())


def test_a_full_disk_at_the_end_is_reported(tmp_path, monkeypatch):
    for name in ("run", "run.npz"):
        writer = make(tmp_path / name)
        writer.write_episode(episodes()[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(DataError, match="No space left on device"):
                writer.close()
    check(tmp_path / "run", episodes()[:1])
    assert not NpzReader(tmp_path / "run").finished
    make(tmp_path / "run", if_exists="append").close()  # the path was released


@pytest.mark.parametrize("what", ["folder", "table"])
def test_a_recording_that_was_removed_is_noticed_with_the_next_episode(what, tmp_path):
    path = tmp_path / "run"
    writer = make(path)
    writer.write_episode(episodes()[0])
    shutil.rmtree(path) if what == "folder" else (path / "episodes.jsonl").unlink()
    with pytest.raises(DataError, match="removed or replaced while it was being written"):
        writer.write_episode(episodes()[1])
    if what == "folder":
        with pytest.raises(DataError, match="No such file"):
            writer.close()


def test_a_name_that_cannot_be_read_back_is_refused_before_recording(tmp_path):
    spec = ChannelSpec(name="../x", dtype=np.dtype("f4"))
    for name in ("run", "run.npz"):
        options = WriterOptions(path=str(tmp_path / name))
        with pytest.raises(DataError, match="cannot be called '../x'"):
            NpzWriter(RunInfo(channels=(spec,), envs=(0,), step_dt=1.0), options)
        make(tmp_path / name).close()


# -- kills -----------------------------------------------------------------------------------------


def steps(monkeypatch: pytest.MonkeyPatch, between: Callable[[], None]) -> None:
    """Call a function before and after each call that changes visible files."""

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            between()
            result = function(*args, **kwargs)
            between()
            return result

        return call

    for name in ("replace", "write", "ftruncate"):
        monkeypatch.setattr(os, name, around(getattr(os, name)))
    monkeypatch.setattr(Path, "mkdir", around(Path.mkdir))


@pytest.mark.parametrize("name", ["run", "run.npz"])
def test_readers_always_see_whole_episodes(name, tmp_path, monkeypatch):
    path, wanted = tmp_path / name, episodes()[:4]
    seen = []

    def look() -> None:
        if (path / "meta.json").exists() or path.is_file():
            reader = NpzReader(path)
            read_all(reader)
            assert reader.verify() == []
            assert set(reader.info.attachments) == {"model.mjb", "notes.txt"}
            seen.append(len(reader.episodes))

    with monkeypatch.context() as patch:
        steps(patch, look)
        writer = make(path, roll_over_bytes=1)
        for episode in wanted:
            writer.write_episode(episode)
        writer.close()
    assert seen == sorted(seen)
    assert set(seen) >= {1, 2, 3, 4}
    check(path, wanted)


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_at_any_moment_loses_the_running_episode_at_most(moment, tmp_path, monkeypatch):
    path, (first, second, third, *_) = tmp_path / "run", episodes()
    copy = tmp_path / "killed"
    writer = make(path)
    writer.write_episode(first)
    count = 0

    def snapshot() -> None:
        nonlocal count
        if count == moment:
            shutil.copytree(path, copy)
        count += 1

    with monkeypatch.context() as patch:
        steps(patch, snapshot)
        writer.write_episode(second)
        if count <= moment:
            writer.close()
    writer.close() if writer._sink._table is not None else None  # type: ignore[union-attr]
    kept = [first, second][: len(NpzReader(copy).episodes)]
    check(copy, kept)
    writer = make(copy, if_exists="append")
    writer.write_episode(third)
    writer.close()
    reader = NpzReader(copy)
    assert reader.verify() == []
    assert len(reader.episodes) == len(kept) + 1
    assert len(set(reader.episodes.select("env", "number").rows())) == len(kept) + 1
    assert not list(copy.glob(".*"))


def test_appended_episodes_never_repeat_a_number(tmp_path):
    path = tmp_path / "run"
    for _ in range(3):
        writer = make(path, if_exists="append")
        for episode in episodes():
            writer.write_episode(episode)
        writer.close()
    keys = NpzReader(path).episodes.select("env", "number").rows()
    assert len(set(keys)) == len(keys) == 3 * len(episodes())


# -- power and forks -------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["kill", "power"])
def test_data_is_on_the_disk_before_its_index(durability, tmp_path, monkeypatch):
    path = tmp_path / "run"
    writer = make(path, durability=durability)
    log: list[str] = []

    def name_of(descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2]

    fsync, replace, write = os.fsync, os.replace, os.write
    monkeypatch.setattr(os, "fsync", lambda d: (log.append(f"sync {name_of(d)}"), fsync(d))[1])
    monkeypatch.setattr(
        os, "replace", lambda a, b: (log.append(f"rename {b.name}"), replace(a, b))[1]
    )
    monkeypatch.setattr(
        os, "write", lambda d, c: (log.append(f"line {name_of(d)}"), write(d, c))[1]
    )
    writer.write_episode(episodes()[0])
    wanted = [
        "sync .episode_000000.npz.tmp",
        "rename episode_000000.npz",
        "sync run",
        "line episodes.jsonl",
        "sync episodes.jsonl",
    ]
    if durability == "kill":
        wanted = [step for step in wanted if not step.startswith("sync")]
    assert log == wanted
    log.clear()
    writer.close()
    wanted = ["sync .meta.json.tmp", "rename meta.json", "sync run"]
    assert log == (wanted if durability == "power" else wanted[1:2])


@pytest.mark.parametrize("name", ["run", "run.npz"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_forked_child_can_read(name, warm, tmp_path):
    path = record("npz", tmp_path / name, World(num_envs=2, steps=12))
    reader = NpzReader(path)
    whole = read_all(NpzReader(path))
    if warm:
        read_all(reader)

    def child() -> None:
        for index, expected in enumerate(whole.arrays.values()):
            arrays = reader.read(index, list(expected))
            if not all(same(arrays[n], expected[n]) for n in expected):
                os._exit(3)
        os._exit(7)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(PATIENCE_S)
    process.kill()
    assert process.exitcode == 7
