"""``data check``: finds what is wrong, says where, and copies what is good."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import damaged, files_of, flip
from data_worlds import World, episodes_of, same

from mjlab_rec.commands import data
from mjlab_rec.data import open_rollouts
from mjlab_rec.data.checking import CheckResult, check, repair
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Episode

KINDS = {
    "hdf5": "run.h5",
    "robomimic": "demo.h5",
    "npz": "run",
    "csv": "run.csv",
    "parquet": "run_parquet",
}
ENVS = (2, 7, 12)


def world() -> World:
    return World(steps=20, special=False)


def write(format: str, path: Path, episodes: list[Episode], **options: Any) -> Path:
    writer = writer_class(format)(world().info, WriterOptions(path=str(path), **options))
    for episode in episodes:
        writer.write_episode(episode)
    writer.close()
    return path


def write_blocks(path: Path, world: World) -> Path:
    writer = writer_class("hdf5")(world.info, WriterOptions(path=str(path), block_rows=7))
    for block in world.blocks():
        writer.write(block)
    writer.close()
    return path


def kinds(result: CheckResult) -> set[str]:
    return set(result.counts)


@pytest.mark.parametrize("format", KINDS)
def test_a_good_recording_is_good(format, tmp_path):
    episodes = list(episodes_of(world()))
    result = check(write(format, tmp_path / KINDS[format], episodes))
    assert result.ok and not result.findings and result.format == format
    assert result.good.all() and len(result.good) == len(episodes)
    assert result.rows == result.good_rows == sum(episode.rows for episode in episodes)
    assert result.nbytes > 0


def test_a_good_recording_in_blocks_is_good(tmp_path):
    seen = []
    path = write_blocks(tmp_path / "run.h5", world())
    result = check(path, progress=lambda done, total: seen.append(done / total))
    assert result.ok and result.good.all() and len(result.good) > 3
    assert seen == sorted(seen) and seen[-1] == 1


def first_long(episodes: list[Episode]) -> int:
    """An episode that ended and has at least five rows."""
    return next(i for i, e in enumerate(episodes) if e.rows >= 5 and not e.cut)


def changed(episode: Episode, name: str, change: Callable[[np.ndarray], None]) -> Episode:
    values = episode.arrays[name].copy()
    change(values)
    return replace(episode, arrays={**episode.arrays, name: values})


def put(at: Any, value: Any) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[at] = value

    return change


@pytest.mark.parametrize("format", KINDS)
@pytest.mark.parametrize(
    ("kind", "channel", "rows", "spoil"),
    [
        ("nan", "obs/actor", (1, 3), lambda e: changed(e, "obs/actor", put(([1, 3], 2), np.nan))),
        ("nan", "action", (2, 2), lambda e: changed(e, "action", put((2, 0), -np.inf))),
        ("flags", "terminated", (1, 1), lambda e: changed(e, "terminated", put(1, True))),
        ("flags", "", None, lambda e: replace(e, terminated=e.truncated, truncated=e.terminated)),
        ("steps", "step", (1, 2), lambda e: changed(e, "step", lambda s: np.add(s, s > 1, out=s))),
        ("return", "reward", None, lambda e: replace(e, recorded=e.recorded + 5.0)),
    ],
    ids=["nan", "inf", "early-flag", "wrong-flag", "gap", "return"],
)
def test_what_is_wrong_is_named_with_its_place(format, kind, channel, rows, spoil, tmp_path):
    episodes = list(episodes_of(world()))
    at = first_long(episodes)
    length = episodes[at].length + (kind == "steps")
    bad = episodes[at] = spoil(replace(episodes[at], length=length))
    result = check(write(format, tmp_path / KINDS[format], episodes))
    if (format, kind) == ("hdf5", "steps"):  # it has no mark that all steps have rows
        assert result.ok and "1 episodes have steps without a row" in result.findings[0].text
        return
    assert kinds(result) == {kind} and not result.ok
    assert int((~result.good).sum()) == 1
    for finding in result.findings:
        assert (finding.env, finding.number) == (bad.env, bad.number)
        assert f"pisode {bad.number} of environment {bad.env}" in finding.text
    if channel:
        assert (result.findings[0].channel, result.findings[0].rows) == (channel, rows)
    assert result.good_rows == result.rows - bad.rows


def test_nan_in_blocks_is_found_in_the_episode_and_row_where_it_is(tmp_path):
    made = World(steps=20)  # with NaN and infinities
    path = write_blocks(tmp_path / "run.h5", made)
    found = {(f.env, f.number, f.channel): f.rows for f in check(path).findings if f.kind == "nan"}
    wanted = {}
    with open_rollouts(path) as rollouts:
        for index, row in enumerate(rollouts.episodes.to_dicts()):
            for name, values in rollouts[index].items():
                bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
                if values.dtype.kind == "f" and len(bad) and not name.startswith("next_"):
                    wanted[row["env"], row["number"], name] = (bad[0], bad[-1])
    assert wanted and wanted.items() <= found.items()
    others = {name for _, _, name in found.keys() - wanted.keys()}
    assert others <= {"next value of obs/actor", "next value of obs/critic"}


def test_nan_can_be_allowed_by_channel(tmp_path):
    path = write_blocks(tmp_path / "run.h5", World(steps=20))
    assert kinds(check(path)) >= {"nan"}
    assert check(path, allow_nan=["*"]).ok
    with pytest.raises(ValueError, match="allow_nan: there is no channel 'obs/aktor'. Did you"):
        check(path, allow_nan=["obs/aktor"])


@pytest.mark.parametrize("format", KINDS)
def test_a_flipped_bit_in_values_is_found_and_the_rest_is_good(format, tmp_path):
    episodes = list(episodes_of(world()))
    path = write(format, tmp_path / KINDS[format], episodes)
    victim, at = _place_of(episodes[1].arrays["state"], path)
    with damaged(victim, flip(at, 3)):
        result = check(path)
        assert not result.ok and "checksum" in kinds(result) | {"structure"}
        assert 0 < result.good.sum() < len(episodes)
        repaired(path, tmp_path / "again.h5", result)


def _place_of(values: np.ndarray, path: Path) -> tuple[Path, int]:
    """The file and the offset where values are stored."""
    row = values[0].tobytes()
    text = (",".join(map(str, values[0].ravel())) + ",").encode()
    for file in files_of(path):
        content = file.read_bytes()
        for needle in (values.tobytes(), row, text):
            if (at := content.find(needle)) >= 0:
                return file, at
    raise AssertionError("the values are not in the files")


def repaired(path: Path, out: Path, result: CheckResult) -> None:
    """Repair a recording; what was written is good, and equal to what was good before."""
    repair(path, out, result)
    again = check(out)
    assert again.ok and len(again.good) == result.good.sum()
    with open_rollouts(path) as old, open_rollouts(out) as new:
        assert new.info.about["made"][-1]["dropped"] == int((~result.good).sum())
        keep = np.flatnonzero(result.good).tolist()
        assert new.episodes.equals(old.episodes[keep].select(new.episodes.columns))
        for place, index in enumerate(keep):
            assert all(same(values, old[index][name]) for name, values in new[place].items())
            assert all(same(v, old.model(index)[name]) for name, v in new.model(place).items())


def test_damage_in_blocks_names_channel_episodes_and_rows(tmp_path):
    path = write_blocks(tmp_path / "run.h5", World(steps=20, special=False, num_envs=1))
    with open_rollouts(path) as rollouts:
        values = rollouts.arrays("state")
        of_row = [(i, r) for i in range(len(rollouts)) for r in range(len(rollouts[i]["step"]))]
    at = path.read_bytes().find(values[9].tobytes())  # in the second block of seven rows
    with damaged(path, flip(at, 0)):
        result = check(path)
    touched = {of_row[row][0] for row in range(7, 14)}
    assert set(np.flatnonzero(~result.good)) == touched
    assert {f.kind for f in result.findings} == {"checksum"}
    for finding in result.findings:
        assert finding.channel == "state" and finding.file == str(path)
        assert finding.rows is not None
    named = {(f.number, f.rows) for f in result.findings}
    for episode in touched:
        mine = [r for row, (i, r) in enumerate(of_row) if i == episode and 7 <= row < 14]
        assert (episode, (mine[0], mine[-1])) in named


def test_a_truncated_recording_is_not_good_and_says_how_much_is(tmp_path):
    path = write("csv", tmp_path / "run.csv", list(episodes_of(world())))
    whole = check(path)
    size = path.stat().st_size
    with damaged(path, lambda content: content.__delitem__(slice(size - 300, None))):
        result = check(path)
    assert "structure" in kinds(result)
    assert any("ends early" in finding.text for finding in result.findings)
    assert 0 < result.good_rows < whole.rows


def test_what_is_no_recording_is_one_finding(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    result = check(tmp_path / "x.h5")
    assert kinds(result) == {"structure"} and len(result.good) == 0


def test_an_unfinished_recording_is_said_to_be(tmp_path):
    made = world()
    writer = writer_class("hdf5")(
        made.info, WriterOptions(path=str(tmp_path / "a.h5"), block_rows=7)
    )
    for block in made.blocks():
        writer.write(block)
    assert [f.kind for f in check(tmp_path / "a.h5").findings] == ["note"]  # it is being written
    content = (tmp_path / "a.h5").read_bytes()
    writer.close()
    (tmp_path / "b.h5").write_bytes(content)
    assert kinds(check(tmp_path / "b.h5")) == {"unfinished"}
    assert check(tmp_path / "a.h5").ok


def test_the_same_episode_twice_is_found(tmp_path):
    episodes = list(episodes_of(world()))
    path = write("npz", tmp_path / "run", [*episodes, episodes[0]])
    result = check(path)
    assert kinds(result) == {"duplicate"} and int((~result.good).sum()) == 2


# -- the command -----------------------------------------------------------------------------------


def run(*words: str | Path) -> int:
    try:
        data.main([str(word) for word in words], prog="data")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def with_nan(tmp_path) -> Path:
    episodes = list(episodes_of(world()))
    at = first_long(episodes)
    episodes[at] = changed(episodes[at], "action", put((0, 0), np.nan))
    return write("hdf5", tmp_path / "bad.h5", episodes)


def test_the_exit_code_says_whether_anything_is_wrong(with_nan, tmp_path, capsys):
    good = write("hdf5", tmp_path / "good.h5", list(episodes_of(world())))
    assert run("check", good) == 0
    assert f"{good}: good." in capsys.readouterr().out
    assert run("check", good, with_nan) == 1
    said = capsys.readouterr().out
    assert "NOT GOOD (1 nan)" in said and "'action' is NaN or infinite in 1 rows" in said
    assert run("check", with_nan, "--allow-nan", "action") == 0
    assert run("check", tmp_path / "none.h5") == 1


def test_the_result_as_json(with_nan, capsys):
    assert run("check", with_nan, "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and found["counts"] == {"nan": 1}
    assert found["findings"][0]["channel"] == "action" and found["findings"][0]["rows"] == [0, 0]


def test_repair_writes_a_clean_copy_and_never_over_something(with_nan, tmp_path, capsys):
    assert run("check", with_nan, "--repair", tmp_path / "clean.h5") == 1
    assert check(tmp_path / "clean.h5").ok
    assert run("check", with_nan, "--repair", tmp_path / "clean.h5") == 2
    assert "already exists" in capsys.readouterr().err
    assert run("check", with_nan, "--repair", with_nan, "--if-exists", "overwrite") == 2
    assert "is read, so it cannot be written" in capsys.readouterr().err
    assert not check(with_nan).ok  # it is still there
