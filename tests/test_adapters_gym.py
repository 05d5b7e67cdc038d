"""Recorders around Gymnasium's environments: rows are true, what they return is untouched."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gym_worlds import Maze, check_rows, lives
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.data import open_rollouts
from mjlab_rec.recorders import (
    Hdf5RecorderCfg,
    NpzRecorderCfg,
)

MODES = {mode.name.lower(): mode for mode in AutoresetMode}
MAKERS: dict[str, Any] = {
    "CartPole-v1": partial(gymnasium.make, "CartPole-v1", max_episode_steps=9),
    "Blackjack-v1": partial(gymnasium.make, "Blackjack-v1"),
    "Ant-v5": partial(gymnasium.make, "Ant-v5", max_episode_steps=4),
    "Pusher-v5": partial(gymnasium.make, "Pusher-v5", max_episode_steps=4),
    "maze": Maze,
}


def some_actions(make: Any, steps: int, envs: int, seed: int = 3) -> list[Any]:
    """Random actions, (steps, environments)."""
    env = make()
    space = gymnasium.vector.utils.batch_space(env.action_space, envs)
    space.seed(seed)
    env.close()
    return [space.sample() for _ in range(steps)]


def drive(envs: Any, actions: Any, seed: int = 11) -> list[Any]:
    """Step through the actions; with the mode DISABLED, reset what is over. What came back."""
    found = [copy.deepcopy(envs.reset(seed=seed))]
    manual = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for t, action in enumerate(actions):
        result = envs.step(action)
        found.append(copy.deepcopy(result))
        over = np.asarray(result[2]) | np.asarray(result[3])
        if manual and over.any() and t + 1 < len(actions):
            found.append(copy.deepcopy(envs.reset(options={"reset_mask": over})))
    return found


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name in ours:
            assert_same(ours[name], theirs[name])
    elif isinstance(ours, (tuple, list)) or getattr(ours, "dtype", None) == np.dtype(object):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MAKERS)
def test_all_rows_are_true_and_what_comes_back_is_untouched(name, mode, tmp_path):
    make = MAKERS[name]
    actions = some_actions(make, 40 if name in ("maze", "Blackjack-v1") else 25, 3)
    plain = SyncVectorEnv([make] * 3, autoreset_mode=MODES[mode])
    want = drive(plain, actions)
    plain.close()
    recorders = {
        "blocks": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), block_steps=7),
        "episodes": NpzRecorderCfg(path=str(tmp_path / "b")),
    }
    inner = SyncVectorEnv([make] * 3, autoreset_mode=MODES[mode], copy=False)
    with RecordVector(inner, recorders) as envs:
        assert_same(drive(envs, actions), want)
    expected = lives(make, 11, actions, mode)
    for file in ("a.h5", "b"):
        with open_rollouts(str(tmp_path / file)) as rollouts:
            assert rollouts.finished and rollouts.verify() == []
            check_rows(rollouts, expected)


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_environments_in_other_processes_are_true(mode, tmp_path):
    actions = some_actions(Maze, 25, 2)
    infos = {"x_position": (), "goal": (2,), "deep/n": (), "is_success": ()}
    inner = AsyncVectorEnv([Maze] * 2, autoreset_mode=MODES[mode], copy=False)
    path = str(tmp_path / "a.h5")
    recorders = {"rows": Hdf5RecorderCfg(path=path)}
    with RecordVector(inner, recorders, infos=infos, success="is_success") as envs:
        drive(envs, actions)
    expected = lives(Maze, 11, actions, mode)
    with open_rollouts(path) as rollouts:
        check_rows(rollouts, expected, infos)
        for row, success in zip(
            [episode for of in expected for episode in of],
            rollouts.episodes["success"],
            strict=True,
        ):
            over = row[-1]["terminated"] or row[-1]["truncated"]
            assert success == (row[-1]["info"]["is_success"] if over else None)
