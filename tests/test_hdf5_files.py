"""HDF5 files: how_to_read, little memory, few open files, and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_worlds import same
from test_data_hdf5 import World, as_episode, channel, check, make_info, writer_and_reader
from waiting import PATIENCE_S

from mjlab_rec.data.formats import hdf5_header, hdf5_stored
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader, Hdf5Writer
from mjlab_rec.data.formats.hdf5_file import RawFile
from mjlab_rec.data.formats.hdf5_layout import index_dtype, own_check
from mjlab_rec.data.schema import DataError, RunInfo


def record(path: Path, count: int = 6, p_end: float = 0.15, **options) -> World:
    world = World(make_info(), rows=8)
    writer = Hdf5Writer(world.info, WriterOptions(path=str(path), block_rows=8, **options))
    for number in range(count):
        writer.write(world.block(rows=5 if number % 4 == 2 else None, p_end=p_end))
    writer.close()
    return world


# -- with h5py alone -------------------------------------------------------------------------------


def example(file: h5py.File) -> np.ndarray:
    """Run the code in how_to_read of a file."""
    lines = [line for line in file.attrs["how_to_read"].splitlines() if line.startswith("    ")]
    found = {"file": file, "np": np}
    exec(textwrap.dedent("\n".join(lines)), found)
    return found["values"]


def test_how_to_read_works_for_blocks(tmp_path):
    world = record(tmp_path / "a.h5", count=12, p_end=0.08)
    log = [log for log in world.episodes() if log.env == 0][1]
    assert log.ended and len(log.rows) > 1
    with h5py.File(tmp_path / "a.h5") as file:
        found = example(file)
    assert same(found, np.stack([values["obs/actor"] for _, values in log.rows]))


def test_how_to_read_works_for_whole_episodes(tmp_path):
    world = World(make_info(), rows=8, seed=3)
    for _ in range(30):
        world.block(p_end=0.01)
    logs = [log for log in world.episodes() if log.ended and len(log.rows) > 64][:3]
    writer, _ = writer_and_reader("hdf5", tmp_path, world.info, 8)
    for log in logs:
        writer.write_episode(as_episode(log))
    writer.close()
    with h5py.File(writer.files[0]) as file:
        found = example(file)
    assert same(found, np.stack([values["obs/actor"] for _, values in logs[1].rows]))


def test_every_dataset_names_its_axes_units_and_elements(tmp_path):
    info = RunInfo(
        channels=(
            channel("obs/actor", np.float32, (2,), when="before", units="m", elements=("ä", "b")),
            channel("image", np.uint8, (2, 2)),
        ),
        envs=(3, 4),
        step_dt=0.1,
    )
    writer = Hdf5Writer(info, WriterOptions(path=str(tmp_path / "a.h5"), block_rows=4))
    world = World(make_info(chained=False), rows=4)
    block = world.block(p_end=0)
    block.info, block.tail = info, {}
    block.arrays = {"obs/actor": np.ones((4, 2, 2), "f4"), "image": np.ones((4, 2, 2, 2), "u1")}
    for name in ("first_episode", "first_step", "total", "recorded"):
        setattr(block, name, getattr(block, name)[:2])
    writer.write(block)
    writer.close()
    with h5py.File(tmp_path / "a.h5") as file:
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if hasattr(item, "dims") else None)
        grown = [d for d in datasets if d.maxshape and d.maxshape[0] is None]
        assert len(grown) > 4
        for dataset in grown:
            assert all(axis.label for axis in dataset.dims), dataset.name
        obs = file["blocks/obs/actor"]
        assert [axis.label for axis in obs.dims] == ["block", "env_index", "row", "element"]
        assert obs.attrs["units"] == "m" and list(obs.attrs["elements"]) == ["ä".encode(), b"b"]
        assert "index/blocks" in obs.attrs["valid_rows"]


# -- few files, other processes --------------------------------------------------------------------


def test_many_parts_are_read_with_few_open_files(tmp_path):
    path = tmp_path / "rollout.h5"
    for number in range(45):
        info = make_info()
        part = World(info, rows=2, seed=number)
        writer = Hdf5Writer(info, WriterOptions(path=str(path), block_rows=2, if_exists="append"))
        writer.write(part.block())
        writer.close()
    script = f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (43, 43))
        from mjlab_rec.data.formats.hdf5 import Hdf5Reader
        reader = Hdf5Reader({str(path)!r})
        rows = sum(len(reader.read(i, ["action"])["action"]) for i in range(len(reader.episodes)))
        print(len(reader.episodes), rows, reader.verify())
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ran.stderr == ""
    episodes, rows, damage = ran.stdout.split()
    assert int(rows) == 45 * 2 * 5 and int(episodes) >= 45 * 5 and damage == "[]"


def test_a_reader_works_in_a_forked_child(tmp_path):
    world = record(tmp_path / "a.h5")
    reader = Hdf5Reader(tmp_path / "a.h5")
    expected = reader.read(3, ["action"])["action"]
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(send, reader.read(3, ["action"])["action"].tobytes())
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, "rb") as stream:
        assert stream.read() == expected.tobytes()
    os.waitpid(child, 0)
    check(reader, world.episodes(), world.info)
    reader.close()


def test_a_file_that_was_replaced_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5_reader._MOST_OPEN", 0)
    path = tmp_path / "a.h5"
    record(path)
    reader = Hdf5Reader(path)
    record(path, if_exists="overwrite")
    with pytest.raises(DataError, match="a.h5' was replaced after it was opened. Open it again"):
        reader.read(0, ["action"])
    path.unlink()
    with pytest.raises(DataError, match="Cannot read '.*a.h5': No such file"):
        reader.read(0, ["action"])
    reader.close()
    with pytest.raises(DataError, match="was closed. Open the recording again"):
        reader.read(0, ["action"])


# -- errors while writing --------------------------------------------------------------------------


@pytest.mark.parametrize("again", [True, False])
def test_a_block_without_room_is_a_gap_unless_it_is_written_again(again, tmp_path, monkeypatch):
    world = World(make_info(), rows=8)
    writer, reader = writer_and_reader("hdf5", tmp_path, world.info, 8)
    writer.write(world.block(p_end=0))
    lost = world.block(p_end=0, lose=not again)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RawFile, "write", full)
        for _ in range(2):
            with pytest.raises(DataError, match="No space left on device"):
                writer.write(lost)
    if again:
        writer.write(lost)
    writer.write(world.block(p_end=0))
    writer.close()
    opened = reader()
    assert opened.gaps == (0 if again else 8) and opened.finished
    check(opened, world.episodes(), world.info)


def test_a_deleted_file_is_noticed_and_the_next_part_begins(tmp_path):
    world = World(make_info(), rows=8)
    writer, reader = writer_and_reader("hdf5", tmp_path, world.info, 8)
    writer.write(world.block(p_end=0))
    writer.files[0].unlink()
    block = world.block(p_end=0)
    with pytest.raises(DataError, match="rollout.h5' was deleted while it was being written"):
        writer.write(block)
    writer.write(block)
    writer.close()
    assert writer.files[-1].exists() and writer.nbytes
    opened = Hdf5Reader(writer.files[-1])
    assert opened.episodes["rows"].sum() == 8 * 5
    assert opened.verify() == [f"Part 0 is missing before '{writer.files[-1]}'."]


def test_data_is_on_the_disk_before_its_row_of_the_index(tmp_path, monkeypatch):
    calls: list[str] = []
    write, sync = RawFile.write, RawFile.sync

    def noted(disk, values, offset):
        fields = values.dtype.names or ()
        calls.append("index" if "done" in fields else "state" if "state" in fields else "data")
        write(disk, values, offset)

    monkeypatch.setattr(RawFile, "write", noted)
    monkeypatch.setattr(RawFile, "sync", lambda raw: (calls.append("sync"), sync(raw)))
    record(tmp_path / "a.h5", count=1, durability="power")
    order = [call for n, call in enumerate(calls) if call != "data" or calls[n - 1] != "data"]
    assert order[:3] == ["sync", "state", "sync"]  # A file without columns is replaced.
    assert order[3:] == ["data", "sync", "index", "sync", "sync", "state", "sync"]
    calls.clear()
    record(tmp_path / "b.h5", count=1)
    assert "sync" not in calls


def test_a_run_is_finished_when_its_writer_was_closed(tmp_path):
    world = World(make_info(), rows=8)
    writer, reader = writer_and_reader("hdf5", tmp_path, world.info, 8, if_exists="append")
    assert not reader().finished
    writer.write(world.block())
    assert not reader().finished and reader().verify() == []
    writer.close()
    assert reader().finished
    writer = Hdf5Writer(world.info, writer.options)
    assert not reader().finished
    writer.close()
    assert reader().finished


# -- manipulated files -----------------------------------------------------------------------------


def forged(path: Path, change) -> None:
    """Change the header of a file, with correct checksums."""
    content = bytearray(path.read_bytes())
    head = hdf5_header.load(
        lambda at, size: bytes(content[at : at + size]), len(content), Path("a")
    )
    data = json.loads(head.dump())
    text = change(data)
    text = json.dumps(data).encode() if text is None else text
    for place, locator in hdf5_header.locators([(len(content), text)] * 2).items():
        content[place : place + len(locator)] = locator
    path.write_bytes(bytes(content) + text)


def test_the_forging_helper_changes_nothing_without_edits(tmp_path):
    path = tmp_path / "a.h5"
    world = record(path)
    forged(path, lambda data: None)
    check(Hdf5Reader(path), world.episodes(), world.info)


def put(*keys):
    """Set a nested value in the header of a file."""
    *way, last, value = keys

    def change(data):
        for key in way:
            data = data[key]
        data[last] = value

    return change


LIES = {
    "blocks": put("plan", "capacity", 1 << 28),
    "too many blocks": put("plan", "capacity", 1 << 62),
    "no blocks": put("plan", "capacity", -1),
    "a place": put("plan", "index", 1 << 39),
    "a negative place": put("plan", "chunks", -8),
    "chunks": put("plan", "columns", 0, [1 << 39, 1, 4, None]),
    "no units": put("plan", "columns", 0, [5, 0, 4, None]),
    "a unit": put("plan", "columns", 0, [5, 1 << 30, 4, None]),
    "a compression": put("plan", "columns", 0, [5, 5, 4, "rar"]),
    "rows": put("plan", "rows", 1 << 38),
    "a column less": lambda data: data["plan"]["columns"].clear(),
    "an object": put("info", "channels", 0, "dtype", "O"),
    "an array": put("info", "channels", 0, "dtype", "(9999999,)f4"),
    "a shape": put("info", "channels", 0, "shape", [1 << 40]),
    "a shape of another": put("info", "channels", 5, "shape", [1 << 30]),
    "a negative shape": put("info", "channels", 0, "shape", [-1]),
    "an environment": put("info", "envs", 0, "x"),
    "no environment": put("info", "envs", None),
    "every": put("info", "every", 0),
    "a model": put("plan", "model", {"mass": ["<f8", [1 << 39]]}),
    "an attached file": put("attachments", "model.mjb", [0, 1 << 50, 0]),
    "a version": put("info", "version", 99),
    "nothing": lambda data: b"",
    "no text": lambda data: b"\xff\xfe{",
    "a list": lambda data: b"[1, 2]",
    "depth": lambda data: b"[" * 200_000,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_manipulated_header_is_refused_with_little_memory(lie, tmp_path):
    path = tmp_path / "a.h5"
    record(path)
    forged(path, lie)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            reader = Hdf5Reader(path)
            for index in range(len(reader.episodes)):
                reader.read(index, [spec.name for spec in reader.info.channels])
            raise AssertionError(reader.verify())
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "field, value",
    [("rows", -1), ("rows", 9), ("ends", -2), ("ends", 1 << 30), ("first_end", 1 << 50),
     ("first_end", -1), ("gap", -1), ("first_check", 1 << 45), ("checks", 1 << 30)],
)  # fmt: skip
def test_an_impossible_row_of_the_index_affects_only_its_block(field, value, tmp_path):
    path = tmp_path / "a.h5"
    record(path)
    content = bytearray(path.read_bytes())
    head = hdf5_header.load(
        lambda at, size: bytes(content[at : at + size]), len(content), Path("a")
    )
    assert head.plan is not None
    dtype = index_dtype(head.plan.layout)
    at = head.index + 2 * dtype.itemsize
    row = np.frombuffer(content[at : at + dtype.itemsize], dtype).copy()
    row[field] = value
    row["own"] = own_check(row.tobytes(), dtype, 2)
    content[at : at + dtype.itemsize] = row.tobytes()
    path.write_bytes(content)
    reader = Hdf5Reader(path)
    assert len(reader.verify()) == 1 and "block 2" in reader.verify()[0]
    assert reader.episodes["rows"].sum() == 5 * (5 * 8)


def test_links_that_lead_out_of_a_file_or_in_circles_are_not_followed(tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    world = record(path)
    with h5py.File(other, "w") as file:
        file["secret"] = np.full((6, 5, 8, 2), 7, np.float32)
    with h5py.File(path, "r+") as file:
        del file["blocks/action"]
        file["blocks/action"] = h5py.ExternalLink(str(other), "secret")
        file["tail/loop"] = file["tail"]
        file["blocks/soft"] = h5py.SoftLink("/blocks/soft")
    check(Hdf5Reader(path), world.episodes(), world.info)


@pytest.mark.parametrize("packed", [zlib.compress(bytes(1 << 26)), b"\xe0\xff\x00" * 1000])
def test_a_compressed_chunk_is_not_decompressed_beyond_its_size(packed):
    for unpack in (hdf5_stored._inflated, hdf5_stored._lzf):
        tracemalloc.start()
        try:
            assert len(unpack(packed, 1000)) <= 1300
        except (zlib.error, ValueError):
            pass
        assert tracemalloc.get_traced_memory()[1] < 200_000
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["pipe", "folder"])
def test_pipes_and_folders_are_refused_at_once(name, tmp_path):
    path = tmp_path / "a.h5"
    os.mkfifo(path) if name == "pipe" else path.mkdir()
    with pytest.raises(DataError, match="a.h5' is not a plain file"):
        Hdf5Reader(path)


def test_a_reader_sees_complete_blocks_of_a_growing_file(tmp_path, monkeypatch):
    world = World(make_info(), rows=8)
    writer, reader = writer_and_reader("hdf5", tmp_path, world.info, 8)
    writer.write(world.block(p_end=0.2))
    write, seen = RawFile.write, []

    def looked_at(disk, values, offset):
        write(disk, values, offset)
        opened = reader()
        names = ["step", *(spec.name for spec in opened.info.channels)]
        rows = opened.read_many(range(len(opened.episodes)), names)
        assert opened.verify() == [] and len(rows["action"]) % (8 * 5) == 0
        seen.append(len(rows["action"]))
        opened.close()

    monkeypatch.setattr(RawFile, "write", looked_at)
    for _ in range(2):
        writer.write(world.block(p_end=0.2))
    writer.close()
    assert seen == sorted(seen) and set(seen) == {40, 80, 120}


def test_a_recording_continues_when_a_limit_on_file_sizes_is_lifted(tmp_path):
    script = f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        sys.dont_write_bytecode = True  # Python would leave cut files in __pycache__.
        from test_data_hdf5 import *
        world = World(make_info(), rows=8)
        options = WriterOptions(path={str(tmp_path / "a.h5")!r}, block_rows=8)
        writer = Hdf5Writer(world.info, options)
        failures = 0
        for number in range(12):
            limit = 200_000 if number % 4 == 3 else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            block = world.block()
            block.model = ModelRows(env_index=np.zeros(1, int), episode=block.first_episode[:1],
                                    fields={{f"field {{number}}": np.zeros((1, 9))}})
            try:
                writer.write(block)
            except DataError as error:
                assert "File too large" in str(error)
                failures += 1
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                writer.write(block)
        writer.close()
        reader = Hdf5Reader({str(tmp_path / "a.h5")!r})
        check(reader, world.episodes(), world.info)
        assert reader.finished and reader.gaps == 0 and reader.verify() == []
        print(failures)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert int(ran.stdout) > 0
