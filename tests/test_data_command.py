"""The command line of ``data``: the table of subcommands, exit codes, and ``data info``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from data_worlds import World, episodes_of

from mjlab_rec.commands import data
from mjlab_rec.commands.data.progress import progress_bar
from mjlab_rec.data.description import describe
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    world = World(seed=7)
    path = tmp_path_factory.mktemp("data") / "run.h5"
    writer = writer_class("hdf5")(world.info, WriterOptions(path=str(path), block_rows=7))
    for episode in episodes_of(world):
        writer.write_episode(episode)
    writer.close()
    return path


def run(*words: str | Path) -> int:
    """Run a subcommand; returns its exit code."""
    try:
        data.main([str(word) for word in words], prog="data")
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code
    return 0


def test_help_lists_the_subcommands_with_what_they_do(capsys):
    assert run("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: data SUBCOMMAND [OPTIONS]"
    for name in data.SUBCOMMANDS:
        assert any(line.split()[:1] == [name] and line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", data.SUBCOMMANDS)
def test_every_subcommand_has_options_with_a_meaning(capsys, name):
    assert run(name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: data {name} ") and "--verbose" in said
    module, args_type = data.load(name)
    assert module.main and args_type.__doc__


def test_an_unknown_subcommand_gets_a_suggestion(capsys):
    assert run("inf", "x.h5") == 2
    assert "Unknown subcommand 'inf'. Did you mean 'info'?" in capsys.readouterr().err


def test_the_help_imports_nothing_heavy():
    code = """
import sys
from mjlab_rec.commands import data
data.main(["--help"])
print("modules:", *sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(ran.stdout.rpartition("modules:")[2].split())
    assert not loaded & {"torch", "polars", "h5py", "mujoco", "warp"}, ran.stderr


def test_the_script_describes_a_recording(run_script, recording):
    ran = run_script("data.py", "info", str(recording))
    assert ran.returncode == 0, ran.stderr
    assert "made-up" in ran.stdout and "obs/actor" in ran.stdout and "complete" in ran.stdout


def test_info_as_json_is_the_description(capsys, recording):
    assert run("info", recording, recording, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == 2 * [describe(recording)]


def test_a_description_has_the_numbers_of_the_recording(recording):
    about = describe(recording)
    assert (about["format"], about["task"], about["seed"]) == ("hdf5", "made-up", 7)
    assert about["files"] == 1 and about["bytes"] == recording.stat().st_size
    assert about["state"] == "complete" and about["finished"] and about["rows_lost"] == 0
    world = list(episodes_of(World(seed=7)))
    assert about["episodes"] == len(world)
    assert about["rows"] == sum(episode.rows for episode in world)
    assert about["length"]["max"] == max(episode.length for episode in world)
    assert about["ends"]["terminated"] == sum(episode.terminated for episode in world)
    spec = next(spec for spec in about["channels"] if spec["name"] == "action")
    assert spec["dtype"] == "float32" and spec["shape"] == [2]
    assert spec["elements"] == ["left", "right"]


def test_info_describes_what_it_can_and_names_what_it_cannot_read(capsys, recording, tmp_path):
    assert run("info", tmp_path / "none.h5", recording) == 2
    said = capsys.readouterr()
    assert "made-up" in said.out
    assert "There is no recording at" in said.err and "none.h5" in said.err


def test_info_without_a_path_is_an_error(capsys):
    assert run("info") == 2
    assert "Give the path of a recording" in capsys.readouterr().err


def test_a_progress_bar_is_shown_only_on_a_terminal(capsys):
    with progress_bar("Working") as report:
        report(1, 2)
    assert capsys.readouterr().err == ""
