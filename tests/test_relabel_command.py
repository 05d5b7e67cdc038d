"""``mjlab-rec data relabel``: from a recording of the command line to a new one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mjlab_rec.commands import data, main, play
from mjlab_rec.commands.data.relabel import RelabelArgs, task_cfg
from mjlab_rec.data import open_rollouts

MINE = """
def near(env):
    return -env.scene["cartpole"].data.joint_pos[:, 0].abs()


def position(env):
    return env.scene["cartpole"].data.joint_pos[:, :1]
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A folder with a recording and a module of terms."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_relabel_terms.py").write_text(MINE)
    words = "--task cartpole-balance --agent random --num-envs 3 --steps 12 --seed 1"
    words += " --env.episode-length-s 0.4 --record replay --record.path run.h5"
    play.main(words.split())
    return tmp_path


def relabel(text: str) -> None:
    main.main(["data", "relabel", *text.split()])


def test_the_task_of_the_recording_changes_nothing(run, capsys):
    relabel("run.h5 new.h5")
    said = capsys.readouterr().out
    assert (
        "reward: the same in all 36 rows" in said and "Wrote 6 episodes, 36 rows to new.h5" in said
    )
    data.main(["diff", "run.h5", "new.h5"])


def test_weights_and_terms_of_your_own(run, capsys):
    relabel(
        "run.h5 new.npz --task cartpole-balance --reward near=my_relabel_terms:near"
        " --observation more/x=my_relabel_terms:position --channels reward obs"
        " --env.rewards.near.weight 2 --env.rewards.smooth None --episode 0 2"
    )
    said = capsys.readouterr().out
    assert "reward_terms/near: new" in said and "obs/more: new" in said
    assert "'reward_terms/smooth' is as it was recorded" in said and "recorded: 0" in said
    with open_rollouts("new.npz") as rollouts:
        assert len(rollouts) == 2 and rollouts.format == "npz"
        assert json.dumps(rollouts.info.about["made"][-1]["task"]) == '"cartpole-balance"'
        rows = rollouts[1]
        assert np.allclose(rows["reward"], rows["reward_terms/near"])
        assert np.allclose(rollouts.episodes["return"][1], rows["reward"].sum())
        # The reward sees where the cart was after the step.
        step = rollouts.info.step_dt
        after = np.abs(rows["obs/more"][1:, 0])
        assert np.allclose(rows["reward"][:-1], -2.0 * step * after, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run.h5", "Give the recording, and the new recording to write."),
        ("run.h5 run.h5", "give --if-exists overwrite"),
        ("run.h5 no.h5 --channels action", "'action' cannot be computed again"),
        ("run.h5 no.h5 --task cartpole-balanse", "Did you mean 'cartpole-balance'"),
        ("run.h5 no.h5 --reward near", "it must be NAME=package.module:function"),
        ("run.h5 no.h5 --reward smooth=my_relabel_terms:near", "has a reward term 'smooth'"),
        ("run.h5 no.h5 --reward a=my_relabel_terms:naer", "Did you mean 'near'"),
        ("run.h5 no.h5 --reward a=no_such_module:near", "no_such_module"),
        ("run.h5 no.h5 --observation x=my_relabel_terms:position", "give a group and a name"),
        ("run.h5 no.h5 --env.rewards.smoth.weight 2", "Did you mean"),
        ("run.h5 no.h5 --episode 99", "There is no episode 99"),
        ("run.h5 no.h5 --num-worlds 0", "num_worlds is 0"),
        ("missing.h5 no.h5", "missing.h5"),
    ],
)
def test_what_is_wrong_is_named(run, capsys, words, said):
    with pytest.raises(SystemExit) as exit:
        relabel(words)
    assert exit.value.code == 2
    assert said in capsys.readouterr().err
    assert not Path("no.h5").exists()


def test_help_and_the_list_of_subcommands_name_it(capsys):
    main.main(["data"])
    assert "relabel" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        relabel("--help")
    assert "--reward" in capsys.readouterr().out


def test_the_cfg_for_watching_may_give_the_new_values():
    about = {"task": "velocity-flat-quadruped"}
    assert task_cfg(RelabelArgs(), about).episode_length_s == 20.0
    assert task_cfg(RelabelArgs(config="play"), about).episode_length_s == 1e9
