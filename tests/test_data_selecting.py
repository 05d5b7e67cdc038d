"""Merging, splitting and filtering recordings: equal rows, stable numbers, known origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from damaged_files import record
from data_worlds import World, same

from mjlab_rec.commands import data
from mjlab_rec.data import DataError, Rollouts, import_rollouts, open_rollouts
from mjlab_rec.data.checking import check
from mjlab_rec.data.conditions import matching
from mjlab_rec.data.copying import options_for
from mjlab_rec.data.rewriting import OutputOptions
from mjlab_rec.data.schema import ChannelSpec, RunInfo
from mjlab_rec.data.selecting import keep_where, merge, split


def world(seed: int, **more) -> World:
    return World(seed=seed, steps=16, model=True, special=False, **more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the recordings 2.h5 and 10.h5."""
    folder = tmp_path_factory.mktemp("runs")
    for number in (10, 2):
        record("hdf5", folder / f"{number}.h5", world(number), block_rows=7)
    return folder


def equal_episodes(new: Rollouts, old: Rollouts, indices: list[int]) -> None:
    assert len(new) == len(indices)
    wanted = old.episodes[indices].drop("file", "file_number", strict=False)
    found = new.episodes.select(wanted.columns)
    assert found.sort("env", "number").equals(wanted.sort("env", "number"))
    where = {key: i for i, key in enumerate(new.episodes.select("env", "number").rows())}
    for index in indices:
        at = where[old.episodes["env"][index], old.episodes["number"][index]]
        assert all(same(values, old[index][name]) for name, values in new[at].items())
        assert all(same(v, old.model(index)[n]) for n, v in new.model(at).items())
        assert new.model(at).keys() == old.model(index).keys()


@pytest.mark.parametrize("out", ["all.h5", "demo.hdf5", "all.npz", "folder", "table.csv", "pq"])
def test_a_merged_recording_is_what_its_parts_are_together(runs, out, tmp_path):
    formats = {"demo.hdf5": "robomimic", "folder": "npz", "pq": "parquet"}
    options = OutputOptions(format=formats.get(out, ""))
    seen = []
    merge(runs, tmp_path / out, options, lambda done, total: seen.append((done, total)))
    with open_rollouts(runs) as old, open_rollouts(tmp_path / out) as new:
        if out == "table.csv":  # model fields do not fit into a table of rows
            assert new.episodes.equals(
                old.episodes.drop("file", "file_number").sort("env", "number")
            )
        else:
            equal_episodes(new, old, list(range(len(old))))
        assert seen[-1] == (old.rows, old.rows)
        assert new.finished and new.info.channels == old.info.channels
        assert new.info.about["task"] == "made-up"
        (made,) = new.info.about["made"]
        assert made["how"] == "merge" and len(made["sources"]) == 2
    assert check(tmp_path / out).ok
    if out == "all.h5":  # plain h5py can read it, too
        with h5py.File(tmp_path / out) as file, open_rollouts(tmp_path / out) as new:
            ends: Any = file["ends"]
            assert len(ends) == len(new)
            assert np.array_equal(file["blocks/state"][0, 0, 0], new[0]["state"][0])  # type: ignore


def test_episodes_keep_their_origin_through_every_step(runs, tmp_path):
    merge(runs, tmp_path / "all.h5")
    record("hdf5", tmp_path / "more.h5", world(3), block_rows=7)
    merge([tmp_path / "all.h5", tmp_path / "more.h5"], tmp_path / "twice.h5")
    keep_where(tmp_path / "twice.h5", tmp_path / "kept.h5", "length >= 3")
    with open_rollouts(tmp_path / "kept.h5") as rollouts:
        origins, table = rollouts.origins, rollouts.episodes
        assert origins.select("env", "number").equals(table.select("env", "number"))
        files = {runs / "2.h5", runs / "10.h5", tmp_path / "more.h5"}
        assert set(origins["file"]) == set(map(str, files))
        for index, row in enumerate(origins.to_dicts()):
            with open_rollouts(row["file"]) as source:
                key = row["file_env"], row["file_number"]
                at = source.episodes.select("env", "number").rows().index(key)
                assert same(rollouts[index]["state"], source[at]["state"])


