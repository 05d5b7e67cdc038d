"""Folders of training runs, and finding checkpoints in them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from mjlab_rec.registry import load_env_cfg
from mjlab_rec.rl import RslRlOnPolicyRunnerCfg
from mjlab_rec.rl.run_folders import (
    NoCheckpointError,
    checkpoints,
    find_checkpoint,
    new_run_folder,
    read_agent,
    runs,
    write_cfgs,
)

NOON = datetime(2030, 5, 4, 12, 0, 1)


def a_run(root: Path, hour: int, *files: str, task: str = "my-task", experiment: str = "e") -> Path:
    run = new_run_folder(experiment, root=root, now=NOON.replace(hour=hour))
    write_cfgs(run, task, RslRlOnPolicyRunnerCfg(), {})
    for name in files:
        (run / name).touch()
    return run


def test_runs_are_named_after_the_time_and_never_shared(tmp_path: Path):
    first = new_run_folder("exp", "quick", tmp_path, NOON)
    second = new_run_folder("exp", "quick", tmp_path, NOON)
    assert first == tmp_path / "exp" / "2030-05-04_12-00-01_quick"
    assert second == tmp_path / "exp" / "2030-05-04_12-00-01_quick_2"


@pytest.mark.parametrize("names", [("a/b", ""), ("..", ""), ("exp", "a/b"), ("exp", "a\\b")])
def test_names_that_are_paths_are_refused(tmp_path: Path, names: tuple[str, str]):
    with pytest.raises(ValueError, match="must be the name of a folder, not a path"):
        new_run_folder(*names, root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_cfgs_of_a_run_can_be_read(tmp_path: Path):
    cfg = load_env_cfg("cartpole-balance")
    write_cfgs(tmp_path, "cartpole-balance", RslRlOnPolicyRunnerCfg(max_iterations=7), cfg)
    read = read_agent(tmp_path)
    assert read["task"] == "cartpole-balance" and read["agent"]["max_iterations"] == 7
    env = json.loads((tmp_path / "env.json").read_text())["env"]
    assert env["decimation"] == cfg.decimation
    assert env["rewards"]["smooth"]["func"] == "tasks.cartpole.mdp:smooth_reward"


def test_latest_is_the_last_checkpoint_of_the_newest_run(tmp_path: Path):
    a_run(tmp_path, 8, "model_5.pt")
    newest = a_run(tmp_path, 9, "model_90.pt", "model_100.pt", "model_best.pt", experiment="other")
    a_run(tmp_path, 10, "model_1.pt", task="another-task")
    a_run(tmp_path, 11)  # It has no checkpoint yet.
    assert find_checkpoint("latest", "my-task", tmp_path) == newest / "model_100.pt"
    assert find_checkpoint("best", "my-task", tmp_path) == newest / "model_best.pt"
    assert [run.name[11:13] for run in runs("my-task", tmp_path)] == ["08", "09", "11"]


def test_a_folder_means_its_last_checkpoint(tmp_path: Path):
    run = a_run(tmp_path, 8, "model_9.pt", "model_10.pt", "model_best.pt", "env_10.pt")
    assert [path.name for path in checkpoints(run)] == ["model_9.pt", "model_10.pt"]
    assert find_checkpoint(run, "my-task", tmp_path) == run / "model_10.pt"
    assert find_checkpoint(run / "model_9.pt", "my-task", tmp_path) == run / "model_9.pt"
    only_best = a_run(tmp_path, 9, "model_best.pt")
    assert find_checkpoint(only_best, "my-task", tmp_path) == only_best / "model_best.pt"


def test_what_is_missing_is_said(tmp_path: Path):
    with pytest.raises(NoCheckpointError, match="no run of it there. Train it first: mjlab-rec tr"):
        find_checkpoint("latest", "my-task", tmp_path)
    run = a_run(tmp_path, 8, "model_9.pt")
    with pytest.raises(NoCheckpointError, match="1 runs there, none with a model_best.pt"):
        find_checkpoint("best", "my-task", tmp_path)
    with pytest.raises(NoCheckpointError, match="Did you mean 'model_9.pt'"):
        find_checkpoint(run / "model_8.pt", "my-task", tmp_path)
    with pytest.raises(NoCheckpointError, match="There is no checkpoint 'lates'. Give a file"):
        find_checkpoint("lates", "my-task", tmp_path)
    with pytest.raises(NoCheckpointError, match="has no checkpoint"):
        find_checkpoint(run.parent, "my-task", tmp_path)
