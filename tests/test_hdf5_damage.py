"""Damage to HDF5 recordings: wrong values are never returned, and the rest stays readable."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import LONG, Watch, files_of
from data_worlds import same
from test_data_crash import make_blocks
from test_data_hdf5 import World, as_episode, make_info

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader, Hdf5Writer
from mjlab_rec.data.schema import DataError

KINDS = pytest.mark.parametrize("kind", ["blocks", "gzip", "lzf", "episodes", "parts"])


def record(path: Path, kind: str, count: int = 9) -> list[Path]:
    """A short recording with all kinds of data."""
    options = WriterOptions(path=str(path), block_rows=8)
    if kind in ("gzip", "lzf"):
        options.compression = kind
    writer = Hdf5Writer(make_info(), options)
    if kind == "parts":
        writer.options.roll_over_bytes = 150_000
    if kind == "episodes":
        world = World(make_info(), rows=8, seed=3)
        for _ in range(30):
            world.block(p_end=0.05)
        for log in [log for log in world.episodes() if log.ended][:20]:
            writer.write_episode(as_episode(log))
    else:
        for block in make_blocks(5 if kind == "parts" else count, p_end=0.1):
            writer.write(block)
    writer.close()
    return writer.files


@dataclass
class Known:
    """Everything that can be read of a recording."""

    rows: dict[tuple[int, int], dict[str, Any]]
    arrays: dict[tuple[int, int], dict[str, np.ndarray]]
    models: dict[tuple[int, int], dict[str, np.ndarray]]
    attachments: dict[str, bytes]
    finished: bool


def read(reader: Hdf5Reader) -> Known:
    """Everything that can be read; damaged episodes have no arrays, or no model."""
    names = ["step", *(spec.name for spec in reader.info.channels)]
    known = Known({}, {}, {}, reader.info.attachments, reader.finished)
    for index, row in enumerate(reader.episodes.iter_rows(named=True)):
        key = row["env"], row["number"]
        known.rows[key] = {
            name: "nan" if value is not None and value != value else value
            for name, value in row.items()
        }
        try:
            known.arrays[key] = reader.read(index, names)
        except DataError:
            pass
        try:
            known.models[key] = reader.model(index)
        except DataError:
            pass
    return known


def check(found: Known, truth: Known, reported: list[str]) -> None:
    """All values are correct, and all missing data was reported."""
    assert found.rows.keys() <= truth.rows.keys()
    for key, arrays in found.arrays.items():
        assert found.rows[key] == truth.rows[key]
        assert all(same(arrays[name], truth.arrays[key][name]) for name in truth.arrays[key])
    for key, model in found.models.items():
        if key in found.arrays:
            assert model.keys() == truth.models[key].keys()
            assert all(same(model[name], truth.models[key][name]) for name in model)
    whole = found.arrays.keys() == found.models.keys() == truth.rows.keys()
    whole = whole and found.attachments == truth.attachments and found.finished == truth.finished
    assert whole or reported
    assert found.attachments.items() <= truth.attachments.items()


def read_undamaged(path: Path, watch: Watch) -> Known:
    """Read an undamaged recording, and measure the memory for it."""
    for around in (
        contextlib.nullcontext,
        watch.measure_undamaged,
    ):  # The first read also imports modules.
        with around():
            reader = Hdf5Reader(path)
            known = read(reader)
            assert reader.verify() == [] and reader.finished
            reader.close()
    return known


@KINDS
def test_a_flipped_bit_never_changes_a_value(kind, tmp_path, watch):
    path = tmp_path / "hurt.h5"
    record(path, kind)
    truth = read_undamaged(path, watch)
    lost = refused = noticed = 0
    for _ in watch.flips(files_of(path), 40):
        reader = Hdf5Reader(path)
        found, reported = read(reader), reader.verify()
        reader.close()
        check(found, truth, reported)
        assert all("hurt" in sentence for sentence in reported)
        noticed += bool(reported)
        lost += len(truth.rows) - len(found.rows)
        refused += len(found.rows) - len(found.arrays)
    assert noticed > watch.tries // 5
    assert lost + refused < 0.2 * watch.tries * len(truth.rows)  # The rest can be read.


@KINDS
def test_all_complete_blocks_of_a_truncated_file_are_read(kind, tmp_path, watch, caplog):
    path = tmp_path / "a.h5"
    files = record(path, kind, count=200 if LONG else 20)
    truth = read_undamaged(path, watch)
    for victim in sorted({files[0], files[-1]}) if LONG else files[-1:]:
        counts = []
        for _ in watch.cuts([victim], 8):
            caplog.clear()
            counts.append(_rows_of_a_cut_file(path, victim, truth, caplog))
        assert counts == sorted(counts) and len(set(counts)) > 1


def _rows_of_a_cut_file(path: Path, victim: Path, truth: Known, caplog: Any) -> int:
    """The number of rows; everything that can be read is correct."""
    try:
        reader = Hdf5Reader(path)
    except DataError as error:
        assert str(victim) in str(error) or path.name in str(error)
        return 0
    reported = reader.verify()
    assert reported == [] or caplog.text
    rows = reader.episodes["rows"].sum()
    assert reported or rows == sum(row["rows"] for row in truth.rows.values())
    names = ["step", "obs/actor", "next_obs/actor"]
    for index, row in enumerate(reader.episodes.iter_rows(named=True)):
        key = row["env"], row["number"]
        try:
            arrays = reader.read(index, names)
        except DataError as error:  # A block that brought no end may be there, but none before.
            assert "was cut off" in str(error) or "is missing" in str(error)
            continue
        for name in names:
            assert same(arrays[name], truth.arrays[key][name][: row["rows"]])
    reader.close()
    return rows


def test_a_file_truncated_while_it_is_open_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    record(path, "blocks", count=40)
    reader = Hdf5Reader(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match="a.h5' ends before byte .* it was cut off"):
        for index in range(len(reader.episodes)):
            reader.read(index, ["action"])
    assert any("cut off" in sentence for sentence in reader.verify())
    reader.close()


def test_a_damaged_value_is_named_and_can_be_read_without_the_check(tmp_path):
    path = tmp_path / "a.h5"
    record(path, "blocks", count=3)
    reader = Hdf5Reader(path)
    (index,) = np.flatnonzero((reader.episodes["env"] == 20) & (reader.episodes["start"] == 100))
    value = reader.read(int(index), ["action"])["action"]
    reader.close()
    content = path.read_bytes()
    assert content.count(value[:3].tobytes()) == 1
    path.write_bytes(content.replace(value[:3].tobytes(), (value[:3] * 0 + 5).tobytes()))
    reader = Hdf5Reader(path)
    text = r"a.h5', block 0 \(8 rows, control steps 100 to 107\): 'blocks/action' of environments"
    with pytest.raises(DataError, match=text):
        reader.read(int(index), ["reward", "action"])
    reader.read(int(index), ["reward"])
    assert len(reader.verify()) == 1
    reader.close()
    reader = Hdf5Reader(path, check=False)
    assert (reader.read(int(index), ["action"])["action"][:3] == 5).all()
    assert len(reader.verify()) == 1
    reader.close()


def test_a_missing_part_is_reported_and_its_episodes_are_refused(tmp_path, caplog):
    path = tmp_path / "a.h5"
    files = record(path, "parts")
    reader = Hdf5Reader(path)
    truth = read(reader)
    reader.close()
    assert len(files) > 3
    files[1].unlink()
    reader = Hdf5Reader(path)
    found, reported = read(reader), reader.verify()
    reader.close()
    check(found, truth, reported)
    assert 0 < len(found.arrays) < len(found.rows) < len(truth.rows)
    assert reported == [f"Part 1 is missing before '{files[2]}'."]