def test_the_first_recording_keeps_its_numbers(runs, tmp_path):
    merge([runs / "10.h5", runs / "2.h5"], tmp_path / "all.h5")
    with open_rollouts(runs / "10.h5") as first, open_rollouts(tmp_path / "all.h5") as together:
        keys = first.episodes.select("env", "number")
        assert together.episodes.join(keys, on=["env", "number"], how="semi").equals(first.episodes)


def test_a_split_uses_every_episode_once_and_repeats_with_its_seed(runs, tmp_path):
    outs = {
        tmp_path / f"{name}.h5": share for name, share in {"train": 0.75, "valid": 0.25}.items()
    }
    counts = split(runs / "2.h5", outs, seed=5)
    with open_rollouts(runs / "2.h5") as whole:
        keys = whole.episodes.select("env", "number").rows()
        found = []
        for out in outs:
            with open_rollouts(out) as part:
                mine = part.episodes.select("env", "number").rows()
                assert len(part) == counts[out]
                equal_episodes(part, whole, [keys.index(key) for key in mine])
                found.append(mine)
        assert sorted(found[0] + found[1]) == sorted(keys)
        assert abs(len(found[1]) - len(keys) / 4) <= 0.5
    again = {tmp_path / "a.h5": 0.75, tmp_path / "b.h5": 0.25}
    split(runs / "2.h5", again, seed=5)
    with open_rollouts(tmp_path / "a.h5") as part:
        assert part.episodes.select("env", "number").rows() == found[0]
    split(runs / "2.h5", {tmp_path / "c.h5": 0.75}, seed=6)
    with open_rollouts(tmp_path / "c.h5") as part:
        assert part.episodes.select("env", "number").rows() != found[0]


def test_shares_may_be_numbers_of_episodes(runs, tmp_path):
    assert list(split(runs, {tmp_path / "a.h5": 3, tmp_path / "b.h5": 1}).values()) == [3, 1]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.0], "A share of 0.0 is impossible"),
        ([1.5], "A share of 1.5 is impossible"),
        ([0.8, 0.3], "add up to 1.1, but they can be 1 at most"),
        ([10_000], "The shares have 10000 episodes, but the recording has"),
        ([0.001, 0.999], "cannot be divided into shares of 0.001, 0.999: they would have 0,"),
    ],
)
def test_impossible_shares_are_refused_before_anything_is_written(runs, shares, message, tmp_path):
    outs = {tmp_path / f"{number}.h5": share for number, share in enumerate(shares)}
    with pytest.raises(ValueError, match=message):
        split(runs / "2.h5", outs)
    assert not list(tmp_path.iterdir())


# -- conditions ------------------------------------------------------------------------------------

TABLE = pl.DataFrame(
    {
        "env": [0, 1, 2, 3],
        "return": [5.0, 20.0, None, -1.0],
        "length": [10, 50, 60, 70],
        "success": [True, False, None, True],
        "partial": [False, False, True, False],
        "file": ["a.h5", "a.h5", "b.h5", "return.h5"],
        "reward/up right": [1.0, 2.0, 3.0, 4.0],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("return > 10 and length >= 50", [1]),
        ("return < 10", [0, 3]),
        ("not (return < 10)", [1]),
        ("success", [0, 3]),
        ("not success", [1]),
        ("success is None", [2]),
        ("success is not None and not partial", [0, 1, 3]),
        ("success == true OR partial", [0, 2, 3]),
        ("10 < length <= 60", [1, 2]),
        ("env in [0, 3]", [0, 3]),
        ("env not in (0, 3)", [1, 2]),
        ("file = 'a.h5'", [0, 1]),
        ("file == 'return.h5'", [3]),
        ("abs(return) == 1", [3]),
        ("return / length > 0.3", [0, 1]),
        ("length % 20 == 10 and -length < 0", [0, 1, 3]),
        ("col('reward/up right') >= 3", [2, 3]),
        ("True", [0, 1, 2, 3]),
    ],
)
def test_a_condition_chooses_episodes(where, rows):
    assert matching(TABLE, where).tolist() == rows


