"""CSV and Parquet when something goes wrong: Ctrl-C, a full disk, removed files, forks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_worlds import World, same
from waiting import PATIENCE_S

from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.formats import plain_files, writer_class
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

NAMES = {"csv": "run.csv", "parquet": "run"}
both = pytest.mark.parametrize("kind", NAMES)


def make(kind: str, folder: Path, info: RunInfo, **more: Any) -> Writer:
    options = {"path": str(folder / NAMES[kind]), "roll_over_bytes": 4000, **more}
    return writer_class(kind)(info, WriterOptions(**options))


def steps_of(kind: str, writer: Writer, world: World) -> Iterator[Callable[[], None]]:
    """The writes of a world, one by one; each can be repeated after a failure."""
    assembler = EpisodeAssembler(world.info)
    for block in world.blocks():
        if kind == "csv":
            yield lambda block=block: writer.write(block)
            continue
        for episode in assembler.add(block):
            yield lambda episode=episode: writer.write_episode(episode)
    for episode in assembler.finish() if kind == "parquet" else ():
        yield lambda episode=episode: writer.write_episode(episode)


def check(rollouts: Rollouts, world: World) -> None:
    episodes = sorted(world.episodes, key=lambda e: (e.env, e.number))
    assert len(rollouts) == len(episodes)
    for index, logged in enumerate(episodes):
        row = rollouts.episodes.row(index, named=True)
        assert (row["env"], row["number"]) == (logged.env, logged.number)
        assert (row["length"], row["terminated"]) == (logged.length, logged.terminated)
        arrays = rollouts[index]
        for spec in world.info.channels:
            values = np.stack([row.values[spec.name] for row in logged.rows])
            assert same(arrays[spec.name], values)


def verify(folder: Path, kind: str) -> list[str]:
    with open_rollouts(folder / NAMES[kind]) as rollouts:
        return rollouts._reader.verify()


# -- Ctrl-C ----------------------------------------------------------------------------------------

_INTERRUPTED = """
import os, signal, sys, threading
import numpy as np
sys.path.insert(0, "tests")
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import ChannelSpec, Episode, RunInfo

kind, path = sys.argv[1:]
spec = ChannelSpec(name="x", dtype=np.dtype("float64"), shape=(20,))
info = RunInfo(channels=(spec,), envs=(0,), step_dt=0.1)
writer = writer_class(kind)(info, WriterOptions(path=path, roll_over_bytes=1 << 20))
errors, done = [], threading.Event()

def write():
    try:
        for number in range(12):
            values = np.random.default_rng(number).random((12_000, 20))
            writer.write_episode(Episode(
                env=0, number=number, start=0, length=12_000, total=0.0, recorded=0.0,
                terminated=True, truncated=False, success=None, partial=False,
                arrays={"x": values, "step": np.arange(12_000, dtype=np.int32)},
            ))
    except BaseException as error:
        errors.append(repr(error))
    done.set()

