"""Malicious HDF5 files lead to an error, quickly and with little memory."""

from __future__ import annotations

import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damaged_files import record
from data_worlds import World

from mjlab_rec.data.formats import checks, hdf5_checks
from mjlab_rec.data.formats.robomimic import RobomimicReader
from mjlab_rec.data.schema import DataError

SECRET = np.full((3, 2), 4711, np.float32)


@pytest.fixture
def isaac_lab(tmp_path) -> Path:
    """A file like those of Isaac Lab."""
    path = tmp_path / "isaac.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 6
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 2})
        for number in range(2):
            add_demo(data, number)
    return path


@pytest.fixture
def ours(tmp_path) -> Path:
    return record("robomimic", tmp_path / "demos.h5", World(num_envs=2, steps=12, model=True))


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        add_demo(file.create_group("data"), 0, SECRET)
        file["values"] = SECRET
    return path


def add_demo(data: Any, number: int, actions: np.ndarray | None = None) -> Any:
    demo = data.create_group(f"demo_{number}")
    demo.attrs["num_samples"] = 3
    demo.attrs["success"] = True
    demo["actions"] = np.full((3, 2), number, np.float32) if actions is None else actions
    demo["rewards"] = np.ones(3, np.float32)
    demo["obs/policy"] = np.zeros((3, 5), np.float32)
    return demo


def read_all(path: Path) -> RobomimicReader:
    """Read everything with little memory; raises the first damage."""
    os.utime(path, (0, 0))
    tracemalloc.start()
    reader = None
    try:
        reader = RobomimicReader(path)
        for index in range(len(reader.episodes)):
            arrays = reader.read(index, ["step", *(spec.name for spec in reader.info.channels)])
            assert all(len(array) == reader.episodes["rows"][index] for array in arrays.values())
            assert not any((array == 4711).any() for array in arrays.values())
            reader.model(index)
        if damages := reader.verify():
            raise DataError(damages[0])
        return reader
    finally:
        if reader is not None:
            reader.close()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 50 << 20


def refused(path: Path, told: str = ".") -> None:
    with pytest.raises(DataError, match=told) as caught:
        read_all(path)
    assert len(str(caught.value)) < 1000
    assert str(path) in str(caught.value)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(group: Any, name: str, value: Any, **kwargs: Any) -> None:
    del group[name]
    group.create_dataset(name, data=value, **kwargs)


def test_the_recordings_of_this_file_can_be_read(ours, isaac_lab):
    read_all(ours)
    reader = read_all(isaac_lab)
    assert [spec.name for spec in reader.info.channels] == ["action", "reward", "obs/policy"]
    assert reader.finished


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["external", "soft"])
@pytest.mark.parametrize("where", ["data", "data/demo_0", "data/demo_0/actions", "data/demo_0/obs"])
def test_links_are_not_followed(where, kind, ours, isaac_lab, secret):
    target = {"data": "data", "demo_0": "data/demo_0", "obs": "data/demo_0/obs"}
    name = target.get(where.rpartition("/")[2], "values")
    for path in (ours, isaac_lab):

        def change(file: Any) -> None:
            file.move(where, "elsewhere")
            inside = h5py.SoftLink("/elsewhere")
            file[where] = inside if kind == "soft" else h5py.ExternalLink(str(secret), f"/{name}")

        edit(path, change)
        refused(path, "Links are not followed|Unknown channel|There is no")


