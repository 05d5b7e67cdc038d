"""Damaged files in robomimic's layout: all returned values are correct."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import pytest
from damaged_files import LONG, damaged, files_of, flip, lost, read_all, read_undamaged, record
from data_worlds import World

from mjlab_rec.data.formats.robomimic import RobomimicReader
from mjlab_rec.data.schema import DataError

KINDS = {"plain": {}, "gzip": {"compression": "gzip"}, "parts": {"roll_over_bytes": 30_000}}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, folder: Path) -> Path:
    world = World(num_envs=2, model=True, steps=9)
    return record("robomimic", folder / "demos.h5", world, **KINDS[kind])


@every_kind
def test_an_undamaged_recording_has_no_damages(kind, tmp_path):
    reader = RobomimicReader(made(kind, tmp_path))
    assert reader.verify() == []
    assert reader.finished
    reader.close()


@every_kind
def test_no_byte_changes_unnoticed(kind, tmp_path, watch):
    path = made(kind, tmp_path)
    whole = read_undamaged(RobomimicReader, path, watch)
    refused = errors = 0
    for _ in watch.flips(files_of(path), 12):
        try:
            reader = RobomimicReader(path)
        except DataError as error:
            assert str(path.parent) in str(error)
            refused += 1
            continue
        errors += bool(lost(reader, whole))
        reader.close()
    assert errors
    assert refused < watch.tries / 2


@every_kind
def test_a_changed_row_affects_only_its_episode(kind, tmp_path):
    path = made(kind, tmp_path)
    reader = RobomimicReader(path)
    whole = read_all(reader)
    reader.close()
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        key = int(demo.attrs["env"]), int(demo.attrs["episode"])
        at = demo["camera"].id.get_offset() if kind != "gzip" else None
        if at is None:
            at = demo["camera"].id.get_chunk_info(0).byte_offset + 9
    with damaged(path, flip(at, 0)):
        reader = RobomimicReader(path)
        assert lost(reader, whole) == {key}
        index = list(whole.rows).index(key)
        text = f"Episode {key[1]} of environment {key[0]}, .*'camera' of '/data/demo_0' in .*demos"
        with pytest.raises(DataError, match=text):
            reader.read(index, ["camera"])
        assert len(reader.verify()) == 1
        reader.close()
        if kind == "plain":
            unchecked = RobomimicReader(path, check=False)
            arrays = unchecked.read(index, ["camera"])
            assert (arrays["camera"] != whole.arrays[key]["camera"]).sum() == 1
            unchecked.close()


@every_kind
def test_a_truncated_file_is_refused_or_its_whole_episodes_are_read(kind, tmp_path, watch):
    path = made(kind, tmp_path)
    whole = read_undamaged(RobomimicReader, path, watch)
    files = files_of(path)
    for _ in watch.cuts(files if LONG else sorted({files[0], files[-1]}), 2):
        try:
            reader = RobomimicReader(path)
        except DataError as error:
            assert str(path) in str(error)
            assert len(files) == 1
            continue
        lost(reader, whole)
        assert len(reader.episodes)
        reader.close()


def test_an_episode_without_its_link_is_reported(tmp_path, caplog):
    path = made("plain", tmp_path)
    reader = RobomimicReader(path)
    whole = read_all(reader)
    reader.close()
    with h5py.File(path, "r+") as file:
        count = len(file["data"])
        del file["data/demo_1"]
    os.utime(path, (0, 0))  # or it would look like a growing file
    reader = RobomimicReader(path)
    assert len(lost(reader, whole)) == 1
    (reported,) = reader.verify()
    assert f"has {count - 1} episodes, but {count} were written" in reported
    assert reported in caplog.text
    reader.close()
