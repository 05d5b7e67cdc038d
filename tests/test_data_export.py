"""Exports to the formats of other programs, and imports of them."""

from __future__ import annotations

import json
import logging

import h5py
import numpy as np
import polars as pl
import pytest
from data_worlds import World, episodes_of

from mjlab_rec.data import DataError, open_rollouts
from mjlab_rec.data.export import TARGETS, export_rollouts, source
from mjlab_rec.data.export.hdf5_tree import EpisodeFile, Values
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Writer
from mjlab_rec.data.importing import import_rollouts

NAMES = {"minari": "moves-v0", "robomimic": "demos.hdf5", "isaaclab": "demos.hdf5"}
RESTORED = (
    *("robomimic", "isaaclab", "minari", "webdataset", "torchrl"),
    *("hdf5", "npz", "csv", "parquet"),
)


def record(path, **world):
    """Record a random rollout."""
    record_world(path, World(**{"num_envs": 3, "steps": 30, **world}))
    return path


def record_world(path, made):
    """Record a rollout; if only some of its rows count, as whole episodes."""
    writer = Hdf5Writer(made.info, WriterOptions(path=str(path), block_rows=made.block_rows))
    if made.activity == "all":
        for block in made.blocks():
            writer.write(block)
    else:
        for episode in episodes_of(made):
            writer.write_episode(episode)
    writer.close()


def out_path(folder, target):
    return folder / NAMES.get(target, f"out{TARGETS[target].suffix}")


def stretches(rollouts):
    """The episodes of a recording, cut at gaps."""
    found = []
    for index, episode in enumerate(rollouts):
        cuts = np.flatnonzero(np.diff(episode["step"]) != rollouts.info.every) + 1
        for rows in np.split(np.arange(len(episode["step"])), cuts):
            found.append((index, {name: values[rows] for name, values in episode.items()}))
    return found


def same(one, other):
    """Whether arrays are equal, bit by bit."""
    return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()


def check_equal(first, second, model=True):
    """Check that two recordings are the same."""
    assert first.episodes.equals(second.episodes)
    assert first.info.to_json() == second.info.to_json()
    assert first.attachments == second.attachments
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one.keys() == other.keys()
        for name in one:
            assert same(one[name], other[name]), (index, name)
        if model:
            fields, others = first.model(index), second.model(index)
            assert fields.keys() == others.keys()
            assert all(same(fields[name], others[name]) for name in fields)


