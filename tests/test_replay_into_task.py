"""Recorded actions and states are played in another task, which records what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from mjlab_rec.recorders import Hdf5RecorderCfg, MemoryRecorderCfg
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.replay.into_task import play_into_task

CHANNELS = ("obs", "command", "action", "reward", "state")


def world(pushes: bool = False, **cfg: Any) -> Any:
    """The cart with a randomized mass."""
    made = cart_cfg(**cfg)
    if not pushes:
        made.events = {"start": made.events["start"]}
    made.events["mass"] = EventTermCfg(
        func=mdp.dr.body_mass,
        mode="reset",
        params={
            "asset_cfg": SceneEntityCfg("robot", body_names=("pole",)),
            "operation": "scale",
            "ranges": (0.5, 2.0),
        },
    )
    return made


def roll(**cfg: Any) -> Rollouts:
    recorders: Any = {"log": MemoryRecorderCfg(channels=CHANNELS)}
    with ManagerBasedRlEnv(world(recorders=recorders, **cfg)) as env:
        env.reset()
        for action in actions(20):
            env.step(action)
        return env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def calm() -> Rollouts:
    return roll()


@pytest.fixture(scope="module")
def pushed() -> Rollouts:
    return roll(pushes=True)


def into(tmp_path: Any, **cfg: Any) -> tuple[Any, str]:
    """Another task: joints without noise are all that is seen, and only its own clock ends it."""
    path = str(tmp_path / "new.h5")
    made = world(steps=(1000,), seed=99, **cfg)
    made.observations["actor"].terms = {"joints": made.observations["actor"].terms["joints"]}
    made.observations["actor"].enable_corruption = False
    made.recorders = {"log": Hdf5RecorderCfg(path=path, channels=(*CHANNELS, "physics"))}
    return made, path


def test_actions_alone_lead_to_the_recorded_states(calm, tmp_path):
    cfg, path = into(tmp_path)
    found, notes = play_into_task(calm, cfg)
    assert not notes and all(episode.ok for episode in found)
    lengths = calm.episodes["rows"].to_list()
    assert [e.steps for e in found] == [e.played for e in found] == lengths
    assert {e.ended for e in found} == {"cut"}
    with open_rollouts(path) as new:
        assert new.episodes["rows"].to_list() == lengths
        for index in range(len(calm)):
            old, again = calm.read(index), new.read(index)
            assert np.array_equal(old["state"], again["state"])
            assert np.array_equal(old["action"], again["action"])
            assert np.array_equal(old["command/goal"], again["command/goal"])
            assert again["obs/actor"].shape == (lengths[index], 2)
            assert np.allclose(old["reward"], again["reward"], atol=1e-5)
            mass = calm.model(index)["body_mass"]
            assert np.array_equal(mass, new.model(index)["body_mass"])


def test_commands_that_move_things_at_resets_do_not_change_the_first_state(tmp_path):
    def lift() -> Any:
        cfg = load_env_cfg("lift-arm")
        cfg.scene.num_envs, cfg.seed = 2, 1
        return cfg

    cfg = lift()
    cfg.recorders = {"log": MemoryRecorderCfg(channels=CHANNELS)}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for _ in range(5):
            env.step(torch.zeros(2, env.action_manager.total_action_dim))
        rollouts = env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]
    cfg = lift()
    cfg.seed = 5
    found, _ = play_into_task(rollouts, cfg, tolerance=1e-6)
    assert all(episode.ok for episode in found)


def test_how_far_an_episode_held_is_counted(pushed, tmp_path):
    cfg, _ = into(tmp_path)
    found, _ = play_into_task(pushed, cfg, episodes=[0, 1, 2, 3])
    broken = [episode for episode in found if not episode.ok]
    assert broken
    for episode in broken:
        assert 0 <= episode.held < episode.steps and episode.most > 0.01
        assert f"held {episode.held} of {episode.steps} steps" in str(episode)


def test_states_are_followed_through_pushes(pushed, tmp_path):
    cfg, path = into(tmp_path)
    play_into_task(pushed, cfg, use="states")
    with open_rollouts(path) as new:
        for index in range(len(pushed)):
            assert np.array_equal(pushed.read(index)["state"], new.read(index)["state"])


def test_an_end_in_the_other_task_ends_the_episode(calm, tmp_path):
    cfg, path = into(tmp_path)
    cfg.terminations["end"].params["steps"] = (3,)
    found, _ = play_into_task(calm, cfg, episodes=[0])
    assert (found[0].played, found[0].ended) == (3, "terminated")
    with open_rollouts(path) as new:
        assert new.episodes["rows"].to_list() == [3]


def test_what_does_not_fit_is_named(calm, tmp_path):
    cfg, _ = into(tmp_path, decimation=2)
    with pytest.raises(DataError, match="takes 0.04 s, one of this task 0.02 s"):
        play_into_task(calm, cfg)
    cfg, _ = into(tmp_path)
    cfg.actions = {}
    with pytest.raises(DataError, match="have 1 numbers, those of this task 0.*--use states"):
        play_into_task(calm, cfg)
    thin = MemoryRecorderCfg(channels=CHANNELS, every=2)
    with ManagerBasedRlEnv(world(recorders={"log": thin})) as env:
        env.reset()
        for action in actions(4):
            env.step(action)
        gaps = env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DataError, match="one of 2 steps was recorded"):
        play_into_task(gaps, into(tmp_path)[0])
    recorders: Any = {"log": MemoryRecorderCfg(channels=("state",))}
    with ManagerBasedRlEnv(world(recorders=recorders)) as env:
        env.reset()
        env.step(actions(1)[0])
        without = env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]
    cfg, _ = into(tmp_path)
    with pytest.raises(DataError, match="no actions to play"):
        play_into_task(without, cfg)