def test_a_condition_may_list_thousands_of_values():
    table = pl.DataFrame({"number": [0, 1, 3000]})
    assert matching(table, f"number in ({','.join(map(str, range(2000)))})").tolist() == [0, 1]
    assert matching(table, " or ".join(["number > 2"] * 700)).tolist() == [2]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("retrun > 1", "There is no column 'retrun'. Did you mean 'return'"),
        ("return", "is neither true nor false"),
        ("return >", "cannot be understood"),
        ("return > 'x'", "cannot be computed"),
        ("__import__('os').system('true')", "is not possible in a condition"),
        ("length in ()", "has no values to compare with"),
        ("not " * 2000 + "partial", "nested too deep"),
        ("length > " + "+".join("1" * 4000), "nested too deep"),
        ("open('/etc/passwd')", r"'open\(...\)' is not possible"),
        ("[x for x in env]", "is not possible in a condition"),
        ("(lambda: 1)()", "is not possible in a condition"),
        ("env.map_elements(print)", "is not possible in a condition"),
        ("2 ** 9999999999 > 1", "is not possible in a condition"),
        ("(" * 5000 + "1" + ")" * 5000, "cannot be understood|characters"),
        ("return > 1; import os", "cannot be understood"),
        ("", "cannot be understood"),
        ("env == " + "9" * 5000, "cannot be"),
    ],
)
def test_a_condition_is_no_code(where, message):
    with pytest.raises(ValueError, match=message):
        matching(TABLE, where)


def test_filtering_keeps_what_matches_unchanged(runs, tmp_path):
    _, kept, count = keep_where(runs / "2.h5", tmp_path / "kept.h5", "terminated and length > 2")
    with open_rollouts(runs / "2.h5") as old, open_rollouts(tmp_path / "kept.h5") as new:
        match = old.episodes.select(pl.col("terminated") & (pl.col("length") > 2)).to_series()
        assert 0 < kept == match.sum() < count == len(old)
        equal_episodes(new, old, np.flatnonzero(match.to_numpy()).tolist())
        assert new.info.about["made"][-1]["where"] == "terminated and length > 2"


def test_nothing_is_written_if_nothing_matches(runs, tmp_path):
    with pytest.raises(DataError, match="No episode of .* matches 'length > 1000'"):
        keep_where(runs, tmp_path / "kept.h5", "length > 1000")
    assert not list(tmp_path.iterdir())


# -- what could be lost ----------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_asked_and_a_source_never(runs, tmp_path):
    record("npz", tmp_path / "run", world(1))
    with pytest.raises(DataError, match="already exists"):
        merge(runs, tmp_path / "run", OutputOptions(format="npz"))
    overwrite = OutputOptions(format="npz", if_exists="overwrite")
    with pytest.raises(DataError, match="is read, so it cannot be written at once"):
        merge([tmp_path / "run"], tmp_path / "run", overwrite)
    assert check(tmp_path / "run").ok
    merge(runs, tmp_path / "run", OutputOptions(format="npz", if_exists="number"))
    assert (tmp_path / "run_1").is_dir()
    merge(runs, tmp_path / "run", overwrite)
    with open_rollouts(tmp_path / "run") as new, open_rollouts(runs) as old:
        assert len(new) == len(old)
    with pytest.raises(DataError, match="given twice"):
        split(runs, {tmp_path / "x.h5": 0.5, str(tmp_path / "x.h5"): 0.5})