WORLDS = {
    "plain": {"seed": 1},
    "many envs and model fields": {"num_envs": 7, "seed": 2, "model": True},
    "gaps": {"seed": 3, "activity": "rows", "gaps": (2,), "partial": True},
    "every second step": {"seed": 4, "every": 2},
    "one step": {"seed": 5, "steps": 1, "num_envs": 1},
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("target", RESTORED)
def test_what_was_exported_is_imported_as_it_was(target, world, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES", 1500)  # Several batches.
    path = record(tmp_path / "run.h5", **WORLDS[world])
    exported = export_rollouts(path, out_path(tmp_path, target), target)
    imported = import_rollouts(exported.path, tmp_path / "again.h5")
    with open_rollouts(path) as before, open_rollouts(tmp_path / "again.h5") as after:
        check_equal(before, after, model=target not in ("csv", "torchrl"))
        assert imported.episodes == len(before)
        assert imported.rows == exported.rows == before.rows
        own = ("hdf5", "npz", "csv", "parquet")
        expected = "robomimic" if target == "isaaclab" else target
        assert imported.source_format == ("mjlab_rec" if target in own else expected)


def test_robomimic_gets_what_it_reads(tmp_path):
    path = record(tmp_path / "run.h5", seed=6, steps=60)
    out = export_rollouts(path, tmp_path / "demos", "robomimic", valid=0.25).path
    assert out.name == "demos.hdf5"
    with h5py.File(out, swmr=True, libver="latest") as file, open_rollouts(path) as rollouts:
        data = file["data"]
        masks = {name: [n.decode() for n in file[f"mask/{name}"]] for name in ("train", "valid")}
        assert sorted(masks["train"] + masks["valid"]) == sorted(data)
        assert len(masks["valid"]) == round(0.25 * len(rollouts))
        assert data.attrs["total"] == rollouts.rows
        assert json.loads(data.attrs["env_args"])["env_name"] == "made-up"
        for number, episode in enumerate(rollouts):
            demo = data[f"demo_{number}"]  # Their order is that of the table of episodes.
            facts = rollouts.episodes.row(number, named=True)
            assert demo.attrs["num_samples"] == facts["rows"]
            assert (demo.attrs["env"], demo.attrs["episode"]) == (facts["env"], facts["number"])
            assert demo.attrs.get("success") == facts["success"]
            for name in ("obs/actor", "next_obs/actor", "obs/critic"):
                assert same(demo[name][:], episode[name])
            assert same(demo["actions"][:], episode["action"])
            done = episode["terminated"] | episode["truncated"]
            assert demo["dones"][:].tolist() == done.tolist()


def test_minari_gets_all_observations_with_the_last_one(tmp_path):
    path = record(tmp_path / "run.h5", seed=7, activity="rows")
    out = export_rollouts(path, tmp_path / "walk" / "test-v3", "minari").path
    metadata = json.loads((out / "data" / "metadata.json").read_text())
    with h5py.File(out / "data" / "main_data.hdf5") as file, open_rollouts(path) as rollouts:
        pieces = stretches(rollouts)
        assert set(file) == {f"episode_{number}" for number in range(len(pieces))}
        for number, (_, rows) in enumerate(pieces):
            episode = file[f"episode_{number}"]
            assert same(episode["observations"][:-1], rows["obs/actor"])
            assert same(episode["observations"][-1], rows["next_obs/actor"][-1])
            assert same(episode["actions"][:], rows["action"])
            assert same(episode["rewards"][:], rows["reward"])
            assert same(episode["terminations"][:], rows["terminated"])
            assert same(episode["truncations"][:], rows["truncated"])
            assert (episode.attrs["id"], episode.attrs["total_steps"]) == (
                number,
                len(rows["step"]),
            )
            assert "next_obs/actor" not in episode["infos"]
    assert (metadata["total_episodes"], metadata["dataset_id"]) == (len(pieces), "test-v3")
    assert json.loads(metadata["observation_space"])["shape"] == [3]


def test_minari_can_get_several_groups(tmp_path):
    path = record(tmp_path / "run.h5", seed=8)
    out = export_rollouts(path, tmp_path / "x-v0", "minari", observation=["critic", "actor"]).path
    space = json.loads(
        json.loads((out / "data" / "metadata.json").read_text())["observation_space"]
    )
    assert {name: each["dtype"] for name, each in space["subspaces"].items()} == {
        "critic": "float16",
        "actor": "float32",
    }
    with h5py.File(out / "data" / "main_data.hdf5") as file:
        assert file["episode_0/observations/critic"].shape[1:] == (2,)
    with pytest.raises(DataError, match="Unknown group of observations 'aktor'. Did you mean"):
        export_rollouts(path, tmp_path / "y-v0", "minari", observation=["aktor"])


def test_real_minari_loads_it(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "all"))
    path = record(tmp_path / "run.h5", seed=9, steps=60)
    export_rollouts(path, tmp_path / "all" / "walk" / "test-v3", "minari")
    dataset = minari.load_dataset("walk/test-v3")
    with open_rollouts(path) as rollouts:
        assert len(dataset) == len(rollouts)
        for episode, mine in zip(dataset, rollouts, strict=True):
            assert same(episode.observations[:-1], mine["obs/actor"])
            assert same(episode.observations[-1], mine["next_obs/actor"][-1])
            assert same(episode.rewards, mine["reward"])


@pytest.mark.parametrize("count", [0, 1, 8, 9, 300])
def test_hdf5_reads_and_changes_the_files(count, tmp_path):
    rng = np.random.default_rng(count)
    counts = rng.integers(1, 4, count)
    datasets = {
        "obs/actor": rng.normal(size=(counts.sum(), 3)).astype(np.float32),
        "obs/größe": rng.normal(size=counts.sum()).astype(np.float16),
        "flags": rng.random(counts.sum()) < 0.5,
    }
    file = EpisodeFile(tmp_path / "file.h5", "data")
    half = count // 2
    cut = int(counts[:half].sum())
    for episodes, rows in (
        (slice(half), slice(cut)),
        (slice(half, count), slice(cut, None)),
    ):
        values = {n: Values(items=v[rows], counts=counts[episodes]) for n, v in datasets.items()}
        values["model"] = Values(items=np.arange(count)[episodes, None] * np.ones(2))
        names = [f"demo_{i}" for i in range(count)][episodes]
        file.add(names, values, {"rows": counts[episodes]})
    assert not h5py.is_hdf5(tmp_path / "file.h5")
    file.close()
    ends = np.cumsum(counts)

    def check():
        for number in range(count):
            demo = again["data"][f"demo_{number}"]
            rows = slice(ends[number] - counts[number], ends[number])
            assert demo.attrs["rows"] == counts[number]
            assert demo["model"][:].tolist() == [number, number]
            for name, values in datasets.items():
                assert same(demo[name][:], values[rows])

    with h5py.File(tmp_path / "file.h5", "r+") as again:
        assert len(again["data"]) == count
        check()
        for number in range(40):
            again["data"].create_group(f"more_{number}")["x"] = number
        again["data"].attrs["total"] = 5
        if count:
            for number in range(12):  # More than a header has room for.
                again[f"data/demo_0/new_{number}"] = number
            del again["data/demo_0/new_3"]
        check()
    with h5py.File(tmp_path / "file.h5", swmr=True, libver="latest") as again:
        assert len(again["data"]) == count + 40
        check()


def test_only_chosen_channels_are_exported(tmp_path):
    path = record(tmp_path / "run.h5", seed=10)
    names = ["action", "next_obs/actor"]
    out = export_rollouts(path, tmp_path / "out.h5", "hdf5", channels=names).path
    with open_rollouts(path) as before, open_rollouts(out) as after:
        assert set(after.channels) == set(names)
        assert same(before[0]["next_obs/actor"], after[0]["next_obs/actor"])


def test_what_is_missing_is_named(tmp_path):
    path = record(tmp_path / "run.h5", seed=11)
    needed = ["obs/actor", "action", "reward"]
    with pytest.raises(DataError, match="no channel 'next_obs/actor'. Add it to the recorder's"):
        export_rollouts(path, tmp_path / "a-v0", "minari", channels=needed)
    with pytest.raises(DataError, match="'reward'. Add it to the channels"):
        export_rollouts(path, tmp_path / "a-v0", "minari", channels=needed[:2])
    with pytest.raises(DataError, match="Ids end in a version"):
        export_rollouts(path, tmp_path / "name", "minari")
    with pytest.raises(DataError, match="no option 'valit'. Did you mean 'valid'"):
        export_rollouts(path, tmp_path / "a", "robomimic", valit=0.1)
    with pytest.raises(DataError, match="Unknown format 'robomimik'"):
        export_rollouts(path, tmp_path / "a", "robomimik")
    assert [each.name for each in tmp_path.iterdir()] == ["run.h5"]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    path = record(tmp_path / "run.h5", seed=12)
    out = export_rollouts(path, tmp_path / "out-v0", "minari").path
    before = (out / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(DataError, match="already exists"):
        export_rollouts(path, out, "minari")
    channels = ["obs/actor", "next_obs/actor", "action", "reward"]
    export_rollouts(path, out, "minari", if_exists="overwrite", channels=channels)
    assert (out / "data" / "main_data.hdf5").read_bytes() != before
    other = tmp_path / "precious"
    (other / "data").mkdir(parents=True)
    for target, text in (("minari", "is not replaced"), ("csv", "but this format writes a file")):
        with pytest.raises(DataError, match=text):
            export_rollouts(path, other, target, if_exists="overwrite", **_id(target))
    with pytest.raises(DataError, match="is read, so it cannot be written"):
        export_rollouts(path, path, "hdf5", if_exists="overwrite")
    assert export_rollouts(path, path, "hdf5", if_exists="number").path.name == "run_1.h5"
    assert other.is_dir()


def _id(target):
    return {"dataset_id": "x-v0"} if target == "minari" else {}


@pytest.mark.parametrize("target", RESTORED)
def test_a_failed_export_leaves_what_was_there(target, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES", 1500)
    path = record(tmp_path / "run.h5", seed=13)
    out = export_rollouts(path, out_path(tmp_path, target), target).path
    there = sorted(tmp_path.rglob("*"))
    content = [each.read_bytes() for each in there if each.is_file()]

    def fail(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_rollouts(path, out, target, if_exists="overwrite", progress=fail)
    assert sorted(tmp_path.rglob("*")) == there
    assert [each.read_bytes() for each in there if each.is_file()] == content


def test_losses_are_told_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES", 1500)
    path = record(tmp_path / "run.h5", seed=14, model=True)
    calls = []
    with caplog.at_level(logging.WARNING):
        exported = export_rollouts(
            path, tmp_path / "out", "csv", progress=lambda *done: calls.append(done)
        )
    assert exported.notes == tuple(each.getMessage() for each in caplog.records)
    assert len(exported.notes) == 1 and "model fields" in exported.notes[0]
    assert calls[0] == (0, exported.rows) and calls[-1] == (exported.rows, exported.rows)
    assert len(calls) > 3 and calls == sorted(calls)
    assert len(pl.read_csv(exported.path)) == exported.rows


def check_observations(rollouts, folder):
    """Check that a dataset of Minari has the observations of a recording without gaps."""
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        assert len(file) == len(rollouts)
        for number, rows in enumerate(rollouts):
            assert same(file[f"episode_{number}/observations"][:-1], rows["obs/actor"])
            assert same(file[f"episode_{number}/observations"][-1], rows["next_obs/actor"][-1])


@pytest.mark.parametrize("first", ["csv", "npz", "parquet", "robomimic"])
def test_recordings_of_any_format_are_exported(first, tmp_path):
    path = record(tmp_path / "run.h5", seed=15)
    copy = export_rollouts(path, out_path(tmp_path, first), first).path
    out = export_rollouts(copy, tmp_path / "out-v0", "minari").path
    with open_rollouts(path) as rollouts:
        check_observations(rollouts, out)


def test_several_recordings_are_exported_as_one(tmp_path):
    paths = [record(tmp_path / f"run_{seed}.h5", seed=seed) for seed in (16, 17)]
    with open_rollouts(paths) as rollouts:
        check_observations(rollouts, export_rollouts(rollouts, tmp_path / "out-v0", "minari").path)
