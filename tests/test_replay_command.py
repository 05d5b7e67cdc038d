"""What ``mjlab-rec replay`` prints, and its exit codes."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.commands import replay
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders.presets import load_preset
from mjlab_rec.registry import load_env_cfg


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Recordings: whole, without checksums but with events, and without states."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = {name: str(folder / f"{name}.h5") for name in ("whole", "poor", "blind")}
    recorders = {
        "whole": load_preset("replay", path=paths["whole"]),
        "poor": load_preset("hdf5", path=paths["poor"], channels=("action", "state")),
        "blind": load_preset("hdf5", path=paths["blind"]),
    }
    with ManagerBasedRlEnv(cart_cfg(recorders=recorders)) as env:
        env.reset()
        for action in actions(20):
            env.step(action)
    return paths


def replayed(*words: str) -> int:
    try:
        replay.main(list(words))
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def test_verify_says_that_all_is_the_same(files, capsys, tmp_path):
    assert replayed(files["whole"], "--verify", "--json", str(tmp_path / "out.json")) == 0
    said = capsys.readouterr().out
    assert "Compared 80 of them bit for bit" in said and "All are the same." in said
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["ok"] and found["steps"] == 80 and found["engine"] == "mjbatch"


def test_verify_names_what_differs_and_returns_1(files, capsys):
    assert replayed(files["poor"], "--verify") == 1
    said = capsys.readouterr().out
    assert "steps differ, first step" in said and "The channel 'physics' was not recorded" in said


def test_verify_only_some_episodes(files, capsys):
    assert replayed(files["whole"], "--verify", "--env", "1", "2", "--episode", "0", "5") == 0
    assert "of 1 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Which recording?"),
        (["none.h5"], "There is no recording at"),
        (["blind"], "has no physics states"),
        (["whole", "--episode", "999"], "There is no episode 999"),
        (["whole", "--env", "9"], "Environment 9 was not recorded. Recorded are: 0, 1, 2, 3."),
        (["whole", "--tolerance", "-1"], "tolerance is -1"),
        (["whole", "--json", "/none/x.json"], "there is no folder /none"),
    ],
)
def test_errors_are_explained(files, words, says, capsys):
    assert replayed(*(files.get(word, word) for word in words), "--verify") == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["whole", "--tolerance", "1"], "--tolerance needs --verify, --policy or --task"),
        (["whole", "--grid", "0"], "--grid must be at least 1"),
        (["whole", "--speed", "-1"], "--speed must be a finite number above 0"),
        (["whole", "--video", "out.avi"], "--video writes a .mp4 file"),
        (["whole", "--rerun", "/none/out.rrd"], "there is no folder /none"),
        (["blind"], "has no physics states"),
    ],
)
def test_errors_of_showing_are_explained(files, words, says, capsys):
    assert replayed(*(files.get(word, word) for word in words)) == 2
    assert says in capsys.readouterr().err


def test_an_older_mujoco_warp_is_explained(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_warp", ModuleType("mujoco_warp"))
    monkeypatch.delitem(sys.modules, "mjlab_rec.sim.warp_engine", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda package: "3.11.0")
    assert replayed(files["whole"], "--verify", "--engine", "warp") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(
        "Error: The engine 'warp' needs MuJoCo-Warp 3.14 or newer, but 3.11.0 is"
    )
    assert "pip install --upgrade 'mujoco-warp>=3.14'" in said and "Traceback" not in said


def test_episodes_are_written_for_rerun(files, tmp_path, capsys):
    pytest.importorskip("rerun")
    path = tmp_path / "out.rrd"
    assert replayed(files["whole"], "--grid", "2", "--episode", "0", "3", "--rerun", str(path)) == 0
    said = capsys.readouterr().out
    assert path.stat().st_size > 10_000 and f"Wrote {path}" in said
    assert said.startswith("Writing ") and "steps of 2 episodes. Choose fewer with" in said
    assert replayed(files["whole"], "--episode", "0", "--rerun", str(path)) == 2
    assert "exist" in capsys.readouterr().err


def test_actions_are_played_in_a_task_and_recorded(tmp_path, capsys):
    first, second = str(tmp_path / "first.h5"), str(tmp_path / "second.h5")
    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = 2
    cfg.recorders = {"log": load_preset("replay", path=first)}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset(seed=0)
        for _ in range(5):
            env.step(torch.ones(2, 1))
    words = ["--task", "cartpole-swingup", "--record", "replay", "--record.path", second]
    assert replayed(first, *words, "--env.episode-length-s", "5") == 0
    said = capsys.readouterr().out
    assert "2 of 2 episodes held to the end" in said and f"Recorder replay wrote {second}" in said
    assert replayed(second, "--verify") == 0
    assert "Compared 10 of them bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--record", "hdf5"], "--record and --env.* need --task"),
        (["--task", "reach-arm"], "it simulates something else"),
        (["--task", "nothing"], "nothing"),
        (["--task", "cartpole-balance", "--record", "hdf6"], "hdf6"),
        (["--policy", "zero", "--verify"], "mutually exclusive"),
        (["--verify", "--video", "a.mp4"], "--video has no effect with --verify"),
        (["--policy", "zero", "--grid", "4"], "--grid has no effect with --policy"),
        (["--use", "states"], "--use states needs --task"),
        (["--config", "play"], "--config play needs --task or --policy"),
    ],
)
def test_errors_of_tasks_and_policies_are_explained(files, words, says, capsys):
    assert replayed(files["whole"], *words) == 2
    assert says in capsys.readouterr().err
