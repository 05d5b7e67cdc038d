"""Parquet recordings with flipped bits, truncated parts, wrong footers and kills."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from damaged_files import LONG, files_of, lost, read_undamaged
from data_worlds import World, episodes_of, same

from mjlab_rec.data.formats import parquet
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.episode_table import seal
from mjlab_rec.data.formats.parquet import DESCRIPTION, ParquetReader, ParquetWriter
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode


def record(folder: Path, world: World, close: bool = True, **more: Any) -> Path:
    more = {"path": str(folder / "run"), "roll_over_bytes": 3000, **more}
    writer = ParquetWriter(world.info, WriterOptions(**more))
    for episode in episodes_of(world):
        writer.write_episode(episode)
    if close:
        writer.close()
    else:
        writer._path_lock.release()
    return writer.files[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, World]]:
    world = World(num_envs=2, steps=80, model=True)
    folder = record(tmp_path_factory.mktemp("whole"), world)
    assert len(list(folder.glob("part-*"))) > 3
    yield folder, world


def check_true(reader: ParquetReader, world: World) -> tuple[int, int]:
    """All returned values are correct; returns the numbers of readable and lost columns."""
    known = {(e.env, e.number): e for e in world.episodes}
    good = bad = 0
    assert reader.info.channels == world.info.channels
    for index, row in enumerate(reader.episodes.to_dicts()):
        logged = known[row["env"], row["number"]]
        assert (row["length"], row["success"]) == (logged.length, logged.success)
        assert row["return"] == pytest.approx(logged.total, rel=1e-9)
        model = reader.model(index)
        assert all(same(model[name], logged.model[name]) for name in logged.model)
        for spec in world.info.channels:
            try:
                values = reader.read(index, [spec.name])[spec.name]
            except DataError as error:
                assert ".parquet" in str(error) and "rows" in str(error)
                bad += 1
                continue
            good += 1
            assert same(values, np.stack([row.values[spec.name] for row in logged.rows]))
    return good, bad


def episodes_in(path: Path) -> dict[str, int]:
    """The number of episodes of each part."""
    return Counter(row["file"].name for row in ParquetReader(path)._rows)


@pytest.mark.parametrize("name", ["part-00001.parquet", DESCRIPTION])
def test_a_flipped_bit_is_reported_or_harmless_and_affects_only_its_part(
    name, whole, tmp_path, watch
):
    shutil.copytree(whole[0], tmp_path / "run")
    path = tmp_path / "run"
    truth, most = read_undamaged(ParquetReader, path, watch), episodes_in(path)[name]
    watch.spare["process"] = 64 << 20  # Polars loads its symbols to print its first panic.
    harmless = 0
    for _ in watch.flips([path / name], 16):
        reader = ParquetReader(path)
        assert len(lost(reader, truth)) <= most
        harmless += not reader.verify()
    assert harmless < watch.tries


def test_a_truncated_part_affects_only_itself(tmp_path, watch):
    world = World(num_envs=2, steps=1000 if LONG else 80, model=True)
    path = record(tmp_path, world, roll_over_bytes=40_000 if LONG else 3000)
    truth, episodes = read_undamaged(ParquetReader, path, watch), episodes_in(path)
    files = files_of(path) if LONG else [path / "part-00001.parquet", path / DESCRIPTION]
    for victim in watch.cuts(files, 3):
        reader = ParquetReader(path)
        assert len(lost(reader, truth)) == episodes[victim.name]
        (reported,) = reader.verify()
        assert f"{victim.name}' is damaged or incomplete" in reported


def test_missing_parts_are_reported_and_not_appended_to(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    last = max((tmp_path / "run").glob("part-*"))
    for file in (tmp_path / "run" / "part-00001.parquet", last):
        file.unlink()
    reported = ParquetReader(tmp_path / "run").verify()
    numbers = 1, int(last.stem[-5:])
    assert reported == [f"Part {number} of '{tmp_path / 'run'}' is missing." for number in numbers]
    with pytest.raises(DataError, match="Cannot append to .*damaged.*Move damaged parts"):
        record(tmp_path, World(), if_exists="append")


def test_a_part_with_a_huge_number_is_handled_quickly(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "part-00001.parquet").rename(tmp_path / "run" / "part-999999999.parquet")
    reader = ParquetReader(tmp_path / "run")
    assert check_true(reader, whole[1])[1] == 0
    assert len(reader.episodes) == len(whole[1].episodes)
    assert len(reader.verify()) == 10


def test_a_damaged_description_is_taken_from_a_part(whole, tmp_path):
    folder, world = whole
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / DESCRIPTION).write_bytes(b"PAR1")
    reader = ParquetReader(tmp_path / "run")
    assert check_true(reader, world)[1] == 0
    assert not reader.finished and "Attached files" in reader.verify()[0]


def test_names_are_never_patterns(tmp_path):
    names = ["run_lr1", "run_lr[1]", "lr=1/run*", "run?"]
    worlds = [World(seed=seed, steps=20) for seed in range(len(names))]
    for name, world in zip(names, worlds, strict=True):
        record(tmp_path, world, path=str(tmp_path / name))
    for name, world in zip(names, worlds, strict=True):
        assert check_true(ParquetReader(tmp_path / name), world)[1] == 0


def test_a_channel_may_be_called_like_a_pattern(tmp_path):
    world = World(steps=0)
    info = world.info
    info.channels = (
        ChannelSpec(name="^a.*$", dtype=np.dtype("f4")),
        ChannelSpec(name="ab", dtype=np.dtype("f4")),
    )
    writer = ParquetWriter(info, WriterOptions(path=str(tmp_path / "run")))
    writer.write_episode(episode({"^a.*$": np.ones(2, "f4"), "ab": np.zeros(2, "f4")}))
    writer.close()
    assert ParquetReader(tmp_path / "run").read(0, ["^a.*$"])["^a.*$"].tolist() == [1, 1]


def episode(arrays: dict[str, np.ndarray]) -> Episode:
    rows = len(next(iter(arrays.values())))
    return Episode(
        env=2, number=0, start=0, length=rows, total=1.0, recorded=1.0, terminated=False,
        truncated=True, success=None, partial=False,
        arrays={**arrays, "step": np.arange(rows, dtype=np.int32)},
    )  # fmt: skip


# -- wrong descriptions ----------------------------------------------------------------------------


def forged(folder: Path, frame: pl.DataFrame | None = None, **changes: Any) -> None:
    """Replace the second part by one with a changed description and correct checksums."""
    file = folder / "part-00001.parquet"
    about = pl.read_parquet_metadata(file)
    rows = json.loads(about["episodes"])["episodes"]
    for row in rows:
        row.update(changes)
    frame = pl.read_parquet(file) if frame is None else frame
    episodes = seal(json.dumps({"episodes": rows}))
    frame.write_parquet(file, metadata={"mjlab_rec": about["mjlab_rec"], "episodes": episodes})


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 10**9, "length": 10**9},
        {"rows": -1},
        {"rows": "7"},
        {"rows": None},
        {"env": 10**30},
        {"env": 3},
        {"return": "much"},
        {"terminated": 1},
        {"crc32": ""},
        {"crc32": None},
        {"model": {"a": {"dtype": "|O", "shape": [2], "base64": ""}}},
        {"model": {"a": {"dtype": "<f4", "shape": [1 << 40], "base64": ""}}},
        {"model": {"a": {"dtype": "<f4", "shape": [3], "base64": "AAAA"}}},
        {"model": [1]},
    ],
)
def test_a_wrong_table_of_episodes_affects_only_its_part(changes, whole, tmp_path):
    folder, world = whole
    shutil.copytree(folder, tmp_path / "run")
    forged(tmp_path / "run", **changes)
    reader = ParquetReader(tmp_path / "run")
    assert check_true(reader, world)[1] == 0
    assert 0 < len(reader.episodes) < len(world.episodes)
    (reported,) = reader.verify()
    assert "part-00001.parquet" in reported


def test_columns_that_are_not_as_described_are_refused(whole, tmp_path):
    folder, world = whole
    frame = pl.read_parquet(folder / "part-00001.parquet")
    first = frame["state"].to_numpy()
    for other, reported in {
        "reward": (frame.with_columns(pl.col("reward").cast(pl.Float64)), "'reward' is Float64"),
        "missing": (frame.drop("reward"), "'reward' is missing"),
        "shape": (frame.with_columns(pl.Series("state", first[:, :1])), "'state' is Array"),
        "step": (frame.with_columns(pl.col("step").cast(pl.Int64)), "'step' is not"),
        "rows": (frame.head(3), "has 3 rows instead of"),
    }.values():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "run")
        forged(tmp_path / "run", other)
        reader = ParquetReader(tmp_path / "run")
        assert check_true(reader, world)[1] == 0
        assert reported in reader.verify()[0]
    forged(tmp_path / "run", frame.with_columns(reward=pl.lit(None, pl.Float32)))
    assert "missing" in ParquetReader(tmp_path / "run").verify()[0]


def test_a_small_part_of_a_billion_rows_is_refused_before_it_is_decoded(whole, tmp_path):
    folder, _ = whole
    shutil.copytree(folder, tmp_path / "run")
    count = 30_000_000  # a billion would need as little space, but take long to write
    kinds = pl.read_parquet_schema(folder / "part-00001.parquet")
    small = pl.select(pl.repeat(0, count, dtype=pl.Int32).alias("step"))
    wide = pl.read_parquet(folder / "part-00001.parquet").head(1).drop("step")
    assert set(wide.columns) < set(kinds)
    frame = small.with_columns(pl.lit(wide["reward"][0], pl.Float32).alias("reward"))
    row = ParquetReader(folder)._rows[0]
    forged_row = {"rows": count, "length": count, "env": row["env"]}
    file = tmp_path / "run" / "part-00001.parquet"
    about = pl.read_parquet_metadata(file)
    one = json.loads(about["episodes"])["episodes"][0] | forged_row
    text = seal(json.dumps({"episodes": [one]}))
    frame.write_parquet(
        file, row_group_size=count, metadata={"mjlab_rec": about["mjlab_rec"], "episodes": text}
    )
    assert file.stat().st_size < count // 64
    assert "is too small for" in ParquetReader(tmp_path / "run").verify()[0]


def test_other_files_than_parquet_are_refused(whole, tmp_path):
    folder, _ = whole
    shutil.copytree(folder, tmp_path / "run")
    os.mkfifo(tmp_path / "run" / "part-00077.parquet")
    (tmp_path / "run" / "part-00078.parquet").mkdir()
    (tmp_path / "run" / "part-00079.parquet").write_bytes(b"PAR1" * 100)
    reported = " ".join(ParquetReader(tmp_path / "run").verify())
    assert "part-00077" in reported and "part-00078" in reported and "part-00079" in reported
    for file in (tmp_path / "run").glob("part-0000*"):
        file.unlink()
    (tmp_path / "run" / DESCRIPTION).write_bytes(b"x")
    with pytest.raises(DataError, match="mjlab_rec.parquet' is damaged"):
        open_rollouts(tmp_path / "run")


# -- when parts are written ------------------------------------------------------------------------


def test_a_part_is_written_after_a_minute(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(parquet, "clock", lambda: now[0])
    world = World(steps=40)
    writer = ParquetWriter(world.info, WriterOptions(path=str(tmp_path / "run")))
    counts = []
    for number, each in enumerate(episodes_of(world)):
        now[0] = 25.0 * number
        writer.write_episode(each)
        counts.append(len(list((tmp_path / "run").glob("part-*"))))
    assert counts[:8] == [0, 0, 0, 1, 1, 1, 2, 2]
    writer.close()
    assert check_true(ParquetReader(tmp_path / "run"), world)[1] == 0


def test_only_a_closed_recording_is_finished(tmp_path):
    folder = record(tmp_path, World(), close=False)
    assert not ParquetReader(folder).finished and ParquetReader(folder).verify() == []
    record(tmp_path, World(seed=1), if_exists="append")
    assert ParquetReader(folder).finished
    record(tmp_path, World(seed=2), if_exists="append", close=False)
    assert not ParquetReader(folder).finished


def test_appending_removes_temporary_files_of_a_kill(tmp_path):
    record(tmp_path, World(), close=False)
    left = tmp_path / ".run.part-00009.parquet.tmp"
    other = tmp_path / ".run2.part-00009.parquet.tmp"
    for file in (left, other):
        file.write_bytes(b"half")
    record(tmp_path, World(seed=1), if_exists="append")
    assert not left.exists() and other.exists()


def test_many_short_episodes_and_large_models_stay_readable(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_TABLE_BYTES", 20_000)
    world = World(steps=60, model=True)
    folder = record(tmp_path, world, roll_over_bytes=1 << 30)
    assert len(list(folder.glob("part-*"))) > 1
    assert check_true(ParquetReader(folder), world)[1] == 0
