"""Recordings in the layout of robomimic and Isaac Lab."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from test_data_hdf5 import World, as_episode, check, make_info

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5_file import RawFile
from mjlab_rec.data.formats.robomimic import RobomimicReader, RobomimicWriter
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo


def recorded(tmp_path, **options):
    info = make_info(about={"task": "Made-Up", "seed": 7})
    world = World(info, rows=8, seed=3)
    for _ in range(10):
        world.block(p_end=0.1)
    path = tmp_path / "demos.hdf5"
    writer = RobomimicWriter(info, WriterOptions(path=str(path), **options))
    for log in reversed(world.episodes()):
        writer.write_episode(as_episode(log))
    return writer, path, world.episodes(), info


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"roll_over_bytes": 100_000}])
def test_every_step_is_read_back(options, tmp_path):
    writer, path, logs, info = recorded(tmp_path, **options)
    check(RobomimicReader(path), logs, info)  # while it is being written
    writer.close()
    reader = RobomimicReader(path)
    check(reader, logs, info)
    assert reader.info.to_json() == info.to_json()
    assert reader.info.attachments == info.attachments
    assert reader.model(3)["body_mass"].tolist() == [logs[3].env, logs[3].number]
    reader.close()
    reader.close()
    assert len(writer.files) == (1 if "roll_over_bytes" not in options else len(writer.files))
    assert writer.nbytes == sum(file.stat().st_size for file in writer.files)


def test_the_layout_is_what_learners_expect(tmp_path):
    writer, path, logs, _ = recorded(tmp_path)
    writer.close()
    with h5py.File(path, "r") as file:
        data = file["data"]
        assert data.attrs["total"] == sum(len(log.rows) for log in logs)
        assert json.loads(data.attrs["env_args"])["env_name"] == "Made-Up"
        assert set(data) == {f"demo_{i}" for i in range(len(logs))}
        last = logs[-1]  # it was written first
        demo = data["demo_0"]
        assert demo.attrs["num_samples"] == len(last.rows)
        assert (demo.attrs["env"], demo.attrs["seed"]) == (last.env, 7)
        assert demo["obs/actor"].shape == demo["next_obs/actor"].shape
        assert {"actions", "rewards", "dones", "terminated"} <= set(demo)
        assert demo["dones"][:].sum() == any(last.end[:2])


def test_files_of_isaac_lab_are_read(tmp_path):
    path = tmp_path / "isaac.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        sim = {"dt": 0.01, "decimation": 2}
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 2, "sim_args": sim})
        for number in (10, 2):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = 3
            demo.attrs["success"] = number == 2
            demo["actions"] = np.full((3, 2), number, np.float32)
            demo["obs/policy"] = np.zeros((3, 5), np.float32)
            demo["step"] = np.array([5.0, 6.0, 7.0])
            demo["states/articulation/robot/joint_position"] = np.zeros((3, 7))
            demo["initial_state/articulation/robot/joint_position"] = np.zeros((1, 7))
    reader = RobomimicReader(path)
    names = [spec.name for spec in reader.info.channels]
    states = "state/articulation/robot/joint_position"
    assert names == ["action", "step_", "obs/policy", states, f"next_{states}"]
    assert reader.read(0, ["step_"])["step_"].tolist() == [5, 6, 7]
    assert reader.info.step_dt == 0.02
    assert reader.episodes["number"].to_list() == [2, 10]
    assert reader.episodes["success"].to_list() == [True, False]
    arrays = reader.read(1, ["action", "obs/policy", "step"])
    assert arrays["action"].tolist() == [[10, 10]] * 3
    assert arrays["step"].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="'rewart'"):
        reader.read(0, ["rewart"])


def test_channels_with_the_same_flat_name_get_different_paths(tmp_path):
    names = [
        "obs/a",
        "obs/a/b",
        "obs/a_b",
        "action",
        "actions",
        "dones",
        "model_fields/m",
        "x/y",
        "x",
    ]
    info = RunInfo(
        channels=tuple(ChannelSpec(name=name, dtype=np.dtype("f4")) for name in names),
        envs=(0,),
        step_dt=0.1,
    )
    arrays = {name: np.full(3, i, np.float32) for i, name in enumerate(names)}
    episode = Episode(
        env=0, number=0, start=0, length=3, total=0.0, recorded=0.0, terminated=True,
        truncated=False, success=None, partial=False,
        arrays={**arrays, "step": np.arange(3, dtype=np.int32)},
        model={"m": np.ones(2)},
    )  # fmt: skip
    path = tmp_path / "demos.hdf5"
    writer = RobomimicWriter(info, WriterOptions(path=str(path)))
    writer.write_episode(episode)
    writer.close()
    reader = RobomimicReader(path)
    found = reader.read(0, [*names, "step"])
    for name, values in episode.arrays.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert reader.model(0)["m"].tolist() == [1, 1]
    with h5py.File(path, locking=False) as file:
        demo = file["data/demo_0"]
        assert demo["actions"][:].tolist() == arrays["action"].tolist()
        assert demo["dones"][:].tolist() == [0, 0, 1]


@pytest.mark.parametrize("method", ["reserve", "write"])
def test_a_full_disk_loses_only_the_running_episode(method, tmp_path, monkeypatch):
    writer, path, logs, info = recorded(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if method == "reserve":
        monkeypatch.setattr(RawFile, "reserve", full)
    else:
        usual = h5py.Group.create_dataset

        def create(self, name, *args, **kwargs):
            return full() if name == "dones" else usual(self, name, *args, **kwargs)

        monkeypatch.setattr(h5py.Group, "create_dataset", create)
    with pytest.raises(DataError, match=r"demos.hdf5': No space left on device\. Data written"):
        writer.write_episode(as_episode(logs[0]))
    monkeypatch.undo()
    writer.close()
    check(RobomimicReader(path), logs, info)


def test_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w"):
        pass
    with pytest.raises(DataError, match="no group 'data'"):
        RobomimicReader(tmp_path / "other.hdf5")
    with pytest.raises(DataError, match="no recording"):
        RobomimicReader(tmp_path / "nothing.hdf5")
