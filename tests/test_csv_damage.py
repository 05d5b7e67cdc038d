"""CSV recordings with flipped bits, truncated or missing files, kills and hostile text."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import LONG, Watch
from data_worlds import LoggedEpisode, World, same

from mjlab_rec.data.formats.base import EPISODE_COLUMNS, WriterOptions
from mjlab_rec.data.formats.csv import CsvReader, CsvWriter
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo


def options(folder: Path, **more: Any) -> WriterOptions:
    return WriterOptions(**{"path": str(folder / "rollout.csv"), "block_rows": 7, **more})


def record(folder: Path, world: World, close: bool = True, **more: Any) -> Path:
    writer = CsvWriter(world.info, options(folder, **more))
    for block in world.blocks():
        writer.write(block)
    if close:
        writer.close()
    else:
        writer._release()
    return folder / "rollout.csv"


def ordered(world: World) -> list[LoggedEpisode]:
    return sorted(world.episodes, key=lambda e: (e.env, e.number))


def check_values(reader: CsvReader, index: int, logged: LoggedEpisode, rows: int) -> None:
    arrays = reader.read(index, [spec.name for spec in reader.info.channels])
    for name, values in arrays.items():
        assert same(values, np.stack([row.values[name] for row in logged.rows[:rows]])), name


def copies(folder: Path, to: Path) -> dict[str, bytes]:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return {file.name: file.read_bytes() for file in to.iterdir()}


def known_rows(world: World) -> dict[tuple[int, int], LoggedEpisode]:
    return {(e.env, e.number): e for e in world.episodes}


def check_true(reader: CsvReader, world: World, info: RunInfo) -> tuple[int, int]:
    """All values are correct or null; returns the numbers of readable and lost episodes."""
    known, good, bad = known_rows(world), 0, 0
    assert reader.info.channels == info.channels
    assert (reader.info.step_dt, reader.info.envs) == (info.step_dt, info.envs)
    assert (reader.info.about, reader.info.every) == (info.about, info.every)
    assert reader.info.attachments == info.attachments and reader.gaps == 0
    names = ["step", *(spec.name for spec in info.channels)]
    for index, row in enumerate(reader.episodes.to_dicts()):
        logged = known[row["env"], row["number"]]
        expected = {
            "start": logged.rows[0].at,
            "length": logged.length,
            "return": logged.total,
            "terminated": logged.terminated,
            "truncated": logged.truncated,
            "success": logged.success,
        }
        for name, value in expected.items():
            if row[name] is not None:
                assert row[name] == pytest.approx(value, abs=1e-5), name
        try:
            arrays = reader.read(index, names)
        except DataError as error:
            assert "rollout" in str(error) and ("block" in str(error) or "rows" in str(error))
            bad += 1
            continue
        steps = arrays.pop("step").tolist()
        rows = [each for each in logged.rows if each.step in steps]
        assert [each.step for each in rows] == steps and len(steps) == row["rows"]
        assert row["partial"] or len(rows) == len(logged.rows)
        recorded = sum(float(each.values["reward"]) for each in rows)
        assert row["recorded_return"] == pytest.approx(recorded, abs=1e-5)
        for name, values in arrays.items():
            assert same(values, np.stack([each.values[name] for each in rows])), name
        good += len(rows) == len(logged.rows)
    return good, bad


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, World]]:
    folder = tmp_path_factory.mktemp("whole")
    world = World(num_envs=2, steps=60, special=False)
    world.info.attachments = {"notes.txt": b"hello"}
    record(folder, world)
    yield folder, world


def read_undamaged(path: Path, world: World, watch: Watch) -> None:
    """Read an undamaged recording, to measure the memory for it."""
    for around in (contextlib.nullcontext, watch.measure_undamaged):
        with around():
            reader = CsvReader(path)
            assert check_true(reader, world, world.info) == (len(world.episodes), 0)
            assert reader.finished and reader.verify() == []


ROWS, TABLE, SUMS = "rollout.csv", "rollout.episodes.csv", "rollout.csv.crc32"
PARTS = {"roll_over_bytes": 3000}
every_file = pytest.mark.parametrize(
    "name, options",
    [
        *((name, {}) for name in (ROWS, TABLE, SUMS)),
        *((name, PARTS) for name in ("rollout.part001.csv", TABLE, SUMS)),
    ],
)


@every_file
def test_a_flipped_bit_is_reported_and_affects_only_its_block(name, options, tmp_path, watch):
    world = World(num_envs=2, steps=60, special=False)
    path = record(tmp_path, world, **options)
    read_undamaged(path, world, watch)
    for _ in watch.flips([path.with_name(name)], 8):
        reader = CsvReader(path)
        good, bad = check_true(reader, world, world.info)
        assert good + bad == len(world.episodes)
        assert bad <= 8 and good > bad
        assert reader.verify()


@every_file
def test_a_truncated_file_loses_only_its_end(name, options, tmp_path, watch):
    scale = 16 if LONG else 1  # for files of more than 4 KB
    world = World(num_envs=2, steps=60 * scale, special=False)
    path = record(tmp_path, world, **{key: scale * value for key, value in options.items()})
    read_undamaged(path, world, watch)
    good = 0
    for _ in watch.cuts([path.with_name(name)], 2):
        reader = CsvReader(path)
        good, bad = check_true(reader, world, world.info)
        assert bad == 0 or name == SUMS
        assert reader.verify()
    assert good > 0


def test_a_damaged_description_is_reported_or_harmless(whole, tmp_path, watch):
    folder, world = whole
    copies(folder, tmp_path / "copy")
    path = tmp_path / "copy" / ROWS
    read_undamaged(path, world, watch)
    victim = path.with_name("rollout.csv.json")
    for _ in watch.flips([victim], 8):
        try:
            reader = CsvReader(path)
        except DataError as error:
            assert "rollout.csv.json" in str(error)
            continue
        assert check_true(reader, world, world.info) == (len(world.episodes), 0)
        assert reader.finished
    for _ in watch.cuts([victim], 2):
        with pytest.raises(DataError, match="rollout.csv.json"):
            CsvReader(path)


def test_without_check_a_damaged_block_is_read(whole, tmp_path):
    folder, world = whole
    copies(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "rollout.csv"
    text = file.read_text().splitlines(keepends=True)
    text[20] = text[20].replace("0.", "1.")
    file.write_text("".join(text))
    with pytest.raises(DataError, match=r"block \d+ \(rows \d+ to \d+\) does not match.*edited"):
        reader = CsvReader(file)
        for index in range(len(reader.episodes)):
            reader.read(index, ["action"])
    assert len(reader.verify()) == 1
    file.with_name("rollout.csv.crc32").unlink()
    assert CsvReader(file).damages == []  # as the error suggested


@pytest.mark.parametrize("close", [True, False])
def test_all_complete_lines_of_a_truncated_file_are_read(close, tmp_path):
    world = World(num_envs=2, steps=400 if LONG else 60)
    file = record(tmp_path, world, close=close)
    content = file.read_bytes()
    known = known_rows(world)
    for size in range(0, len(content), 4096 if LONG else 4096 + 511):
        file.write_bytes(content[:size])
        reader = CsvReader(file)
        lines = content[:size].count(b"\n") - 1  # the header has no line ends of its own
        assert reader.episodes["rows"].sum() == max(0, lines)
        assert "ends early" in " ".join(reader.verify())
        for index, row in enumerate(reader.episodes.to_dicts()):
            logged = known[row["env"], row["number"]]
            check_values(reader, index, logged, row["rows"])
            assert row["partial"] is True or row["rows"] == len(logged.rows) or not close


def test_appending_repairs_a_truncated_recording(tmp_path):
    old, new = World(steps=60), World(seed=1)
    file = record(tmp_path, old)
    content = file.read_bytes()
    for name, size in (("rollout.csv", len(content) // 2), ("rollout.episodes.csv", 333)):
        with open(tmp_path / name, "r+b") as stream:
            stream.truncate(size)
    before = CsvReader(file)
    assert before.verify() and before.finished
    record(tmp_path, new, if_exists="append")
    after = CsvReader(file)
    assert after.verify() == [] and after.finished
    keys = after.episodes.select("env", "number").rows()
    assert len(set(keys)) == len(keys) == len(before.episodes) + len(new.episodes)
    merged = after.episodes.filter(after.episodes["number"] <= before.episodes["number"].max())
    assert merged.rows() == before.episodes.rows()


@pytest.mark.parametrize("name", ["rollout.csv", "rollout.episodes.csv", "rollout.csv.crc32"])
def test_appending_after_damage_in_the_middle_is_refused(name, tmp_path):
    file = record(tmp_path, World(steps=60))
    damaged = tmp_path / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DataError, match="Cannot append to .*damaged.*Choose another path"):
        record(tmp_path, World(), if_exists="append")
    assert damaged.read_bytes() == content
    record(tmp_path, World(seed=2), if_exists="overwrite")
    assert CsvReader(file).verify() == []


def test_a_kill_leaves_running_episodes_cut_at_their_last_row(tmp_path):
    world = World(steps=60)
    file = record(tmp_path, world, close=False)
    reader = CsvReader(file)
    assert not reader.finished and reader.verify() == []
    running = [e for e in ordered(world) if not (e.terminated or e.truncated)]
    assert running
    for index, (row, logged) in enumerate(
        zip(reader.episodes.to_dicts(), ordered(world), strict=True)
    ):
        check_values(reader, index, logged, len(logged.rows))
        assert (row["length"], row["rows"]) == (logged.length, len(logged.rows))
        assert row["return"] == pytest.approx(logged.total, abs=1e-4)
        assert row["partial"] is False
        assert row["cut"] is not (logged.terminated or logged.truncated)
    record(tmp_path, World(seed=1), if_exists="append")
    again = CsvReader(file)
    assert again.finished and again.verify() == []
    old = again.episodes.filter(again.episodes["number"] <= reader.episodes["number"].max())
    assert old.rows() == reader.episodes.rows()


@pytest.mark.parametrize("kept", ["rows", "rows and half a line", "rows and lines", "half a row"])
def test_a_kill_between_rows_table_and_checksums_loses_only_incomplete_data(kept, tmp_path):
    world = World(steps=60)
    writer = CsvWriter(world.info, options(tmp_path))
    path = tmp_path / "rollout.csv"
    names = ["rollout.csv", "rollout.episodes.csv", "rollout.csv.crc32"]
    states = []
    for block in world.blocks():
        writer.write(block)
        states.append([(tmp_path / name).read_bytes() for name in names])
    writer._release()
    old, new = states[-2], states[-1]
    table = {"rows and lines": new[1], "rows and half a line": new[1][:-5]}.get(kept, old[1])
    rows = new[0][:-9] if kept == "half a row" else new[0]
    for name, content in zip(names, (rows, table, old[2]), strict=True):
        (tmp_path / name).write_bytes(content)
    reader = CsvReader(path)
    assert reader.verify() == []
    assert reader.episodes["rows"].sum() == len(world.rows) - (kept == "half a row")
    known = known_rows(world)
    for index, row in enumerate(reader.episodes.to_dicts()):
        logged = known[row["env"], row["number"]]
        check_values(reader, index, logged, row["rows"])
        if len(logged.rows) == row["rows"]:
            assert row["terminated"] == logged.terminated
    record(tmp_path, World(seed=1), if_exists="append")
    assert CsvReader(path).verify() == []


def test_unknown_values_stay_unknown_after_appending(tmp_path):
    file = record(tmp_path, World(steps=60, activity="rows"))
    (tmp_path / "rollout.episodes.csv").unlink()
    before = CsvReader(file).episodes
    assert before["length"].null_count() and before["start"].null_count() == len(before)
    record(tmp_path, World(seed=1), if_exists="append")
    after = CsvReader(file).episodes
    assert after.filter(after["number"] <= before["number"].max()).rows() == before.rows()


def test_missing_side_files_are_reported_by_verify(whole, tmp_path):
    folder, world = whole
    for name in ("rollout.episodes.csv", "rollout.csv.crc32"):
        copies(folder, tmp_path / "copy")
        (tmp_path / "copy" / name).unlink()
        reader = CsvReader(tmp_path / "copy" / "rollout.csv")
        assert check_true(reader, world, world.info) == (len(world.episodes), 0)
        assert reader.damages == [] and name in " ".join(reader.verify())
    assert (reader.episodes["success"].null_count() == 0) is False or reader.episodes["start"].sum()


def test_the_table_of_episodes_is_not_a_recording(whole):
    folder, world = whole
    table = (folder / "rollout.episodes.csv").read_text().splitlines()
    assert table[0].split(",") == list(EPISODE_COLUMNS)
    assert len(table) == 1 + len(world.episodes)
    with pytest.raises(DataError, match="table of episodes of the recording '.*rollout.csv'"):
        open_rollouts(folder / "rollout.episodes.csv")
    with pytest.raises(DataError) as error:
        open_rollouts(folder / "rolout.csv")
    assert "rollout.csv" in str(error.value) and "episodes" not in str(error.value)
    with pytest.raises(DataError, match="table of episodes"):
        CsvWriter(world.info, WriterOptions(path=str(folder / "x.episodes.csv")))


def test_one_table_of_episodes_for_all_parts_and_sessions(tmp_path):
    worlds = [World(steps=60, seed=seed) for seed in range(3)]
    for world in worlds:
        record(tmp_path, world, if_exists="append", roll_over_bytes=4000)
    assert len(list(tmp_path.glob("rollout.part*.csv"))) > 3
    assert len(list(tmp_path.glob("*.episodes.csv"))) == 1
    reader = CsvReader(tmp_path / "rollout.csv")
    assert reader.verify() == [] and reader.finished
    assert len(reader.episodes) == sum(len(world.episodes) for world in worlds)
    (tmp_path / "rollout.part002.csv").unlink()
    assert "Part 2 of" in " ".join(reader.verify())


def test_numbering_leaves_side_files_of_others_alone(tmp_path):
    (tmp_path / "rollout.episodes.csv").write_text("mine")
    (tmp_path / "rollout_1.csv.crc32").write_text("mine")
    with pytest.raises(
        DataError, match="rollout.episodes.csv' exists and is not part of a recording.*not changed"
    ):
        record(tmp_path, World(), if_exists="overwrite")
    record(tmp_path, World(steps=5), if_exists="number")
    assert (tmp_path / "rollout_2.csv").exists()
    assert (tmp_path / "rollout.episodes.csv").read_text() == "mine"


def test_other_environments_can_be_appended(tmp_path):
    old, new = World(num_envs=2), World(num_envs=4, seed=1)
    record(tmp_path, old)
    record(tmp_path, new, if_exists="append")
    reader = CsvReader(tmp_path / "rollout.csv")
    assert reader.info.envs == new.info.envs
    assert len(reader.episodes) == len(old.episodes) + len(new.episodes)


# -- hostile text ----------------------------------------------------------------------------------


def described(folder: Path, text: str | bytes, *channels: ChannelSpec) -> Path:
    """A file of rows with a description and no checksums."""
    info = RunInfo(channels=channels, envs=(0, 1), step_dt=0.1)
    CsvWriter(info, options(folder)).close()
    file = folder / "rollout.csv"
    header = file.read_bytes()
    file.write_bytes(header + (text if isinstance(text, bytes) else text.encode()))
    for name in ("rollout.csv.crc32", "rollout.episodes.csv"):
        (folder / name).unlink()
    return file


X = ChannelSpec(name="x", dtype=np.dtype("int32"))


@pytest.mark.parametrize(
    "row, reported",
    [
        ("0.0,-1,0,0,5", "column 'env' are from 0"),
        ("0.0,0,-1,0,5", "column 'episode' are from 0"),
        ("0.0,0,0,-1,5", "column 'step' are from 0"),
        ("0.0,7,0,0,5", "no environment 7"),
        ("0.0,0,0,0,5.5", "could not parse `5.5`"),
        ("0.0,0,0,0,99999999999", "could not parse"),
        ("0.0,0,0,0,true", "could not parse"),
        ("0.0,0,0,0", "damaged"),
        ("0.0,0,0,0,", "missing in column 'x'"),
        ("0.0,0,0,0,1,2", "damaged"),
        ('0.0,0,0,0,"5', "could not parse"),
        ("0.0,0,0,0,5\n0.0,0,0,0,6", "step 0 twice"),
        (b"0.0,0,0,0,\xff\xfe", "could not parse"),
        (b"\0" * 64, "damaged"),
    ],
)
def test_impossible_rows_are_refused(row, reported, tmp_path):
    file = described(tmp_path, row if isinstance(row, str) else row, X)
    with open(file, "ab") as stream:
        stream.write(b"\n")
    with pytest.raises(DataError, match=f"rollout.csv' is damaged.*{reported}|{reported}"):
        CsvReader(file)


@pytest.mark.parametrize("row", ["0.0,-1,0,0,5", "x,y", "\0\0\0\0", "0.0,0,0,0,1,2,3"])
def test_bad_lines_after_the_last_checksum_are_skipped(row, tmp_path):
    world = World(steps=20)
    file = record(tmp_path, world, close=False)
    with open(file, "a") as stream:
        stream.write(f"{row}\n{row}\n")
    reader = CsvReader(file)
    assert reader.episodes["rows"].sum() == len(world.rows)
    assert "2 lines that cannot be read" in reader.verify()[0]
    record(tmp_path, World(seed=1), if_exists="append")
    assert CsvReader(file).verify() == []


def test_a_description_of_other_types_is_refused(tmp_path):
    file = record(tmp_path, World(steps=10))
    description = tmp_path / "rollout.csv.json"
    data = json.loads(description.read_text())
    del data["crc32"]
    data["channels"][3]["dtype"] = "<i4"
    description.write_text(json.dumps(data))
    with pytest.raises(DataError, match="Nothing can be read.*could not parse"):
        CsvReader(file)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "rollout.csv")
    with pytest.raises(DataError, match="not a plain file"):
        CsvReader(tmp_path / "rollout.csv")
    with pytest.raises(DataError):
        open_rollouts(tmp_path / "rollout.csv")
    (tmp_path / "b.csv").write_text("time,env,episode,step,x\n")
    os.mkfifo(tmp_path / "b.episodes.csv")
    with pytest.raises(DataError, match="not a plain file"):
        CsvReader(tmp_path / "b.csv")
    with pytest.raises(DataError, match="not a plain file"):
        CsvWriter(World().info, WriterOptions(path=str(tmp_path / "b.csv"), if_exists="append"))


def test_a_header_of_megabytes_without_an_end_is_refused_in_linear_time(tmp_path):
    file = tmp_path / "rollout.csv"
    took = []
    for size in (1 << 19, 1 << 22):
        file.write_bytes(b'time,env,episode,step,"x' + b'\n"\n' * (size // 3) + b'"')
        began = time.process_time()
        with pytest.raises(DataError):
            CsvReader(file)
        took.append(time.process_time() - began)
    assert took[1] < 60 * took[0] + 1  # quadratic time would take minutes
    file.write_bytes(b'time,env,episode,step,"x' + b"\n" * (10 << 20))
    assert len(CsvReader(file).episodes) == 0


@pytest.mark.parametrize(
    "text, reported",
    [
        ("time,env,episode,step,x,x\n0.0,0,0,0,1,2\n", "two columns have the same name"),
        ("time,env,episode,step,x\nnow,0,0,0,1\n", "column 'time' are numbers"),
        ("time,env,episode,step,x\n0.0,0,0,0.5,1\n", "column 'step' are integers"),
        ("time,env,episode,step,x\n0.0,0,0,0,\n", "missing in column 'x'"),
        ("time,env,episode,x\n", "no column step"),
        ("\n\n\n", "no column time, env, episode, step"),
    ],
)
def test_a_table_without_description_is_checked(text, reported, tmp_path):
    file = tmp_path / "rollout.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=reported):
        CsvReader(file)


def test_tens_of_thousands_of_columns_can_be_read(tmp_path):
    count = 30_000
    names = [f"c{i}" if i % 2 else f"c{i}[0]" for i in range(count)]
    file = tmp_path / "rollout.csv"
    file.write_text(
        f"time,env,episode,step,{','.join(names)}\n" + ("0.0,0,0,0" + ",1.5" * count + "\n")
    )
    reader = CsvReader(file)
    assert len(reader.info.channels) == count
    assert reader.read(0, ["c29999"])["c29999"].ravel().tolist() == [1.5]


def test_wrong_checksums_change_no_value(tmp_path):
    from mjlab_rec.data.formats.csv_files import Span, dump_spans

    world = World(steps=20)
    file = record(tmp_path, world)
    huge = 1 << 55
    for spans in (
        [Span(file=0, offset=0, size=huge, rows=huge, crc=0)],
        [Span(file=0, offset=5, size=100, rows=3, crc=0)] * 3,
        [Span(file=9, offset=huge, size=huge, rows=1, crc=0)],
        [Span(file=-1, offset=huge, size=1, rows=huge, crc=0)],
    ):
        (tmp_path / "rollout.csv.crc32").write_bytes(dump_spans(spans))
        try:
            reader = CsvReader(file)
        except DataError:
            continue
        assert reader.verify()
        for index, row in enumerate(reader.episodes.to_dicts()):
            logged = known_rows(world)[row["env"], row["number"]]
            try:
                check_values(reader, index, logged, row["rows"])
            except DataError:
                pass


def test_a_description_of_a_billion_columns_is_refused(tmp_path):
    file = record(tmp_path, World(steps=10))
    description = tmp_path / "rollout.csv.json"
    data = json.loads(description.read_text())
    del data["crc32"]
    for shape, text in (
        ([10**9], "columns, 1000000000 of them for 'flag'"),
        ([0], "no element"),
    ):
        data["channels"][7]["shape"] = shape
        description.write_text(json.dumps(data))
        with pytest.raises(DataError, match=text):
            CsvReader(file)
