"""Pictures in Parquet: a column of PNG or JPEG files that other programs read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from picture_worlds import EXACT, PictureWorld
from test_data_formats import KINDS, check, read, record
from test_pictures_recorder import CHANNELS

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.formats import parquet_pictures
from mjlab_rec.data.schema import DataError
from mjlab_rec.recorders.pictures import with_codecs

KIND = KINDS["parquet"]
EYE = {"obs/eye": ("uint8", (9, 8, 3))}
PART = "part-00000.parquet"


@pytest.mark.parametrize("more", [{}, {"compression": "zstd"}, {"roll_over_bytes": 2000}], ids=str)
def test_pictures_read_back_bit_for_bit(more, tmp_path):
    world = PictureWorld(partial=True, steps=20)
    with read(record(KIND, tmp_path, world, **more)) as rollouts:
        check(KIND, rollouts, world.episodes, world.info)
        assert rollouts.verify() == []
    table = pl.read_parquet(tmp_path / KIND.path / PART)
    files = {name for name in EXACT if table.schema[name] == parquet_pictures.KIND}
    assert files == {name for name, (dtype, _) in EXACT.items() if dtype != "float32"}


def test_other_programs_read_the_files_as_the_column_of_pictures_they_know(tmp_path):
    image, parquet = pytest.importorskip("PIL.Image"), pytest.importorskip("pyarrow.parquet")
    world = PictureWorld(kinds=EYE | {"obs/mm": ("uint16", (8, 9))}, steps=10)
    record(KIND, tmp_path, world)
    rows = parquet.read_table(tmp_path / KIND.path).to_pylist()
    truth = {(row.env, row.number, row.step): row.values for row in world.rows}
    assert len(rows) == len(truth)
    for row in rows:
        values = truth[row["env"], row["episode"], row["step"]]
        for name in ("obs/eye", "next_obs/eye", "obs/mm"):
            assert set(row[name]) == {"bytes", "path"} and row[name]["path"] is None
            found = image.open(io.BytesIO(row[name]["bytes"]))
            assert found.format == "PNG"
            np.testing.assert_array_equal(np.asarray(found), values[name])


def test_jpeg_pictures_change_a_little(tmp_path):
    pytest.importorskip("PIL.Image")
    kinds = {"obs/eye": ("uint8", (33, 21, 3)), "obs/first": ("uint8", (3, 24, 32))}
    world = PictureWorld(codec="jpeg:90", kinds=kinds, noise=False, steps=10)
    with read(record(KIND, tmp_path, world)) as rollouts:
        assert rollouts.verify() == []
        truth = {(row.env, row.number, row.step): row.values for row in world.rows}
        for index, row in enumerate(rollouts.episodes.iter_rows(named=True)):
            found = rollouts[index]
            for at, step in enumerate(found["step"].tolist()):
                values = truth[row["env"], row["number"], step]
                for name in kinds:
                    off = np.abs(found[name][at].astype(float) - values[name]).mean()
                    assert 0 < off < 6


def change(path: Path, work: Any) -> None:
    """Change the first picture of a part."""
    table = pl.read_parquet(path)
    files = table["obs/eye"].struct.field("bytes").to_list()
    files[0] = work(files[0])
    column = parquet_pictures.column("obs/eye", files)
    metadata = pl.read_parquet_metadata(path)
    table.with_columns(column).write_parquet(path, metadata=metadata)  # type: ignore[arg-type]


def test_a_damaged_picture_is_an_error_that_names_it(tmp_path):
    world = PictureWorld(kinds=EYE, ends=False)
    record(KIND, tmp_path, world)
    path = tmp_path / KIND.path
    change(path / PART, lambda file: file[:-30] + bytes(30))
    with open_rollouts(path) as rollouts:
        with pytest.raises(DataError, match="channel 'obs/eye': wrong checksum of the rows 0 to"):
            rollouts[0]
        rollouts[1]
        rollouts.read(0, ["next_obs/eye", "action"])
        assert len(rollouts.verify()) == 1
    with open_rollouts(path, check=False) as rollouts:
        with pytest.raises(DataError, match="'obs/eye': a picture of the rows 0 to .* cannot be"):
            rollouts[0]


def test_a_picture_of_another_size_and_a_missing_one_are_errors(tmp_path):
    record(KIND, tmp_path, PictureWorld(kinds=EYE, ends=False))
    record(KIND, tmp_path / "b", PictureWorld(kinds={"obs/eye": ("uint8", (90, 8, 3))}, ends=False))
    path = tmp_path / KIND.path
    other = pl.read_parquet(tmp_path / "b" / KIND.path / PART)["obs/eye"][0]["bytes"]
    change(path / PART, lambda file: other)
    with open_rollouts(path, check=False) as rollouts:
        with pytest.raises(DataError, match="no PNG of the size and type of the channel"):
            rollouts[0]
    change(path / PART, lambda file: None)
    with open_rollouts(path, check=False) as rollouts:
        with pytest.raises(DataError, match="column 'obs/eye' are missing"):
            rollouts[0]


def test_recordings_whose_pictures_are_arrays_can_still_be_read(tmp_path, monkeypatch):
    world = PictureWorld(kinds=EYE, steps=15)
    with monkeypatch.context() as patch:
        patch.setattr(parquet_pictures, "has_files", lambda spec: False)
        writer = record(KIND, tmp_path, world)
    assert pl.read_parquet(tmp_path / KIND.path / PART).schema["obs/eye"] == pl.Array(
        pl.UInt8, (9, 8, 3)
    )
    with read(writer) as rollouts:
        check(KIND, rollouts, world.episodes, world.info)


def test_floats_are_arrays():
    found = with_codecs(CHANNELS, "png", parquet_pictures.CODECS, "ParquetWriter", floats=False)
    assert {spec.name for spec in found if spec.codec} == {"obs/eye", "next_obs/eye"}
    for name in ("obs/float", "obs/depth"):
        with pytest.raises(ValueError, match=f"'{name}' is float32, which ParquetWriter stores as"):
            with_codecs(CHANNELS, {name: "png"}, ("png",), "ParquetWriter", floats=False)