thread = threading.Thread(target=write)
caught = 0
thread.start()
while not done.is_set():
    try:
        # What is interrupted is written again: not for ever, where that takes longer than this.
        done.wait(0.03 if caught < 60 else None)
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        caught += 1
thread.join()
writer.close()
print(caught, errors)
"""


@both
def test_ctrl_c_loses_no_rows(kind, tmp_path):
    path = tmp_path / NAMES[kind]
    ran = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, kind, str(path)],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    caught, _, errors = ran.stdout.strip().partition(" ")
    assert errors == "[]", ran.stderr
    assert int(caught) > 0
    with open_rollouts(path) as rollouts:
        for number, arrays in enumerate(rollouts):
            assert same(arrays["x"], np.random.default_rng(number).random((12_000, 20)))
        assert len(rollouts) == 12
    assert verify(tmp_path, kind) == []


def test_ctrl_c_in_the_main_thread_is_raised(monkeypatch):
    from mjlab_rec.data.formats.csv_text import dump_rows

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_csv", interrupted)
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        dump_rows([np.zeros(3)])


# -- a full disk -----------------------------------------------------------------------------------


class Disk:
    """Makes ``os.write`` fail or fall short at times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write = os.write
        monkeypatch.setattr(plain_files.os, "write", self.write)

    def write(self, file: int, content: Any) -> int:
        if self.room is None:
            return self._write(file, content)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(file, bytes(content)[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("roll_over_bytes", [4000, 1 << 30])
def test_a_full_disk_leaves_no_incomplete_lines_and_writing_continues(
    roll_over_bytes, tmp_path, monkeypatch
):
    disk, world = Disk(monkeypatch), World(steps=70)
    writer = make("csv", tmp_path, world.info, roll_over_bytes=roll_over_bytes)
    rng = np.random.default_rng(0)
    for number, step in enumerate(steps_of("csv", writer, world)):
        for _ in range(3):
            before = {f.name: f.read_bytes() for f in tmp_path.glob("run*")}
            disk.room = int(rng.integers(7000 if number else 1000))
            try:
                step()
                break
            except DataError as error:
                assert "No space left on device" in str(error)
                after = {f.name: f.read_bytes() for f in tmp_path.glob("run*")}
                if set(before) == set(after):
                    for name in before:
                        assert after[name] == before[name] or "part" in str(error)
        else:
            disk.room = None
            step()
        disk.room = None
        assert verify(tmp_path, "csv") == []
    writer.close()
    with open_rollouts(tmp_path / "run.csv") as rollouts:
        check(rollouts, world)
        assert rollouts._reader.finished
    assert verify(tmp_path, "csv") == []


def test_a_recording_whose_last_write_failed_is_not_finished(tmp_path, monkeypatch):
    disk, world = Disk(monkeypatch), World(steps=30)
    writer = make("csv", tmp_path, world.info)
    for step in steps_of("csv", writer, world):
        disk.room = 0
        with pytest.raises(DataError, match="No space left on device. Data written before can"):
            step()
        break
    disk.room = None
    writer.close()
    with open_rollouts(tmp_path / "run.csv") as rollouts:
        assert not rollouts._reader.finished
        assert len(rollouts) == 0


def test_episodes_wait_for_room_on_a_full_disk(tmp_path, monkeypatch):
    world, write_parquet = World(steps=60), pl.DataFrame.write_parquet
    full = [False]

    def write(frame: pl.DataFrame, file: Path, **more: Any) -> None:
        write_parquet(frame, file, **more)
        if full[0]:
            os.truncate(file, 100)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pl.DataFrame, "write_parquet", write)
    writer = make("parquet", tmp_path, world.info)
    failed = 0
    for number, step in enumerate(steps_of("parquet", writer, world)):
        full[0] = number % 5 > 1
        try:
            step()
        except DataError as error:  # it waits for the next part
            assert "No space left on device" in str(error)
            failed += 1
        assert [f.name for f in tmp_path.iterdir() if f.name.endswith("tmp")] == []
        assert verify(tmp_path, "parquet") == []
    full[0] = False
    writer.close()
    assert failed > 3
    with open_rollouts(tmp_path / "run") as rollouts:
        check(rollouts, world)
    assert verify(tmp_path, "parquet") == []


# -- files are removed while they are written ------------------------------------------------------


@both
@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
@pytest.mark.parametrize("closing", [True, False])
def test_a_removed_recording_is_noticed_at_the_next_write(kind, how, closing, tmp_path):
    world, path = World(steps=40), tmp_path / NAMES[kind]
    writer = make(kind, tmp_path, world.info, roll_over_bytes=1 << 30 if kind == "csv" else 1)
    steps = steps_of(kind, writer, world)
    next(steps)()
    old = path.rename(tmp_path / "old")
    if how == "replaced" and kind == "csv":
        path.write_text("mine")
    if how == "removed":
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    if not closing:
        with pytest.raises(DataError, match="removed|Cannot write"):
            next(steps)()
    with pytest.raises(DataError, match="removed|Cannot write"):
        writer.close()
    if how == "replaced" and kind == "csv":
        assert path.read_text() == "mine"


@both
def test_with_power_data_is_on_the_disk_before_its_index(kind, tmp_path, monkeypatch):
    synced, world = [], World(steps=30)
    fsync, replace = os.fsync, os.replace

    def log_sync(file: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))
        fsync(file)

    def log_replace(old: Any, new: Any) -> None:
        synced.append(f"-> {os.path.basename(new)}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", log_sync)
    monkeypatch.setattr(os, "replace", log_replace)
    writer = make(kind, tmp_path, world.info, durability="power", roll_over_bytes=1 << 30)
    started = len(synced)
    for step in steps_of(kind, writer, world):
        step()
    if kind == "csv":
        block = synced[started:]
        assert "run.episodes.csv" in block
        for name, after in zip(block, block[1:], strict=False):
            assert (
                after
                in {
                    "run.csv": ("run.episodes.csv", "run.csv.crc32"),
                    "run.episodes.csv": ("run.csv.crc32",),
                    "run.csv.crc32": ("run.csv",),
                }[name]
            )
    started = len(synced)
    writer.close()
    if kind == "parquet":
        part = ".run.part-00000.parquet.tmp", "-> part-00000.parquet", "run"
        assert tuple(synced[started : started + 3]) == part