@pytest.mark.parametrize("out", ["out.h5", "out", "out.csv", "out.npz"])
def test_a_merge_that_fails_leaves_nothing_that_looks_complete(runs, out, tmp_path):
    path = record("npz", tmp_path / "bad", world(1))
    victim = sorted(path.glob("episode_*.npz"))[-1]
    victim.write_bytes(victim.read_bytes()[:-100])
    options = OutputOptions(format="npz" if out == "out" else "")
    with pytest.raises(DataError, match="bad"):
        merge([runs / "2.h5", path], tmp_path / out, options)
    assert {entry.name for entry in tmp_path.iterdir()} == {"bad"}


# -- the commands ----------------------------------------------------------------------------------


def run(line: str) -> int:
    try:
        data.main(line.split(), prog="data")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_commands_write_new_recordings(runs, tmp_path, capsys):
    assert run(f"merge {runs}/*.h5 --out {tmp_path}/all.h5") == 0
    assert f"Wrote {tmp_path}/all.h5" in capsys.readouterr().out
    assert run(f"filter {tmp_path}/all.h5 --out {tmp_path}/few --min-length 3 --ended truncated"
               " --env 2 7 --whole --format npz") == 0  # fmt: skip
    with open_rollouts(tmp_path / "few") as few, open_rollouts(tmp_path / "all.h5") as whole:
        rows = whole.episodes.filter(
            (pl.col("length") >= 3) & pl.col("truncated") & pl.col("env").is_in([2, 7])
        )
        assert few.format == "npz" and few.episodes.equals(rows) and 0 < len(few)
        assert f"Wrote {len(few)} of {len(whole)} episodes to" in capsys.readouterr().out
    outs = f"--out {tmp_path}/train.h5=0.5 --out {tmp_path}/valid.h5=2"
    assert run(f"split {tmp_path}/all.h5 {outs}") == 0
    assert f"Wrote 2 episodes to {tmp_path}/valid.h5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("filter {runs} --out {tmp}/x.h5", "Give a condition"),
        ("filter {runs} --out {tmp}/x.h5 --where retrun>1", "Did you mean 'return'?"),
        ("split {runs} --out {tmp}/x.h5", "it must be PATH=SHARE"),
        ("split {runs}", "Give the new recordings"),
        ("merge --out {tmp}/x.h5", "Give the path of a recording"),
        ("merge {runs} --out {tmp}/x.h5 --format hdf", "Did you mean 'hdf5'?"),
    ],
)
def test_wrong_usage_is_explained(line, message, runs, tmp_path, capsys):
    assert run(line.format(runs=runs, tmp=tmp_path)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [([250] * 9, 250), ([1000] * 9, 250), ([20] * 9, 20), ([1], 1), ([], 1), ([5000, 3], 250)],
)
def test_blocks_fit_the_lengths_of_episodes(lengths, rows):
    info = RunInfo(
        channels=(ChannelSpec(name="x", dtype=np.dtype("f4"), shape=(49,)),), envs=(0,), step_dt=1.0
    )
    options = options_for(np.array(lengths, np.int64), info)
    found = options.block_rows
    assert options.blocks == sum(-(-n // found) for n in lengths)
    assert found <= 256 and sum(-(-n // found) * found for n in lengths) <= 1.1 * max(
        sum(lengths), 1
    )
    assert abs(found - rows) <= 6


def test_a_file_of_a_format_that_has_folders_too_is_replaced(runs, tmp_path):
    out = tmp_path / "out.npz"
    overwrite = OutputOptions(if_exists="overwrite")
    for _ in range(2):
        import_rollouts(runs / "2.h5", out, if_exists="overwrite")
        merge(runs / "2.h5", out, overwrite)
    assert out.is_file() and check(out).ok
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("not a recording")
    for name in ("folder", "folder/../folder"):
        with pytest.raises(DataError, match="The folder .* is not replaced"):
            merge(runs, tmp_path / name, OutputOptions(format="npz", if_exists="overwrite"))
    assert (tmp_path / "folder" / "mine.txt").exists()
