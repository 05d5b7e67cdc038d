"""Blocks are screened without reordering rows, and nothing that is wrong is missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damaged_files import damaged, flip
from data_worlds import World

from mjlab_rec.data import diff, merge, open_rollouts
from mjlab_rec.data.checking import check, screening
from mjlab_rec.data.checksum import crc32, joined_crc32
from mjlab_rec.data.formats import hdf5_scan, writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Block

Spoil = Callable[[Block, np.random.Generator], None]


def write(path: Path, world: World, spoil: Spoil | None = None, seed: int = 0) -> Path:
    writer = writer_class("hdf5")(world.info, WriterOptions(path=str(path), block_rows=7))
    rng = np.random.default_rng(seed)
    for number, block in enumerate(world.blocks()):
        if spoil is not None and number == 1:
            spoil(block, rng)
        writer.write(block)
    writer.close()
    return path


def set_flag(block: Block, rng: np.random.Generator) -> None:
    name = str(rng.choice(["terminated", "truncated"]))
    at = rng.integers(block.rows), rng.integers(block.num_envs)
    block.arrays[name][at] = ~block.arrays[name][at]


def change_reward(block: Block, rng: np.random.Generator) -> None:
    block.arrays["reward"][rng.integers(block.rows), rng.integers(block.num_envs)] += 100


def swap_ends(block: Block, rng: np.random.Generator) -> None:
    if len(block.ends):
        at = rng.integers(len(block.ends))
        block.ends.terminated[at] = ~block.ends.terminated[at]


def jump(block: Block, rng: np.random.Generator) -> None:
    block.step[rng.integers(block.rows) :] += 1000


@pytest.mark.parametrize("spoil", [set_flag, change_reward, swap_ends, jump])
@pytest.mark.parametrize("every", [1, 3])
def test_a_screened_recording_has_the_same_findings(spoil, every, tmp_path, monkeypatch):
    noticed = 0
    for seed in range(4):
        made = World(steps=27, special=False, every=every, seed=seed, partial=True)
        path = write(tmp_path / f"{seed}.h5", made, spoil, seed)
        screened = check(path)
        with monkeypatch.context() as without:
            without.setattr(screening, "suspicious", lambda reader, rows: np.arange(len(rows.good)))
            whole = check(path)
        assert [f.to_json() for f in screened.findings] == [f.to_json() for f in whole.findings]
        assert screened.good.tolist() == whole.good.tolist()
        noticed += not whole.ok
    assert noticed


def with_codec(codec: str) -> World:
    made = World(steps=20, special=False)
    specs = made.info.channels
    made.info.channels = tuple(replace(s, codec=codec) if s.name == "camera" else s for s in specs)
    return made


def test_a_damaged_picture_is_found_and_named(tmp_path):
    path = write(tmp_path / "run.h5", with_codec("png"))
    whole = check(path)
    assert whole.ok and whole.good.all()
    with h5py.File(path) as file:
        stream: Any = file["encoded/camera"]
        at = stream.id.get_chunk_info(0).byte_offset + 40
    with damaged(path, flip(at, 2)):
        result = check(path)
    assert {(f.kind, f.channel) for f in result.findings} == {("checksum", "camera")}
    assert 0 < (~result.good).sum() < len(result.good)
    assert "a picture of 'camera'" in result.findings[0].text


def test_lossy_pictures_do_not_change_when_they_are_merged(tmp_path):
    path = write(tmp_path / "run.h5", with_codec("jpeg:50"))
    merge([path], tmp_path / "all.h5")
    with open_rollouts(tmp_path / "all.h5") as rollouts:
        assert rollouts.channels["camera"].codec == "png"
    assert diff(path, tmp_path / "all.h5").same
    assert check(tmp_path / "all.h5").ok


@pytest.mark.parametrize("world", [{}, {"every": 2}, {"gaps": (1,)}, {"partial": True}])
def test_nothing_is_suspicious_in_a_good_recording(world, tmp_path, monkeypatch):
    looked = []
    original = screening.suspicious

    def suspicious(*args) -> np.ndarray:
        looked.append(original(*args))
        return looked[-1]

    monkeypatch.setattr(screening, "suspicious", suspicious)
    result = check(write(tmp_path / "run.h5", World(steps=30, special=False, **world)))
    assert result.ok and len(looked) == 1
    if "gaps" not in world:  # the rewards of lost rows are not in the recorded return
        assert not len(looked[0])


@pytest.mark.parametrize("nbytes", [1, 24, 9600])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 101])
def test_the_checksum_of_many_pieces_is_computed_from_theirs(nbytes, count):
    content = np.random.default_rng(count).bytes(nbytes * count)
    pieces = [content[at : at + nbytes] for at in range(0, len(content), nbytes)]
    checks = np.array([crc32(piece) for piece in pieces], np.uint32)
    assert joined_crc32(checks, nbytes) == crc32(content)
    if count > 1:
        checks[[0, 1]] = checks[[1, 0]]
        assert joined_crc32(checks, nbytes) != crc32(content)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_joined_checksums_find_the_damage_that_single_ones_find(compression, tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    world = World(num_envs=5, steps=21, special=False)
    options = WriterOptions(path=str(path), block_rows=7, compression=compression)
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5_layout._CHECKED", 40)
    writer = writer_class("hdf5")(world.info, options)
    for block in world.blocks():
        writer.write(block)
    writer.close()
    monkeypatch.setattr(hdf5_scan, "_PIECE_BYTES", 100)
    used, noticed = np.flatnonzero(np.fromfile(path, np.uint8)), 0
    for at in np.random.default_rng(0).choice(used, 15):
        with damaged(path, flip(int(at), 3)):
            found = []
            for many in (0, 1 << 30):
                monkeypatch.setattr(hdf5_scan, "_MANY", many)
                result = check(path)
                found.append(
                    (sorted(str(f.to_json()) for f in result.findings), result.good.tolist())
                )
                noticed += any(f.kind == "checksum" for f in result.findings)
        assert found[0] == found[1]
    assert noticed > 5
