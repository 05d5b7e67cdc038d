"""``check`` on broken and hostile files: it ends, names the damage, and what it calls good is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from damaged_files import Watch, files_of, read_all, record
from data_worlds import World, same
from test_npz_hostile import npy, rewrite, zeros

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.checking import CheckResult, check
from mjlab_rec.data.formats import format_named, writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import DataError

KINDS = {
    "hdf5": "run.h5",
    "robomimic": "demo.h5",
    "npz": "run",
    "csv": "run.csv",
    "parquet": "run_parquet",
}


def world() -> World:
    return World(steps=10, special=False, model=True)


def write(format: str, folder: Path) -> Path:
    path = folder / KINDS[format.removesuffix(" blocks")]
    if format != "hdf5 blocks":
        return record(format, path, world())
    made = world()
    writer = writer_class("hdf5")(made.info, WriterOptions(path=str(path), block_rows=7))
    for block in made.blocks():
        writer.write(block)
    writer.close()
    return path


def is_true(path: Path, result: CheckResult, whole) -> None:
    """What is called good is what was written, and if something is missing, it is not good."""
    try:
        rollouts = open_rollouts(path)
    except DataError:
        assert not result.ok and not len(result.good)
        return
    with rollouts:
        reader = rollouts._reader
        assert len(result.good) == len(rollouts)
        names = ["step", *rollouts.channels]
        for index in np.flatnonzero(result.good).tolist():
            row = rollouts.episodes.row(index, named=True)
            key = row["env"], row["number"]
            if not row["partial"]:
                assert row == whole.rows[key] or not result.ok
            found, wanted = reader.read(index, names), whole.arrays[key]
            rows = len(found["step"])
            assert all(same(values, wanted[name][:rows]) for name, values in found.items())
        if result.ok:
            assert len(rollouts) == len(whole.rows) and result.good.all()
            assert all(same(v, whole.models[key][n]) for i, key in enumerate(whole.rows)
                       for n, v in reader.model(i).items())  # fmt: skip
        elif reader.verify():
            assert result.findings


FORMATS = pytest.mark.parametrize("format", [*KINDS, "hdf5 blocks"])


@FORMATS
def test_a_flipped_bit_is_found_or_changes_nothing(format, tmp_path, watch: Watch):
    path = write(format, tmp_path)
    whole = read_all(format_named(format.removesuffix(" blocks")).open(path))
    with watch.measure_undamaged():
        assert check(path).ok
    for _ in watch.flips(files_of(path), few=12):
        is_true(path, check(path), whole)


@FORMATS
def test_a_truncated_file_is_never_good(format, tmp_path, watch: Watch):
    path = write(format, tmp_path)
    whole = read_all(format_named(format.removesuffix(" blocks")).open(path))
    with watch.measure_undamaged():
        assert check(path).ok
    for victim in watch.cuts(files_of(path), few=2):
        result = check(path)
        is_true(path, result, whole)
        if result.ok and path.suffix == ".h5":  # only room that was reserved is missing
            h5py.File(path).close()
        elif result.ok:
            assert not victim.stat().st_size, victim


def refused(path: Path, message: str) -> None:
    result = check(path)
    assert not result.ok
    assert any(message in finding.text for finding in result.findings), result.findings


def test_links_devices_and_loops_are_one_finding(tmp_path):
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    refused(tmp_path / "loop.h5", "Too many levels of symbolic links")
    refused(tmp_path / "pipe.h5", "is a named pipe")


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_in_a_file_are_not_followed(kind, tmp_path):
    path = record("robomimic", tmp_path / "demo.h5", world())
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["actions"] = np.zeros((3, 2), "f4")
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        del demo["actions"]
        link = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/actions")
        demo["actions"] = link if kind == "external" else h5py.SoftLink("/data/demo_1/actions")
    os.utime(path, (0, 0))
    refused(path, "Links are not followed")
    assert check(path).good.sum() == len(check(path).good) - 1


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    path = record("npz", tmp_path / "run", world())
    table = path / "episodes.jsonl"
    table.write_text(table.read_text().replace("episode_000000.npz", "../../secret.npz"))
    refused(path, "wrong checksum")


def test_objects_are_never_unpickled(tmp_path):
    path = record("npz", tmp_path / "run", world())
    trap = npy(np.array([Trap()], object), allow_pickle=True)
    rewrite(path / "episode_000000.npz", lambda members: members.update({"action.npy": trap}))
    result = check(path)
    assert not result.ok and int((~result.good).sum()) == 1
    assert {finding.channel for finding in result.findings} == {"action"}


class Trap:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_a_bomb_is_refused_without_filling_the_memory(tmp_path):
    path = record("npz", tmp_path / "run", world())
    bomb = zeros(40 << 20)
    rewrite(path / "episode_000000.npz", lambda members: members.update({"action.npy": bomb}), 8)
    refused(path, "more than expected from the table of episodes")


def test_a_huge_declared_shape_is_refused(tmp_path):
    path = record("npz", tmp_path / "run", world())
    meta = json.loads((path / "meta.json").read_text())
    del meta["crc32"]
    meta["channels"][0]["shape"] = [1 << 30]
    (path / "meta.json").write_text(json.dumps(meta))
    refused(path, "more than 1 GiB per row")
