"""``data diff``: how two recordings differ, down to the first step and field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damaged_files import record
from data_worlds import World, episodes_of

from mjlab_rec.commands import data
from mjlab_rec.data import open_rollouts
from mjlab_rec.data.comparing import EpisodeDifference, diff
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Episode


def world() -> World:
    return World(steps=14)


def write(path: Path, episodes: list[Episode], made: World | None = None) -> Path:
    info = (made or world()).info
    writer = writer_class("npz")(info, WriterOptions(path=str(path)))
    for episode in episodes:
        writer.write_episode(episode)
    writer.close()
    return path


@pytest.fixture
def old(tmp_path) -> Path:
    return write(tmp_path / "old", list(episodes_of(world())))


def changed(episode: Episode, name: str, row: int, place: tuple, change: float) -> Episode:
    values = episode.arrays[name].copy()
    values[(row, *place)] += change
    return replace(episode, arrays={**episode.arrays, name: values})


def test_equal_recordings_of_different_formats_are_equal(old, tmp_path):
    other = record("hdf5", tmp_path / "other.h5", world(), block_rows=7)
    seen = []
    found = diff(old, other, progress=lambda done, total: seen.append((done, total)))
    assert found.same and found.equal == seen[-1][0] == seen[-1][1] > 0


def test_the_first_step_and_field_that_differ_are_named(old, tmp_path):
    episodes = list(episodes_of(world()))
    at = next(i for i, e in enumerate(episodes) if e.rows >= 4)
    bad = changed(episodes[at], "action", 3, (1,), 0.5)
    bad = episodes[at] = changed(bad, "state", 3, (0,), 1.0)
    found = diff(old, write(tmp_path / "new", episodes))
    assert not found.same and found.equal == len(episodes) - 1
    (difference,) = found.episodes
    assert (difference.env, difference.number) == (bad.env, bad.number)
    assert difference.step == bad.arrays["step"][3]
    assert difference.channel == "state[0]" and difference.others == ["action"]
    assert difference.new == difference.old + 1.0 and not difference.table
    assert f"from step {difference.step} on: state[0]" in str(difference)
    counted = {each.channel: each for each in found.channels}
    assert list(counted) == ["state", "action"]
    assert (counted["state"].episodes, counted["state"].rows) == (1, 1)
    assert counted["action"].largest == pytest.approx(0.5, rel=1e-6)
    assert str(counted["state"]) == "state: 1 rows of 1 episodes differ, by up to 1"


def test_values_have_six_digits_unless_more_tell_them_apart():
    table = {"return": (1 / 3, 2 / 3), "recorded_return": (1.0, 1.0 + 1e-12)}
    text = str(EpisodeDifference(env=0, number=1, table=table))
    assert "return 0.333333 -> 0.666667; recorded_return 1.0 -> 1.000000000001" in text


def test_small_differences_can_be_tolerated(old, tmp_path):
    episodes = list(episodes_of(world()))
    at = next(i for i, e in enumerate(episodes) if np.isfinite(e.arrays["state"]).all())
    episodes[at] = changed(episodes[at], "state", 0, (0,), 1e-6)
    new = write(tmp_path / "new", episodes)
    assert not diff(old, new).same
    assert diff(old, new, tolerance=1e-5).same
    assert not diff(old, new, tolerance=1e-7).same
    assert diff(old, new, channels=["action"]).same


def test_negative_zero_differs_bit_for_bit(tmp_path):
    for name, zero in (("a", 0.0), ("b", -0.0)):
        episodes = list(episodes_of(world()))
        values = episodes[0].arrays["action"].copy()
        values[0, 0] = zero
        episodes[0] = replace(episodes[0], arrays={**episodes[0].arrays, "action": values})
        write(tmp_path / name, episodes)
    assert not diff(tmp_path / "a", tmp_path / "b").same
    assert diff(tmp_path / "a", tmp_path / "b", tolerance=1e-9).same


def test_missing_episodes_rows_and_facts_are_named(old, tmp_path):
    episodes = list(episodes_of(world()))
    at = next(i for i, e in enumerate(episodes[1:], 1) if e.rows >= 4)
    short = {name: values[:-1] for name, values in episodes[at].arrays.items()}
    episodes[at] = replace(episodes[at], arrays=short, success=not episodes[at].success)
    found = diff(old, write(tmp_path / "new", episodes[1:]))
    assert found.only_old == [(episodes[0].env, episodes[0].number)] and not found.only_new
    (difference,) = found.episodes
    assert difference.step is None
    rows = episodes[at].rows
    assert difference.table["rows"] == (rows + 1, rows)
    assert ("success" in difference.table) == (episodes[at].success is not None)


def test_differences_between_channels_are_named(old, tmp_path):
    made = world()
    kept = [s for s in made.info.channels if s.name != "camera"]
    made.info.channels = tuple(replace(s, units="N") if s.name == "action" else s for s in kept)
    made.info.step_dt = 0.5
    found = diff(old, write(tmp_path / "new", list(episodes_of(made)), made))
    assert found.schema == [
        "Only the first has the channel 'camera'.",
        "Channel 'action': units '' -> 'N'.",
        "step_dt: 0.02 -> 0.5.",
    ]


def run(*words: str | Path) -> int:
    try:
        data.main([str(word) for word in words], prog="data")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_exit_code_says_whether_they_differ(old, tmp_path, capsys):
    assert run("diff", old, old) == 0
    with open_rollouts(old) as rollouts:
        count = len(rollouts)
    assert capsys.readouterr().out == f"The recordings are equal: {count} episodes.\n"
    new = write(tmp_path / "new", list(episodes_of(World(steps=14, seed=1))))
    assert run("diff", old, new, "--most", "1") == 1
    assert "episodes differ" in capsys.readouterr().out
    assert run("diff", old, new, "--json") == 1
    assert json.loads(capsys.readouterr().out)["same"] is False
    assert run("diff", old, tmp_path / "none") == 2
    assert run("diff", old, new, "--channels", "aktion") == 2
    assert "Did you mean 'action'?" in capsys.readouterr().err
