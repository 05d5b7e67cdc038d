"""The index of a recording of many parts: the same as without it, and never wrong."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_worlds import World, episodes_of, same

from mjlab_rec.data import DataError, open_rollouts
from mjlab_rec.data.files import index_path, parts
from mjlab_rec.data.formats import hdf5_header, hdf5_index, writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5_index import IndexedPart
from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader


def record(path: Path, close: bool = True, blocks: bool = True, more: str = "error", **world):
    made = World(**{"steps": 60, "model": True, **world})
    options = WriterOptions(path=str(path), block_rows=7, roll_over_bytes=1, if_exists=more)
    writer = writer_class("hdf5")(made.info, options)
    for item in made.blocks() if blocks else episodes_of(made):
        (writer.write if blocks else writer.write_episode)(item)
    if close:
        writer.close()
    return writer


def check_same(path: Path, least: int) -> Hdf5Reader:
    """A quick reader returns the same as one that opens all parts; at least some are indexed."""
    quick, slow = Hdf5Reader(path, quick=True), Hdf5Reader(path)
    assert sum(isinstance(part, IndexedPart) for part in quick.parts) >= least
    assert quick.episodes.equals(slow.episodes) and quick.finished == slow.finished
    read = {name: quick.attachment(name) for name in quick.attached}
    assert replace(quick.info, attachments=read) == slow.info and quick.gaps == slow.gaps
    names = list(slow.info.kinds)
    for index in range(len(slow.episodes)):
        found, wanted = quick.read(index, names), slow.read(index, names)
        assert all(same(found[name], wanted[name]) for name in names)
        model, right = quick.model(index), slow.model(index)
        assert model.keys() == right.keys()
        assert all(np.array_equal(model[name], right[name]) for name in model)
    assert quick.verify() == slow.verify()
    slow.close()
    return quick


@pytest.mark.parametrize("blocks", [True, False])
def test_a_closed_recording_is_read_from_one_record(tmp_path, blocks):
    path = tmp_path / "run.h5"
    record(path, blocks=blocks, seed=3)
    quick = check_same(path, least=len(parts(path)))
    assert len({id(part.shared.record) for part in quick.parts}) == 1
    quick.close()
    with pytest.raises(DataError, match="was closed. Open the recording again"):
        quick.read(len(quick.episodes) - 1, ["action"])


def test_a_growing_recording_is_read_from_its_records_and_its_last_part(tmp_path):
    path = tmp_path / "run.h5"
    writer = record(path, close=False)
    check_same(path, least=len(parts(path)) - 1).close()
    writer.close()


def test_only_needed_parts_are_opened(tmp_path, monkeypatch):
    record(tmp_path / "run.h5")
    opened: list[str] = []
    load = IndexedPart.loaded
    monkeypatch.setattr(
        IndexedPart, "loaded", lambda part: opened.append(part.path.name) or load(part)
    )
    with open_rollouts([tmp_path / "run.h5"]) as rollouts:
        assert len(rollouts) > 5 and rollouts.rows and not opened
        rollouts.read(len(rollouts) - 1, ["action"])
        assert 0 < len(set(opened)) < len(parts(tmp_path / "run.h5")) - 1
        monkeypatch.setattr(hdf5_index, "_LOADED", 1)
        rows = sum(len(b["step"]) for b in rollouts.transitions(16, memory_bytes=2000, workers=2))
        assert rows == rollouts.rows


def test_recordings_with_and_without_an_index_are_read_as_one(tmp_path):
    for seed in range(3):
        record(tmp_path / f"{seed}.h5", seed=seed)
    index_path(tmp_path / "1.h5").unlink()
    with open_rollouts(tmp_path) as rollouts:
        at = 0
        for seed in range(3):
            with open_rollouts(tmp_path / f"{seed}.h5") as alone:
                for arrays in alone:
                    assert all(same(rollouts[at][name], values) for name, values in arrays.items())
                    at += 1
        assert at == len(rollouts)


def test_an_appended_recording_keeps_the_index_of_the_earlier_one(tmp_path):
    path = tmp_path / "run.h5"
    record(path)
    before = len(parts(path))
    record(path, more="append", seed=1)
    check_same(path, least=len(parts(path))).close()
    assert len(parts(path)) > before
    record(path, more="overwrite", steps=3)
    assert len(parts(path)) == 1 and not index_path(path).exists()


def test_an_index_that_does_not_fit_is_not_used(tmp_path):
    path = tmp_path / "run.h5"
    record(path)
    files = parts(path)
    whole = index_path(path).read_bytes()
    for content in (b"", b"nonsense", whole[:-1], whole[:40], whole[:16] + bytes(8) + whole[24:]):
        index_path(path).write_bytes(content)
        check_same(path, least=0).close()
    index_path(path).write_bytes(whole)
    with open(files[2], "ab") as stream:
        stream.write(b"more")
    reader = Hdf5Reader(path, quick=True)
    assert not any(isinstance(part, IndexedPart) for part in reader.parts)
    reader.close()
    os.truncate(files[2], files[2].stat().st_size - 4)
    files[3].unlink()
    reader = Hdf5Reader(path, quick=True)
    assert not any(isinstance(part, IndexedPart) for part in reader.parts)
    assert any("Part 3 is missing" in why for why in reader.damages)
    reader.close()


def test_a_first_part_of_another_recording_makes_the_index_unused(tmp_path):
    for seed in (0, 1):
        record(tmp_path / f"{seed}/run.h5", seed=seed, num_envs=1, ends=False)
    path, other = (tmp_path / f"{seed}/run.h5" for seed in (0, 1))
    assert path.stat().st_size == other.stat().st_size
    shutil.copy(other, path)
    quick, slow = Hdf5Reader(path, quick=True), Hdf5Reader(path)
    assert not any(isinstance(part, IndexedPart) for part in quick.parts)
    assert quick.episodes.equals(slow.episodes) and quick.verify() == slow.verify() != []
    quick.close()
    slow.close()


def test_a_damaged_header_of_the_first_part_is_told_at_once(tmp_path):
    path = tmp_path / "run.h5"
    record(path)
    content = bytearray(path.read_bytes())
    content[hdf5_header.PLACES[0]] ^= 1
    path.write_bytes(content)
    quick = check_same(path, least=0)
    assert len(quick.damages) == 1 and "copy 1 of its header" in quick.damages[0]
    quick.close()


def test_a_damaged_attached_file_is_left_out_and_told(tmp_path, caplog):
    for name in ("a.h5", "b.h5"):
        record(tmp_path / name)
    content = (tmp_path / "b.h5").read_bytes()
    model = World().info.attachments["model.mjb"]
    assert content.count(model) == 1
    (tmp_path / "b.h5").write_bytes(content.replace(model, model[::-1]))
    with open_rollouts([tmp_path / "a.h5", tmp_path / "b.h5"]) as rollouts:
        assert rollouts.attachments == World().info.attachments
        assert any("b.h5" in why and "'model.mjb' is damaged" in why for why in rollouts.verify())
    with open_rollouts([tmp_path / "b.h5", tmp_path / "a.h5"]) as rollouts:
        assert rollouts.attachments.keys() == {"notes.txt"}
    assert "'model.mjb' is damaged" in caplog.text


def test_parts_share_the_description_only_if_it_is_the_same(tmp_path):
    for name in ("a", "b"):
        record(tmp_path / f"{name}.h5")
    record(tmp_path / "c.h5", every=2)

    def header(path: Path, like: hdf5_header.Header | None = None) -> hdf5_header.Header:
        content = path.read_bytes()
        return hdf5_header.load(lambda at, size: content[at : at + size], len(content), path, like)

    first = header(tmp_path / "a.h5")
    assert header(tmp_path / "a.part001.h5", first).info is first.info
    other = header(tmp_path / "b.h5", first)  # another run
    assert other.info == first.info and other.info is not first.info
    assert header(tmp_path / "c.h5", first).info == header(tmp_path / "c.h5").info != first.info


def test_a_part_that_was_exchanged_is_noticed_when_it_is_read(tmp_path):
    for seed in (0, 1):
        record(tmp_path / f"{seed}/run.h5", seed=seed, num_envs=1, ends=False)
    one, other = (parts(tmp_path / f"{seed}/run.h5")[2] for seed in (0, 1))
    assert one.stat().st_size == other.stat().st_size
    shutil.copy(other, one)
    with open_rollouts([tmp_path / "0/run.h5"]) as rollouts:
        with pytest.raises(DataError, match="run.part002.h5' was replaced. Remove"):
            for index in range(len(rollouts)):
                rollouts[index]


def test_a_recording_is_complete_without_an_index(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mjlab_rec.data.formats.hdf5.add_part", fail)
    record(tmp_path / "run.h5")
    assert not index_path(tmp_path / "run.h5").exists()
    check_same(tmp_path / "run.h5", least=0).close()
