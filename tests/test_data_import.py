"""Imports of LeRobot's datasets, of Minari's tables, and from each format to each other."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from test_data_export import RESTORED, out_path, record, same, stretches

from mjlab_rec.data import DataError, export_rollouts, import_rollouts, open_rollouts


def test_equal_rows_go_through_all_formats_in_a_row(tmp_path):
    """From each format to the next one; the last recording is the first one."""
    first = record(tmp_path / "run.h5", seed=21, activity="rows")
    path = first
    for number, target in enumerate(RESTORED):
        folder = tmp_path / str(number)
        folder.mkdir()
        exported = export_rollouts(path, out_path(folder, target), target)
        path = import_rollouts(exported.path, folder / "again.h5").path
    with open_rollouts(first) as before, open_rollouts(path) as after:
        assert before.episodes.equals(after.episodes)
        for one, other in zip(before, after, strict=True):
            assert one.keys() == other.keys() and all(same(one[n], other[n]) for n in one)


@pytest.mark.parametrize("use_record", [True, False])
def test_lerobot_is_imported_with_all_that_it_has(use_record, tmp_path):
    path = record(tmp_path / "run.h5", seed=22, activity="rows", special=False)
    out = export_rollouts(path, tmp_path / "out", "lerobot").path
    done = import_rollouts(out, tmp_path / "again.h5", record=use_record)
    assert done.source_format == "lerobot"
    with open_rollouts(path) as before, open_rollouts(done.path) as after:
        if use_record:
            assert "next_obs/actor, next_obs/critic" in done.notes[0]
            assert before.episodes.equals(after.episodes)
            assert before.info.about == after.info.about
            for one, other in zip(before, after, strict=True):
                kept = {name for name in one if not name.startswith("next_")}
                assert other.keys() == kept and all(same(one[n], other[n]) for n in kept)
            return
        pieces = stretches(before)
        assert (len(after), after.info.step_dt) == (len(pieces), 0.02)
        assert after.info.about["task"] == "made-up"
        for (_, rows), other in zip(pieces, after, strict=True):
            for name, mine in (("obs/state", "obs/actor"), ("action",) * 2, ("reward",) * 2):
                assert same(other[name], rows[mine])
            assert same(other["terminated"], rows["terminated"])


def test_damaged_datasets_of_lerobot_are_named(tmp_path):
    path = record(tmp_path / "run.h5", seed=22)
    out = export_rollouts(path, tmp_path / "out", "lerobot").path
    info = out / "meta" / "info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps({**content, "codebase_version": "v2.1"}))
    with pytest.raises(DataError, match="version 'v2.1' of LeRobot's format"):
        import_rollouts(out, tmp_path / "again.h5")
    info.write_text(json.dumps(content))
    file = out / "data/chunk-000/file-000.parquet"
    pl.read_parquet(file)[1:].write_parquet(file)
    with pytest.raises(DataError, match="rows of episode 0, but there should be"):
        import_rollouts(out, tmp_path / "again.h5")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="file-000.parquet' cannot be read"):
        import_rollouts(out, tmp_path / "again.h5")


@pytest.mark.parametrize("bit", [1, 1 << 19, 1 << 31])
def test_changed_numbers_of_steps_are_an_error(tmp_path, bit):
    path = record(tmp_path / "run.h5", seed=23)
    out = export_rollouts(path, tmp_path / "out", "torchrl").path
    file = out / "step_count.memmap"
    steps = np.fromfile(file, np.int64)
    steps[1] ^= bit
    steps.tofile(file)
    with pytest.raises(DataError, match="steps are not ascending numbers from 0 to"):
        import_rollouts(out, tmp_path / "back.h5")


@pytest.mark.parametrize("target", ["torchrl", "webdataset"])
def test_changed_folders_are_named(target, tmp_path):
    path = record(tmp_path / "run.h5", seed=23)
    out = export_rollouts(path, tmp_path / "out", target).path
    file = out / ("action.memmap" if target == "torchrl" else "shard-000000.tar")
    file.write_bytes(file.read_bytes()[:-20000])
    with pytest.raises(DataError, match="was changed after|cannot be read|no array"):
        import_rollouts(out, tmp_path / "again.h5")
    with pytest.raises(DataError, match="record=True"):
        import_rollouts(out, tmp_path / "again.h5", record=False)
    next(out.glob("*.parquet")).unlink()
    with pytest.raises(DataError, match="is no export of mjlab_rec"):
        import_rollouts(out, tmp_path / "again.h5", source_format=target)


def minari_folder(folder, kind, width=6):
    """A dataset as Minari writes it in Arrow and Parquet: a row more than steps."""
    rng, truth = np.random.default_rng(0), []
    spaces = {"type": "Box", "dtype": "float32", "shape": [2, 3]}
    metadata = {
        "data_format": kind,
        "dataset_id": "x/y-v0",
        "observation_space": json.dumps({"type": "Dict", "subspaces": {"a": spaces}}),
        "action_space": json.dumps({"type": "Box", "dtype": "float32", "shape": [2]}),
    }
    for number, steps in enumerate((4, 1)):
        made = {
            "a": rng.normal(size=(steps + 1, width)).astype(np.float32),
            "actions": rng.normal(size=(steps + 1, 2)).astype(np.float32),
            "rewards": rng.normal(size=steps + 1),
            "terminations": np.arange(steps + 1) == steps - 1,
            "truncations": np.zeros(steps + 1, bool),
        }
        truth.append(made)
        frame = pl.DataFrame({name: pl.Series(name, made[name]) for name in list(made)[1:]})
        observed = pl.DataFrame({"a": made["a"]}).to_struct("observations")
        texts = pl.Series("infos", [{"text": "x"}] * (steps + 1))
        frame = frame.with_columns(observed, texts)
        file = folder / "data" / str(number) / f"part-0.{kind}"
        file.parent.mkdir(parents=True)
        frame.write_ipc(file) if kind == "arrow" else frame.write_parquet(file)
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    return truth


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_tables_of_minari_are_imported(kind, tmp_path):
    truth = minari_folder(tmp_path / "set", kind)
    done = import_rollouts(tmp_path / "set", tmp_path / "run.h5", step_dt=0.1)
    assert done.notes[0].endswith("infos/text.")
    with open_rollouts(done.path) as rollouts:
        assert rollouts.info.about["task"] == "x/y-v0"
        assert rollouts.episodes["terminated"].all()
        for episode, made in zip(rollouts, truth, strict=True):
            observed = made["a"].reshape(-1, 2, 3)
            assert same(episode["obs/a"], observed[:-1])
            assert same(episode["next_obs/a"], observed[1:])
            assert same(episode["action"], made["actions"][:-1])
            assert same(episode["reward"], made["rewards"][:-1])
            assert same(episode["terminated"], made["terminations"][:-1])


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_damaged_tables_of_minari_are_named(kind, tmp_path):
    minari_folder(tmp_path / "set", kind, width=5)  # Not as the space says: one axis.
    file = tmp_path / "set" / "data" / "1" / f"part-0.{kind}"
    with open_rollouts(import_rollouts(tmp_path / "set", tmp_path / "run.h5").path) as rollouts:
        assert rollouts.channels["obs/a"].shape == (5,)
    whole, rng, failed = file.read_bytes(), np.random.default_rng(0), 0
    for number in range(12):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[int(rng.integers(len(content))) :]
        else:
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        try:
            import_rollouts(tmp_path / "set", tmp_path / "run.h5", if_exists="overwrite")
        except DataError as error:
            assert "'1' in" in str(error) or str(tmp_path) in str(error)
            failed += 1
    assert failed >= 4
    file.unlink()
    with pytest.raises(DataError, match=f"has no .{kind} file"):
        import_rollouts(tmp_path / "set", tmp_path / "run.h5", if_exists="overwrite")