def test_without_power_nothing_waits_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: pytest.fail("it waits"))
    for kind in NAMES:
        world = World(steps=20)
        writer = make(kind, tmp_path, world.info)
        for step in steps_of(kind, writer, world):
            step()
        writer.close()


# -- readers while it is written -------------------------------------------------------------------


@both
def test_a_recording_can_be_read_while_it_is_written(kind, tmp_path):
    world = World(steps=300)
    writer = make(kind, tmp_path, world.info, roll_over_bytes=8000)
    errors: list[str] = []
    counts, done = [0], threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                with open_rollouts(tmp_path / NAMES[kind]) as rollouts:
                    counts.append(sum(len(arrays["step"]) for arrays in rollouts))
                errors.extend(verify(tmp_path, kind))
            except Exception as error:
                errors.append(repr(error))

    thread = threading.Thread(target=look)
    thread.start()
    for step in steps_of(kind, writer, world):
        step()
    done.set()
    thread.join()
    writer.close()
    assert errors == []
    assert counts == sorted(counts)
    with open_rollouts(tmp_path / NAMES[kind]) as rollouts:
        check(rollouts, world)


def _read_in_child(rollouts: Rollouts, pipe: Any) -> None:
    try:
        pipe.send(sum(float(rollouts.read(i, ["state"])["state"][0, 0]) for i in range(3)))
    except DataError as error:
        pipe.send(str(error))


@both
@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("decoded", [True, False])
def test_a_forked_child_reads_or_says_what_to_do(kind, decoded, tmp_path):
    world = World(steps=40, special=False)
    writer = make(kind, tmp_path, world.info)
    for step in steps_of(kind, writer, world):
        step()
    writer.close()
    with open_rollouts(tmp_path / NAMES[kind]) as rollouts:
        expected = None
        if decoded:
            expected = sum(float(rollouts.read(i, ["state"])["state"][0, 0]) for i in range(3))
        context = multiprocessing.get_context("fork")
        mine, its = context.Pipe()
        child = context.Process(target=_read_in_child, args=(rollouts, its))
        child.start()
        assert mine.poll(PATIENCE_S), "it hangs"
        answer = mine.recv()
        child.join()
    if kind == "parquet" and not decoded:
        assert "multiprocessing_context='spawn'" in answer
    else:
        assert expected is None or answer == expected
        assert isinstance(answer, float)


@both
def test_a_panic_of_polars_is_reported_as_damage(kind, tmp_path, monkeypatch):
    world = World(steps=20)
    writer = make(kind, tmp_path, world.info)
    for step in steps_of(kind, writer, world):
        step()
    writer.close()

    def panic(*_: Any, **__: Any) -> None:
        raise pl.exceptions.PanicException("range end index 9 out of range")

    monkeypatch.setattr(pl, "read_csv" if kind == "csv" else "scan_parquet", panic)
    with pytest.raises(DataError, match="cannot be read: range end index 9|damaged.*range end"):
        open_rollouts(tmp_path / NAMES[kind])


# -- names -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "name, shape, told",
    [
        ("/abs/x", (), "cannot be called '/abs/x'"),
        ("a//b", (), "cannot be called 'a//b'"),
        ("../x", (), "cannot be called '../x'"),
        ("a/./b", (), "cannot be called"),
        ("", (), "0 bytes"),
        ("step", (), "cannot be called 'step'"),
        ("episode", (), "cannot be called 'episode'"),
        ("x", (0,), r"'x' has the shape \[0\]"),
        ("x", (2, 0), r"'x' has the shape \[2, 0\]"),
    ],
)
def test_channels_that_do_not_fit_a_table_are_refused(kind, name, shape, told, tmp_path):
    spec = ChannelSpec(name=name, dtype=np.dtype("float32"), shape=shape)
    info = RunInfo(channels=(spec,), envs=(0,), step_dt=0.1)
    with pytest.raises(DataError, match=told):
        make(kind, tmp_path, info)
    good = ChannelSpec(name="good", dtype=np.dtype("float32"))
    with pytest.raises(DataError, match="'good' occurs twice"):
        make(kind, tmp_path, RunInfo(channels=(good, good), envs=(0,), step_dt=0.1))
    assert list(tmp_path.iterdir()) == []