def test_values_in_another_file_are_not_read(ours, isaac_lab, secret):
    raw = secret.with_name("raw.bin")
    raw.write_bytes(SECRET.tobytes())
    for path, name in ((ours, "action"), (isaac_lab, "actions")):
        shapes = []

        def outside(file: Any, shapes: list = shapes) -> None:
            shape = file["data/demo_0/actions"].shape
            shapes.append(shape)
            del file["data/demo_0/actions"]
            file["data/demo_0"].create_dataset(
                "actions", shape, "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)]
            )

        edit(path, outside)
        refused(path, "is stored in another file. Links are not followed")

        def virtual(file: Any, shapes: list = shapes) -> None:
            layout = h5py.VirtualLayout(shapes[0], "f4")
            layout[:] = h5py.VirtualSource(str(secret), "values", shapes[0])
            del file["data/demo_0/actions"]
            file["data/demo_0"].create_virtual_dataset("actions", layout)

        edit(path, virtual)
        refused(path, "is stored in another file. Links are not followed")
        assert name


def test_loops_of_links_end(isaac_lab):
    def change(file: Any) -> None:
        for number in range(2):
            demo = file[f"data/demo_{number}"]
            demo["obs/loop"] = demo
            demo["obs/again"] = demo["obs"]

    edit(isaac_lab, change)
    refused(isaac_lab, "too many objects, or a loop of them|1000 bytes")


def test_a_deep_tree_ends(isaac_lab):
    edit(isaac_lab, lambda file: file.create_group("data/demo_0/" + "/".join("g" * 100)))
    refused(isaac_lab, "too many objects, or a loop of them")


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "demos.h5")
    refused(tmp_path / "demos.h5", "is not a plain file")


# -- datasets --------------------------------------------------------------------------------------

ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "longer": lambda a: np.concatenate([a, a]),
    "shorter": lambda a: a[:-1],
    "empty": lambda a: a[:0],
    "a number": lambda a: a[0, 0],
    "of another type": lambda a: a.astype(np.float64),
    "of another shape": lambda a: a[:, :1],
    "of another order of bytes": lambda a: a.astype(">f4"),
    "of texts": lambda a: np.full(len(a), b"text"),
    "of objects": lambda a: np.array(["text"] * len(a), h5py.string_dtype()),
    "of records": lambda a: np.zeros(len(a), "f4,f4"),
    "nothing": lambda a: h5py.Empty("f4"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_datasets_that_do_not_match_the_table_are_refused(kind, ours, isaac_lab):
    for path in (ours, isaac_lab):

        def change(file: Any) -> None:
            demo = file["data/demo_1"]
            replace(demo, "actions", ARRAYS[kind](demo["actions"][()]))

        edit(path, change)
        refused(path, "actions")


@pytest.mark.parametrize("where", ["data", "data/demo_0", "data/demo_0/actions", "mjlab_rec"])
def test_datasets_instead_of_groups_are_refused(where, ours):
    def change(file: Any) -> None:
        del file[where]
        file.create_group(where) if where.endswith("actions") else file.create_dataset(
            where, (3,), "f4"
        )

    edit(ours, change)
    refused(ours)


@pytest.mark.parametrize("name", ["info", "attachments/notes.txt"])
@pytest.mark.parametrize(
    "value", [3, b"{", "text", np.zeros((3, 3)), np.zeros(5, "u1"), b"[" * 50_000, None]
)
def test_wrong_descriptions_and_attachments_are_refused(name, value, ours):
    def change(file: Any) -> None:
        del file[f"mjlab_rec/{name}"]
        if value is not None:
            file[f"mjlab_rec/{name}"] = value

    edit(ours, change)
    refused(ours)


# -- attributes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1 << 40,
        2.5,
        np.nan,
        "three",
        np.arange(3),
        np.zeros(7000),
        h5py.Empty("f4"),
        10**9,
        2,
        4,
    ],
)
def test_wrong_counts_of_rows_are_refused(value, isaac_lab):
    for number in range(2):
        name = f"data/demo_{number}"
        edit(isaac_lab, lambda file, name=name: file[name].attrs.create("num_samples", value))
    refused(isaac_lab)


