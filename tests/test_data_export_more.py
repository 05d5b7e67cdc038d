"""Exports to LeRobot, TorchRL and WebDataset, and files of ManiSkill and others."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile

import h5py
import numpy as np
import polars as pl
import pytest
from test_data_export import record, same, stretches

from mjlab_rec.commands import data as command
from mjlab_rec.data import DataError, export_rollouts, import_rollouts, open_rollouts
from mjlab_rec.data.copying import episode_of
from mjlab_rec.data.export import TARGETS, lerobot_files, source
from mjlab_rec.data.export.lerobot_stats import Total, episode_stats
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Writer
from mjlab_rec.data.schema import ChannelSpec, RunInfo


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES", 3000)
    return record(tmp_path / "run.h5", seed=1, steps=60, activity="rows", special=False)


def test_lerobot_gets_frames_episodes_and_statistics(path, tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_files, "_FILE_BYTES", 4000)  # Several files.
    out = export_rollouts(path, tmp_path / "out", "lerobot", task="balance it").path
    frames = pl.read_parquet(out / "data" / "*" / "*.parquet")
    episodes = pl.read_parquet(out / "meta" / "episodes" / "*" / "*.parquet")
    info = json.loads((out / "meta" / "info.json").read_text())
    assert len(list(out.glob("data/chunk-000/file-*.parquet"))) > 1
    assert (info["codebase_version"], info["fps"]) == ("v3.0", 50)
    with open_rollouts(path) as rollouts:
        pieces = stretches(rollouts)
        together = {n: np.concatenate([rows[n] for _, rows in pieces]) for n in pieces[0][1]}
    assert (info["total_episodes"], info["total_frames"]) == (len(pieces), len(frames))
    assert info["splits"] == {"train": f"0:{len(pieces)}"}
    assert set(info["features"]) == set(frames.columns)
    state = info["features"]["observation.state"]
    assert (state["dtype"], state["shape"], len(state["names"])) == ("float32", [3], 3)
    assert same(frames["observation.state"].to_numpy(), together["obs/actor"])
    assert same(frames["next.reward"].to_numpy(), together["reward"])
    done = together["terminated"] | together["truncated"]
    assert frames["next.done"].to_list() == done.tolist()
    assert frames["index"].to_list() == list(range(len(frames)))
    assert same(frames["timestamp_"].to_numpy(), together["timestamp"])
    at = 0
    for number, (_, rows) in enumerate(pieces):
        row = episodes.row(number, named=True)
        count = len(rows["step"])
        assert (row["episode_index"], row["length"], row["tasks"]) == (
            number,
            count,
            ["balance it"],
        )
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (at, at + count)
        some = frames[at : at + count]
        assert some["episode_index"].unique().to_list() == [number]
        assert some["frame_index"].to_list() == list(range(count))
        assert np.allclose(some["timestamp"], np.arange(count) * 0.02)
        assert np.allclose(row["stats/action/mean"], rows["action"].mean(axis=0), atol=1e-6)
        name = f"chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
        assert number in pl.read_parquet(out / "data" / name)["episode_index"]
        at += count
    stats = json.loads((out / "meta" / "stats.json").read_text())
    assert set(stats) == set(frames.columns)
    assert np.allclose(stats["action"]["std"], together["action"].std(axis=0), atol=1e-6)
    assert stats["index"]["max"] == [len(frames) - 1]
    tasks = (out / "meta" / "tasks.parquet").read_bytes()
    assert b"ARROW:schema" not in tasks and b'"index_columns"' in tasks
    assert pl.read_parquet(io.BytesIO(tasks)).row(0) == (0, "balance it")


def test_statistics_are_those_of_each_episode_and_of_all():
    rng = np.random.default_rng(0)
    counts = np.array([3, 1, 5, 3])
    values = rng.normal(size=(counts.sum(), 2))
    stats = episode_stats(values, counts)
    pieces = np.split(values, np.cumsum(counts)[:-1])
    for number, rows in enumerate(pieces):
        assert np.allclose(stats["std"][number], rows.std(axis=0))
        assert np.allclose(stats["min"][number], rows.min(axis=0))
        assert np.allclose(stats["q10"][number], np.quantile(rows, 0.1, axis=0))
        assert stats["count"][number] == len(rows)
    total = Total()
    for some in (slice(2), slice(2, 4)):
        total.add({name: rows[some] for name, rows in stats.items()})
    found = total.to_json()
    assert np.allclose(found["mean"], values.mean(axis=0))
    assert np.allclose(found["std"], values.std(axis=0))
    assert found["count"] == [12]
    assert found["max"] == values.max(axis=0).tolist()


def test_torchrl_gets_rows_with_what_comes_next(path, tmp_path):
    tensordict = pytest.importorskip("tensordict")
    out = export_rollouts(path, tmp_path / "out", "torchrl").path
    rows = tensordict.TensorDict.load_memmap(out)
    with open_rollouts(path) as rollouts:
        pieces = stretches(rollouts)
        together = {n: np.concatenate([r[n] for _, r in pieces]) for n in pieces[0][1]}
    assert rows.batch_size == (len(together["step"]),)
    for key, name in {
        "observation": "obs/actor",
        ("next", "observation"): "next_obs/actor",
        ("next", "obs", "critic"): "next_obs/critic",
        "action": "action",
        "state": "state",
    }.items():
        assert same(rows[key].numpy(), together[name]), key
    assert same(rows["next", "reward"].numpy()[:, 0], together["reward"])
    done = together["terminated"] | together["truncated"]
    assert rows["next", "done"].flatten().tolist() == done.tolist()
    assert not rows["done"].any()
    first = np.flatnonzero(rows["is_init"].flatten())
    assert np.diff([*first, len(done)]).tolist() == [len(r["step"]) for _, r in pieces]
    assert rows["episode"].unique().tolist() == list(range(len(pieces)))


def test_webdataset_gets_a_sample_per_episode_in_numeric_order(path, tmp_path):
    out = export_rollouts(path, tmp_path / "out", "webdataset", shard_bytes=200_000).path
    shards = sorted(out.glob("shard-*.tar"))
    assert len(shards) > 1
    samples: dict[str, dict[str, bytes]] = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[suffix] = file.read()
    assert list(samples) == sorted(samples)
    with open_rollouts(path) as rollouts:
        pieces = stretches(rollouts)
        assert len(samples) == len(pieces)
        for sample, (index, rows) in zip(samples.values(), pieces, strict=True):
            facts = json.loads(sample["json"])
            assert facts["number"] == rollouts.episodes["number"][index]
            assert facts["rows"] == len(rows["step"])
            for name, values in rows.items():
                content = io.BytesIO(sample[f"{name.replace('/', '.')}.npy"])
                assert same(np.load(content, allow_pickle=False), values)


@pytest.mark.parametrize("nested", [False, True])
def test_trajectories_of_maniskill_are_imported(nested, tmp_path):
    path, rng = tmp_path / "trajectory.h5", np.random.default_rng(0)
    truth = []
    with h5py.File(path, "w", track_order=True) as file:
        for number in (0, 2, 10):
            rows = 3 + number
            made = {
                "obs/agent/qpos" if nested else "obs": rng.normal(size=(rows + 1, 4)),
                "actions": rng.normal(size=(rows, 2)).astype(np.float32),
                "rewards": rng.normal(size=rows),
                "terminated": np.arange(rows) == rows - 1,
                "truncated": np.zeros(rows, bool),
                "success": np.arange(rows) == rows - 1,
                "env_states/actors/cube": rng.normal(size=(rows + 1, 13)).astype(np.float32),
            }
            for name, values in made.items():
                file[f"traj_{number}/{name}"] = values
            truth.append(made)
        file["traj_0/text"] = "not a number"
    about = {
        "env_info": {"env_id": "PickCube-v1"},
        "episodes": [{"episode_id": n, "success": n != 2} for n in (0, 2, 10)],
    }
    path.with_suffix(".json").write_text(json.dumps(about))
    done = import_rollouts(path, tmp_path / "out.h5", step_dt=0.05)
    assert (done.source_format, done.episodes) == ("maniskill", 3)
    assert done.notes == ("Left out, because they are no numbers for each step: text.",)
    with open_rollouts(tmp_path / "out.h5") as rollouts:
        assert (rollouts.info.about["task"], rollouts.info.step_dt) == ("PickCube-v1", 0.05)
        assert rollouts.episodes["success"].to_list() == [True, False, True]
        assert rollouts.episodes["terminated"].all() and rollouts.episodes["rows"][2] == 13
        name, key = ("obs/agent/qpos",) * 2 if nested else ("obs/actor", "obs")
        for episode, made in zip(rollouts, truth, strict=True):
            assert same(episode[name], made[key][:-1])
            assert same(episode[f"next_{name}"], made[key][1:])
            assert same(episode["action"], made["actions"])
            states = made["env_states/actors/cube"]
            assert same(episode["next_env_states/actors/cube"], states[1:])


def test_what_other_programs_wrote_is_imported(path, tmp_path):
    """Minari and Isaac Lab, without what an export of this package keeps."""
    for target, name in (("minari", "a-v0"), ("isaaclab", "b.hdf5")):
        out = export_rollouts(path, tmp_path / name, target).path
        done = import_rollouts(out, tmp_path / f"{target}.h5", record=False)
        with open_rollouts(path) as before, open_rollouts(done.path) as after:
            pieces = stretches(before)
            assert len(after) == len(pieces)
            reward = [rows["reward"].sum(dtype=float) for _, rows in pieces]
            if target == "isaaclab":
                continue  # It is ordered by environment, whose number it knows.
            assert np.allclose(after.episodes["return"], reward)
            for episode, (_, rows) in zip(after, pieces, strict=True):
                assert same(episode["next_obs/actor"], rows["next_obs/actor"])
                assert same(episode["obs/actor"], rows["obs/actor"])
                assert same(episode["terminated"], rows["terminated"])


def test_a_changed_export_is_not_taken_for_the_recording(path, tmp_path, caplog):
    out = export_rollouts(path, tmp_path / "demos.hdf5", "robomimic").path
    with h5py.File(out, "r+") as file:
        values = file["data/demo_0/actions"][:]
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = values[:, :1]
    with pytest.raises(DataError, match="changed after it was exported.*record=False"):
        import_rollouts(out, tmp_path / "again.h5")
    assert not (tmp_path / "again.h5").exists()
    with h5py.File(out, "r+") as file:
        del file["data/demo_0"]
    done = import_rollouts(out, tmp_path / "again.h5")
    assert "was changed after it was exported" in done.notes[0]
    assert done.notes[0] in caplog.text


def test_commands_export_and_import(path, tmp_path, capsys):
    words = ["--to", "minari", "--observation", "critic", "--if-exists", "number"]
    command.main(["export", str(path), str(tmp_path / "x-v0"), *words], prog="data")
    assert "x-v0 (minari): " in capsys.readouterr().out
    command.main(["import", str(tmp_path / "x-v0"), str(tmp_path / "y.h5")], prog="data")
    assert "of minari" in capsys.readouterr().out
    with open_rollouts(path) as before, open_rollouts(tmp_path / "y.h5") as after:
        assert before.episodes.equals(after.episodes)
    with pytest.raises(SystemExit) as ended:
        command.main(
            ["export", str(path), str(tmp_path / "z.csv"), "--to", "csv", "--valid", "0.1"]
        )
    assert ended.value.code == 2
    assert "An export to csv has no option 'valid'" in capsys.readouterr().err


def test_the_command_knows_all_targets_and_options():
    from dataclasses import fields
    from typing import get_args

    from mjlab_rec.commands.data.export import ExportArgs, Target
    from mjlab_rec.commands.data.import_ import Source
    from mjlab_rec.data.importing import SOURCES

    assert set(get_args(Target)) == set(TARGETS) and set(get_args(Source)) == set(SOURCES)
    options = {option for target in TARGETS.values() for option in target.options()}
    mine = {field.name for field in fields(ExportArgs)}
    assert options - mine == {"roll_over_bytes"}
    assert mine - options == {"paths", "to", "channels", "if_exists", "verbose"}


def record_pictures(path, counts=(4, 3, 5)):
    """Record episodes with pictures whose brightness says which one it is."""
    uint8, f4 = np.dtype("uint8"), np.dtype("float32")
    info = RunInfo(
        channels=(
            ChannelSpec(name="obs/actor", dtype=f4, shape=(2,), when="before"),
            ChannelSpec(name="obs/front", dtype=uint8, shape=(3, 32, 48), when="before"),
            ChannelSpec(name="action", dtype=f4, shape=(1,)),
        ),
        envs=(0,),
        step_dt=0.03,
    )
    writer = Hdf5Writer(info, WriterOptions(path=str(path)))
    shade = 0
    for number, count in enumerate(counts):
        shades = shade + 20 * np.arange(count, dtype=np.uint8)
        shade += 20 * count
        pictures = np.zeros((count, 3, 32, 48), np.uint8)
        pictures[:, 0] = shades[:, None, None]
        row = {"env": 0, "number": number, "start": 0, "length": count, "partial": False}
        row |= {"return": None, "recorded_return": None, "success": None}
        row |= {"terminated": True, "truncated": False}
        arrays = {
            "obs/actor": np.zeros((count, 2), f4),
            "obs/front": pictures,
            "action": np.zeros((count, 1), f4),
            "step": np.arange(count, dtype=np.int32),
        }
        writer.write_episode(episode_of(row, arrays, {}))
    writer.close()
    return path


def test_lerobot_gets_pictures_as_mp4(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    path = record_pictures(tmp_path / "run.h5")
    out = export_rollouts(path, tmp_path / "out", "lerobot").path
    info = json.loads((out / "meta" / "info.json").read_text())
    name = "observation.images.front"
    feature = info["features"][name]
    assert (feature["dtype"], feature["shape"]) == ("video", [32, 48, 3])
    assert info["fps"] == round(1 / 0.03, 6)
    (file,) = (out / "videos" / name).glob("chunk-000/file-*.mp4")
    assert file == out / info["video_path"].format(video_key=name, chunk_index=0, file_index=0)
    command_line = [ffmpeg, "-loglevel", "error", "-i", file, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command_line, "-"], capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 32, 48, 3)
    assert np.abs(frames[:, 16, 24, 0].astype(int) - 20 * np.arange(12)).max() <= 4
    told = subprocess.run([ffmpeg, "-i", file], capture_output=True, text=True).stderr
    assert "start: 0.000000" in told  # LeRobot finds pictures by their time.
    episodes = pl.read_parquet(out / "meta/episodes/chunk-000/file-000.parquet")
    assert np.allclose(episodes[f"videos/{name}/from_timestamp"], [0, 0.12, 0.21])
    assert np.allclose(episodes[f"videos/{name}/to_timestamp"], [0.12, 0.21, 0.36])
    assert episodes[f"videos/{name}/file_index"].to_list() == [0, 0, 0]
    assert np.shape(episodes[f"stats/{name}/mean"].to_list()) == (3, 3, 1, 1)
    stats = json.loads((out / "meta" / "stats.json").read_text())[name]
    assert np.shape(stats["q50"]) == (3, 1, 1) and stats["count"] == [12]
    assert np.allclose(np.ravel(stats["max"]), [220 / 255, 0, 0])
    columns = pl.read_parquet(out / "data/chunk-000/file-000.parquet").columns
    assert name not in columns
    numbers = export_rollouts(path, tmp_path / "other", "lerobot", pictures="numbers")
    assert "obs/front" in numbers.notes[-1]


@pytest.mark.parametrize("target", ["minari", "robomimic"])
def test_damaged_exports_lead_to_a_clear_error(target, tmp_path):
    path = record(tmp_path / "run.h5", seed=2, num_envs=1, steps=6)
    out = export_rollouts(path, tmp_path / "out-v0", target).path
    files = [out] if out.is_file() else [f for f in out.rglob("*") if f.suffix != ".json"]
    rng, failed = np.random.default_rng(0), 0
    for file in filter(lambda f: f.is_file(), files):
        whole = file.read_bytes()
        for number in range(16):
            content = bytearray(whole)
            if number % 4 == 0:
                del content[int(rng.integers(len(content))) :]
            else:
                content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            file.write_bytes(content)
            try:
                import_rollouts(out, tmp_path / "again.h5", if_exists="overwrite")
            except DataError:
                failed += 1
        file.write_bytes(whole)
    assert failed > 4
