"""Damaged NumPy archives: all returned values are correct, and the rest is a clear error."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from damaged_files import LONG, cut, damaged, files_of, flip, lost, read_all, read_undamaged, record
from data_worlds import World

from mjlab_rec.data.formats.npz import NpzReader
from mjlab_rec.data.schema import DataError

KINDS = {
    "folder": ("run", {}),
    "folder, compressed": ("run", {"compression": "deflate"}),
    "file": ("run.npz", {}),
    "file, compressed": ("run.npz", {"compression": "deflate"}),
    "parts": ("run.npz", {"roll_over_bytes": 1500}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, folder: Path, steps: int = 20) -> Path:
    name, options = KINDS[kind]
    return record("npz", folder / name, World(num_envs=2, model=True, steps=steps), **options)


@every_kind
def test_an_undamaged_recording_has_no_damages(kind, tmp_path):
    reader = NpzReader(made(kind, tmp_path))
    assert reader.verify() == []
    assert reader.finished


@every_kind
def test_a_small_recording_needs_little_memory(kind, tmp_path):
    path = made(kind, tmp_path)
    tracemalloc.start()
    try:
        reader = NpzReader(path)
        reader.read(0, ["camera"])
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@every_kind
def test_no_byte_changes_unnoticed(kind, tmp_path, watch):
    path = made(kind, tmp_path)
    whole = read_undamaged(NpzReader, path, watch)
    refused = errors = 0
    for victim in watch.flips(files_of(path), 12):
        try:
            reader = NpzReader(path)
        except DataError as error:
            assert str(path) in str(error)
            assert "episode_" not in victim.name
            refused += 1
            continue
        gone = lost(reader, whole)
        errors += bool(gone)
        if "episode_" in victim.name:
            assert len(gone) <= 1
    assert errors
    assert refused < 0.7 * watch.tries


def test_a_changed_row_of_a_single_file_affects_only_its_episode(tmp_path):
    path = made("file", tmp_path)
    whole = read_all(NpzReader(path))
    key, arrays = next((k, a) for k, a in whole.arrays.items() if len(a["step"]) > 4)
    index = list(whole.rows).index(key)
    with damaged(path, flip(path.read_bytes().index(arrays["camera"].tobytes()), 0)):
        reader = NpzReader(path)
        assert lost(reader, whole) == {key}
        with pytest.raises(DataError, match=f"Episode {key[1]} of environment {key[0]}") as caught:
            reader.read(index, ["camera"])
        assert "channel 'camera': wrong checksum of the rows" in str(caught.value)
        assert str(path) in str(caught.value)
        assert len(reader.verify()) == 1
        unchecked = NpzReader(path, check=False).read(index, ["camera"])["camera"]
    assert (unchecked != arrays["camera"]).sum() == 1


def test_a_changed_row_in_a_folder_names_the_file_and_the_episode(tmp_path):
    path = made("folder", tmp_path)
    victim = path / "episode_000001.npz"
    whole = read_all(NpzReader(path))
    places = {victim.read_bytes().find(a["camera"].tobytes()): k for k, a in whole.arrays.items()}
    at, key = max(places.items())
    index = list(whole.rows).index(key)
    with damaged(victim, flip(at, 0)):
        reader = NpzReader(path)
        assert lost(reader, whole) == {key}
        reported = f"Episode {key[1]} of environment {key[0]}, with .*'camera' in .*{victim.name}"
        with pytest.raises(DataError, match=reported):
            reader.read(index, ["camera"])
        assert len(reader.verify()) == 1
        unchecked = NpzReader(path, check=False).read(index, ["camera"])["camera"]
    assert (unchecked != whole.arrays[key]["camera"]).sum() == 1


@every_kind
def test_a_truncated_file_affects_only_itself(kind, tmp_path, watch):
    name, options = KINDS[kind]
    steps = 20
    if LONG:  # files of more than 4 KB
        steps = 300 if "folder" in kind else 1000
        options = {"roll_over_bytes": 30_000} if kind == "parts" else options
    world = World(num_envs=2, model=True, steps=steps, ends=not LONG or "folder" not in kind)
    path = record("npz", tmp_path / name, world, **options)
    whole = read_undamaged(NpzReader, path, watch)
    files = files_of(path)
    for victim in watch.cuts(files if LONG else files[:3] + files[-3:], 1):
        try:
            reader = NpzReader(path)
        except DataError as error:
            assert str(path) in str(error)
            assert len(files) == 1 or victim.name in ("meta.json", "episodes.jsonl")
            continue
        gone = lost(reader, whole)
        if "episode_" in victim.name:
            assert len(gone) == 1


def test_a_truncated_table_keeps_its_complete_lines(tmp_path, caplog):
    path = made("folder", tmp_path)
    whole = read_all(NpzReader(path))
    table = path / "episodes.jsonl"
    with damaged(table, cut(table.stat().st_size // 2)):
        reader = NpzReader(path)
        assert 0 < len(lost(reader, whole)) < len(whole.rows)
        assert "complete lines, but" in caplog.text
        (reported,) = reader.verify()
    assert f"complete lines, but {len(whole.rows)} were written" in reported


def test_a_damaged_line_affects_only_its_episode(tmp_path, caplog):
    path = made("folder", tmp_path)
    whole = read_all(NpzReader(path))
    table = path / "episodes.jsonl"
    lines = table.read_bytes().splitlines()
    with damaged(table, flip(len(lines[0]) + 1 + lines[1].index(b'"start": ') + 9, 0)):
        reader = NpzReader(path)
        assert len(lost(reader, whole)) == 1
        assert "Line 2 of" in caplog.text and "wrong checksum" in caplog.text
        assert len(reader.verify()) == 1
        assert len(NpzReader(path, check=False).episodes) == len(whole.rows)


def test_a_missing_part_is_reported(tmp_path):
    path = made("parts", tmp_path, steps=100)
    whole = read_all(NpzReader(path))
    path.with_name("run.part001.npz").unlink()
    reader = NpzReader(path)
    assert lost(reader, whole)
    assert "A part of" in reader.verify()[0]


def test_a_damaged_attachment_affects_only_itself(tmp_path):
    path = made("folder", tmp_path)
    whole = read_all(NpzReader(path))
    with damaged(path / "attachments" / "model.mjb", flip(3, 3)):
        reader = NpzReader(path)
        assert lost(reader, whole) == set()
        assert set(reader.info.attachments) == {"notes.txt"}
        assert reader.verify() == [f"The attached file 'model.mjb' of '{path}' is damaged."]