@pytest.mark.parametrize("value", [-1, "env", np.arange(3), 2.5, np.zeros(7000), h5py.Empty("f4")])
@pytest.mark.parametrize("name", ["env", "success", "terminated", "truncated", "seed", "episode"])
def test_other_uses_of_attributes_do_no_harm(name, value, isaac_lab):
    edit(isaac_lab, lambda file: file["data/demo_0"].attrs.create(name, value))
    assert len(read_all(isaac_lab).episodes) == 2


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        '{"sim_args": 3}',
        '{"sim_args": {"dt": "x"}}',
        "3",
        '{"env_name": [1]}',
        "\xff",
    ],
)
def test_wrong_arguments_of_the_environment_do_no_harm(text, isaac_lab):
    edit(isaac_lab, lambda file: file["data"].attrs.modify("env_args", text))
    assert read_all(isaac_lab).info.step_dt == 0.0
    edit(isaac_lab, lambda file: file["data"].attrs.create("env_args", np.arange(5)))
    assert read_all(isaac_lab).info.about["task"] == ""


@pytest.mark.parametrize("where, name", [("data/demo_0", "mjlab_rec"), ("mjlab_rec", "mark")])
@pytest.mark.parametrize("value", [None, 3, "text", np.arange(3), b"[" * 1000, b"{}"])
def test_wrong_rows_and_marks_are_refused(where, name, value, ours):
    def change(file: Any) -> None:
        del file[where].attrs[name]
        if value is not None:
            file[where].attrs[name] = value

    edit(ours, change)
    refused(ours)


def test_episodes_under_other_names_are_ignored(isaac_lab):
    def change(file: Any) -> None:
        for name in ("demo_²", "demo_", "demo_-1", "demo_99999999999999999999", "mask"):
            file["data"].create_group(name)

    edit(isaac_lab, change)
    assert len(read_all(isaac_lab).episodes) == 2


# -- bombs -----------------------------------------------------------------------------------------


def big(demo: Any, rows: int, zeros: bool = False, **kwargs: Any) -> None:
    del demo["actions"], demo["rewards"], demo["obs"]
    demo.attrs["num_samples"] = rows
    data = np.zeros((rows, 2), "f4") if zeros else None
    demo.create_dataset("actions", (rows, 2), "f4", data=data, **kwargs)


@pytest.mark.parametrize("kwargs", [{}, {"chunks": (1000, 2)}, {"compression": "gzip"}])
def test_rows_that_are_not_in_the_file_are_refused(kwargs, isaac_lab):
    edit(isaac_lab, lambda file: big(file["data/demo_0"], 2**30, **kwargs))
    refused(isaac_lab, "times the size of the file")


def test_a_bomb_is_not_decompressed(isaac_lab, monkeypatch):
    monkeypatch.setattr(checks, "_MODEST", 8 << 20)

    edit(isaac_lab, lambda file: big(file["data/demo_0"], 4 << 20, compression="gzip", zeros=True))
    refused(isaac_lab, "times the size of the file")


def test_a_chunk_that_decompresses_to_too_much_is_not_decompressed(isaac_lab, monkeypatch):
    monkeypatch.setattr(hdf5_checks, "_SMALL_CHUNK", 1 << 20)

    def change(file: Any) -> None:
        del file["data/demo_0/actions"]
        demo = file["data/demo_0"]
        item = demo.create_dataset("actions", (3, 2), "f4", chunks=(3, 2), compression="gzip")
        item.id.write_direct_chunk((0, 0), zlib.compress(bytes(100 << 20)))

    edit(isaac_lab, change)
    refused(isaac_lab, "decompresses to more than 24 bytes")


def test_a_chunk_larger_than_its_dataset_is_not_decompressed(isaac_lab):
    def change(file: Any) -> None:
        del file["data/demo_0/actions"]
        file["data/demo_0"].create_dataset(
            "actions", (3, 2), "f4", chunks=(1 << 25, 2), maxshape=(None, 2), compression="gzip"
        )

    edit(isaac_lab, change)
    refused(isaac_lab, "chunks that are larger than the dataset")
