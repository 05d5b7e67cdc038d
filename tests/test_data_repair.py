"""``repair`` keeps what is good: whole episodes, and if asked the good rows of damaged ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damaged_files import Undamaged, damaged, flip, read_all
from data_worlds import World, episodes_of, same

from mjlab_rec.commands import data
from mjlab_rec.data import open_rollouts
from mjlab_rec.data.checking import CheckResult, check, repair
from mjlab_rec.data.formats import format_named, writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import DataError

Row = tuple[int, int, int]


def write(path: Path, made: World, **options: Any) -> Undamaged:
    writer = writer_class("hdf5")(made.info, WriterOptions(path=str(path), block_rows=7, **options))
    for block in made.blocks():
        writer.write(block)
    writer.close()
    return whole(path)


def whole(path: Path, format: str = "hdf5") -> Undamaged:
    reader = format_named(format).open(path)
    try:
        return read_all(reader)
    finally:
        reader.close()


def world(**options: Any) -> World:
    return World(steps=30 * options.get("every", 1), special=False, **options)


def repaired(path: Path, known: Undamaged, out: Path) -> tuple[CheckResult, set[Row]]:
    """Repair a damaged recording; returns the rows that are gone. All others are as they were."""
    result = check(path)
    repair(path, out, result, keep_rows=True)
    assert check(out).ok
    gone = {(*key, int(step)) for key, arrays in known.arrays.items() for step in arrays["step"]}
    with open_rollouts(out) as rollouts:
        names = ["step", *rollouts.channels]
        for index, row in enumerate(rollouts.episodes.to_dicts()):
            key = row["env"], row["number"]
            arrays, before = rollouts.read_many([index], names), known.rows[key]
            steps = known.arrays[key]["step"].tolist()
            at = [steps.index(step) for step in arrays["step"].tolist()]
            assert all(same(arrays[name], known.arrays[key][name][at]) for name in names)
            assert row["start"] - arrays["step"][0] == before["start"] - steps[0]
            changed = ["start", "rows", "partial", "recorded_return"]
            if row["length"] < before["length"]:  # its end is lost
                assert row["cut"] and row["length"] > arrays["step"][-1]
                changed += ["length", "return", "terminated", "truncated", "cut", "success"]
            else:
                assert row["partial"] == (before["partial"] or len(at) < len(steps))
            assert all(row[name] == before[name] for name in before if name not in changed)
            total = arrays["reward"].sum(dtype=np.float64)
            assert row["recorded_return"] == pytest.approx(total, abs=1e-3)
            assert all(same(v, known.models[key][n]) for n, v in rollouts.model(index).items())
            gone -= {(*key, steps[row]) for row in at}
    return result, gone


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"model": True, "partial": True}])
def test_all_rows_that_are_kept_are_true(options, tmp_path):
    more = 0
    for seed in range(4):
        path = tmp_path / f"{seed}.h5"
        known = write(path, world(seed=seed, **options))
        rng = np.random.default_rng(seed)
        used = np.flatnonzero(np.fromfile(path, np.uint8))
        places = rng.choice(used[used > used[-1] // 4], 6)

        def change(content: bytearray, places: np.ndarray = places) -> None:
            for at in places.tolist():
                flip(at, 4)(content)

        with damaged(path, change):
            try:
                result, gone = repaired(path, known, tmp_path / f"{seed} clean.h5")
            except DataError as error:
                assert "nothing was written" in str(error)
                continue
        kept = sum(len(a["step"]) for a in known.arrays.values()) - len(gone)
        assert kept >= result.good_rows
        more += kept > result.good_rows
    assert more


def test_only_the_rows_of_a_damaged_block_of_an_environment_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5_layout._CHECKED", 1)  # each has a checksum
    path = tmp_path / "run.h5"
    made = world()
    known = write(path, made)
    with h5py.File(path) as file:
        column: Any = file["blocks/action"]
        at = column.id.get_chunk_info(0).byte_offset + column[0, 0].nbytes  # block 0, env_index 1
    with damaged(path, flip(at, 1)):
        result, gone = repaired(path, known, tmp_path / "clean.h5")
    env = made.info.envs[1]
    assert gone == {
        (*key, step)
        for key, arrays in known.arrays.items()
        for step in arrays["step"].tolist()
        if key[0] == env and known.rows[key]["start"] - arrays["step"][0] + step < 7
    }
    assert gone and {finding.kind for finding in result.findings} == {"checksum"}


@pytest.mark.parametrize("change", [{}, {"reward": False}])
def test_rows_around_a_lost_block_are_kept(change, tmp_path):
    path = tmp_path / "run.h5"
    made = world(num_envs=2)
    if change:
        specs = made.info.channels
        made.info.channels = tuple(spec for spec in specs if spec.name != "reward")
    known = write(path, made)
    with h5py.File(path) as file:
        steps: Any = file["index/step"]
        width = steps[0].nbytes if steps.ndim > 1 else 7 * 8
        at = steps.id.get_chunk_info(0).byte_offset + width  # of block 1
    with damaged(path, flip(at, 0)):
        result = check(path)
        lost = {f.text for f in result.findings if "are lost" in f.text}
        assert lost and not result.good.all()
        if change:
            return
        _, gone = repaired(path, known, tmp_path / "clean.h5")
    started = {key: known.rows[key]["start"] - a["step"][0] for key, a in known.arrays.items()}
    assert {7 <= started[row[:2]] + row[2] < 14 for row in gone} == {True}
    assert len(gone) == 14


@pytest.mark.parametrize("format", ["hdf5", "npz", "csv", "parquet", "robomimic"])
def test_rows_that_are_not_finite_are_dropped(format, tmp_path):
    suffix = {"hdf5": ".h5", "robomimic": ".h5", "csv": ".csv"}.get(format, "")
    path = tmp_path / f"run{suffix}"
    episodes = list(episodes_of(world()))
    known = {(e.env, e.number): e for e in episodes}
    victim = max(episodes, key=lambda e: e.rows)
    values = victim.arrays["obs/actor"].copy()
    values[2, 1] = np.nan
    spoiled = replace(victim, arrays={**victim.arrays, "obs/actor": values})
    writer = writer_class(format)(world().info, WriterOptions(path=str(path)))
    for episode in episodes:
        writer.write_episode(spoiled if episode is victim else episode)
    writer.close()
    repair(path, tmp_path / "clean.h5", check(path), keep_rows=True)
    with open_rollouts(tmp_path / "clean.h5") as rollouts:
        assert len(rollouts) == len(episodes)
        for index, (env, number) in enumerate(rollouts.episodes.select("env", "number").rows()):
            episode, before = rollouts[index], known[env, number]
            mine = (before.env, before.number) == (victim.env, victim.number)
            kept = [row for row in range(before.rows) if not mine or row != 2]
            assert episode["step"].tolist() == before.arrays["step"][kept].tolist()
            assert same(episode["action"], before.arrays["action"][kept])


def test_a_value_that_is_not_finite_is_the_next_value_of_the_row_before(tmp_path):
    path = tmp_path / "run.h5"
    made = world(num_envs=1)
    writer = writer_class("hdf5")(made.info, WriterOptions(path=str(path), block_rows=7))
    for number, block in enumerate(made.blocks()):
        if number == 1:
            block.arrays["obs/actor"][3, 0] = np.nan
        writer.write(block)
    writer.close()
    repair(path, tmp_path / "clean.h5", check(path), keep_rows=True)
    with open_rollouts(path) as old, open_rollouts(tmp_path / "clean.h5") as new:
        assert old.rows - new.rows in (1, 2)
        found = [np.isfinite(episode["next_obs/actor"]).all() for episode in new]
        assert found and all(found)


def test_the_command_keeps_rows_on_request(tmp_path, capsys):
    path = tmp_path / "run.h5"
    write(path, world())
    with h5py.File(path) as file:
        column: Any = file["blocks/action"]
        at = column.id.get_chunk_info(0).byte_offset
    arguments = ["check", str(path), "--keep-rows"]
    with damaged(path, flip(at, 1)):
        with pytest.raises(SystemExit, match="2"):
            data.main(arguments)
        assert "Give --repair" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="1"):
            data.main([*arguments, "--repair", str(tmp_path / "clean.h5")])
    assert "and the good rows of" in capsys.readouterr().out
