"""Damaged files in robomimic's layout: what can be read is what was written."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import pytest
from damaged_files import LONG, damaged, files_of, flip, honest, lost, read_whole, record
from data_worlds import World

from mjlab_rec.data.formats.robomimic import RobomimicReader
from mjlab_rec.data.schema import DataError

KINDS = {"plain": {}, "gzip": {"compression": "gzip"}, "parts": {"roll_over_bytes": 30_000}}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, folder: Path) -> Path:
    world = World(num_envs=2, model=True, steps=9)
    return record("robomimic", folder / "demos.h5", world, **KINDS[kind])


@every_kind
def test_a_whole_recording_has_no_damages(kind, tmp_path):
    reader = RobomimicReader(made(kind, tmp_path))
    assert reader.verify() == []
    assert reader.finished
    reader.close()


@every_kind
def test_no_byte_changes_unnoticed(kind, tmp_path, watch):
    path = made(kind, tmp_path)
    whole = honest(RobomimicReader, path, watch)
    refused = errors = 0
    for _ in watch.flips(files_of(path), 25):
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
def test_a_changed_row_costs_its_episode_only(kind, tmp_path):
    path = made(kind, tmp_path)
    reader = RobomimicReader(path)
    whole = read_whole(reader)
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
        told = f"Episode {key[1]} of environment {key[0]}, .*'camera' of '/data/demo_0' in .*demos"
        with pytest.raises(DataError, match=told):
            reader.read(index, ["camera"])
        assert len(reader.verify()) == 1
        reader.close()
        if kind == "plain":
            unchecked = RobomimicReader(path, check=False)
            arrays = unchecked.read(index, ["camera"])
            assert (arrays["camera"] != whole.arrays[key]["camera"]).sum() == 1
            unchecked.close()


@every_kind
def test_a_file_that_is_cut_off_is_refused_or_gives_whole_episodes(kind, tmp_path, watch):
    path = made(kind, tmp_path)
    whole = honest(RobomimicReader, path, watch)
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


def test_an_episode_whose_link_is_gone_is_told_of(tmp_path, caplog):
    path = made("plain", tmp_path)
    reader = RobomimicReader(path)
    whole = read_whole(reader)
    reader.close()
    with h5py.File(path, "r+") as file:
        count = len(file["data"])
        del file["data/demo_1"]
    os.utime(path, (0, 0))  # or it would look as if it still grew
    reader = RobomimicReader(path)
    assert len(lost(reader, whole)) == 1
    (told,) = reader.verify()
    assert f"has {count - 1} episodes, but {count} were written" in told
    assert told in caplog.text
    reader.close()
