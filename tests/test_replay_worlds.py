"""Recordings of many kinds of worlds are simulated again bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from long_runs import some_long
from test_variants_env import env_cfg
from worlds import cart_cfg

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import EventTermCfg
from mjlab_rec.recorders import MemoryRecorderCfg
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.replay import verify


def roll(cfg: Any, steps: int = 25) -> Rollouts:
    cfg.recorders = {"log": MemoryRecorderCfg(channels=("reward", "state", "physics"))}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        generator = torch.Generator().manual_seed(0)
        shape = env.num_envs, env.action_manager.total_action_dim
        for _ in range(steps):
            env.step(torch.rand(shape, generator=generator) * 2 - 1)
        return env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "task",
    [
        "gym-hopper",  # rk4, and no forward pass after the steps.
        "reach-arm",
        "tracking-biped",  # Commands write the state.
        some_long("gym-ant"),
        some_long("gym-humanoid"),
        some_long("gym-inverted-double-pendulum"),
        some_long("lift-arm"),
        some_long("velocity-flat-biped"),
        some_long("velocity-rough-quadruped"),
    ],
)
def test_tasks(task):
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed = 4, 1
    found = verify(roll(cfg))
    assert found.ok and found.tolerance == 0.0
    assert found.checked == found.steps == 100


def test_variants_keep_their_own_shapes_and_masses():
    cfg = env_cfg(seed=0)
    found = verify(roll(cfg, 60), num_worlds=3)
    assert found.ok and found.checked == 240
    cfg = env_cfg(seed=0)
    cfg.events.pop("heavier")  # Then nothing recomputes constants.
    assert verify(roll(cfg, 60)).ok


def test_worlds_that_diverge():
    def break_one(env: Any, env_ids: Any) -> None:
        if env.common_step_counter == 6:
            env.sim.data.qvel[1] = torch.nan

    cfg = cart_cfg(steps=(9,))
    cfg.events = {"break": EventTermCfg(func=break_one, mode="step")}
    found = verify(roll(cfg, 20))
    assert found.ok and found.checked == 80
