"""Checkpoints that are switched while playing: the list, the keys, and files that do not load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.viewer.checkpoints import Checkpoints
from mjlab_rec.viewer.native_figures import NativeFigures
from mjlab_rec.viewer.native_keys import NativeKeys
from mjlab_rec.viewer.playback import Playback

EIGHT, NINE = 56, 57


class Constant:
    """A policy that pushes as hard as its file says, and remembers whose episodes ended."""

    def __init__(self, push: float) -> None:
        self.push = push
        self.resets: list[list[bool]] = []

    def __call__(self, obs: Any) -> torch.Tensor:
        return torch.full((3, 1), self.push)

    def reset(self, dones: torch.Tensor) -> None:
        self.resets.append(dones.tolist())


def load(path: Path) -> Constant:
    return Constant(float(path.read_text()))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two checkpoints."""
    for name, push in (("model_0.pt", 0.1), ("model_10.pt", 0.2), ("agent.json", 9.0)):
        (tmp_path / name).write_text(str(push))
    return tmp_path


def test_new_checkpoints_appear_when_it_is_time_to_look(run):
    clock = Clock()
    checkpoints = Checkpoints(run / "model_10.pt", load, clock)
    assert checkpoints.names() == ["model_0.pt", "model_10.pt"]
    (run / "model_9.pt").write_text("0.3")
    (run / "model_best.pt").write_text("0.4")
    assert checkpoints.names() == ["model_0.pt", "model_10.pt"]
    clock.now = 1.5
    assert checkpoints.names() == ["model_0.pt", "model_9.pt", "model_10.pt", "model_best.pt"]


def test_a_checkpoint_of_another_name_is_listed_while_it_plays(run):
    (run / "mine.pt").write_text("0.3")
    assert Checkpoints(run / "mine.pt", load).names() == ["model_0.pt", "model_10.pt", "mine.pt"]


def test_a_folder_that_is_gone_leaves_the_names(run):
    clock = Clock()
    checkpoints = Checkpoints(run / "model_10.pt", load, clock)
    names = checkpoints.names()
    run.rename(run.with_name("away"))
    clock.now = 5.0
    assert checkpoints.names() == names


@pytest.fixture
def playback(run):
    with ManagerBasedRlEnv(cart_cfg(3, steps=(2, 5, 5))) as env:
        path = run / "model_0.pt"
        yield Playback(env, load(path), checkpoints=Checkpoints(path, load))


def play(playback: Playback, steps: int) -> None:
    goal = playback.steps + steps
    playback.run(lambda: playback.steps == goal)


def pushed(playback: Playback) -> float:
    return float(playback.env.action_manager.action[1, 0])


def test_another_checkpoint_plays_from_the_next_step_on(playback, run):
    play(playback, 1)
    assert pushed(playback) == pytest.approx(0.1)
    playback.switch("model_10.pt")
    play(playback, 1)
    assert pushed(playback) == pytest.approx(0.2) and playback.checkpoints.current == "model_10.pt"
    assert playback.env.episode_length_buf.tolist()[1] == 2  # The episode goes on.


def test_a_checkpoint_that_does_not_load_changes_nothing_and_says_why(playback, run, caplog):
    (run / "model_20.pt").write_text("half of a fi")
    playback.switch("model_20.pt")
    play(playback, 1)
    assert pushed(playback) == pytest.approx(0.1) and playback.checkpoints.current == "model_0.pt"
    assert "could not convert" in playback.checkpoints.error and "could not" in caplog.text
    playback.switch("model_10.pt")
    play(playback, 1)
    assert playback.checkpoints.error is None and pushed(playback) == pytest.approx(0.2)


def test_policies_are_told_whose_episodes_ended(playback):
    policy = playback.policy
    play(playback, 2)
    playback.reset([1])
    playback.reset()
    play(playback, 1)
    ended = [[False] * 3, [True, False, False], [False, True, False], [True] * 3, [False] * 3]
    assert policy.resets == ended


def test_keys_go_through_the_checkpoints(playback, run):
    keys = NativeKeys(playback, NativeFigures())

    def press(key: int) -> list[tuple[str, str]]:
        keys.press(key)
        play(playback, 1)
        return keys.help()

    assert keys.help() == [("F12", "list the keys"), ("plays", "model_0.pt")]
    assert ("plays", "model_0.pt") in press(EIGHT)  # There is none before it.
    assert ("plays", "model_10.pt") in press(NINE)
    (run / "model_20.pt").write_text("broken")
    said = dict(press(NINE))
    assert said["plays"] == "model_10.pt" and "could not convert" in said["failed"]
    assert "failed" not in dict(press(EIGHT)) and pushed(playback) == pytest.approx(0.1)


def test_without_checkpoints_there_are_no_such_keys():
    with ManagerBasedRlEnv(cart_cfg(3)) as env:
        keys = NativeKeys(Playback(env, lambda _: torch.zeros(3, 1)), NativeFigures())
        assert EIGHT not in keys.actions and keys.help() == [("F12", "list the keys")]
