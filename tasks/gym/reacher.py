"""Reacher: an arm with two links moves its fingertip to a target."""

from __future__ import annotations

import math

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, watch

_JOINTS = 2  # The joints of the arm; two slides that place the target follow.


def arm_cos_sin(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Cosines, then sines, of the arm's angles, which may be many turns. Shape (num_envs, 4)."""
    angle = env.sim.precise("qpos")[:, :_JOINTS]
    return torch.cat((angle.cos(), angle.sin()), dim=-1).float()


def arm_vel(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Velocities of the arm's joints. Shape (num_envs, 2)."""
    return env.sim.data.qvel[:, :_JOINTS]


def from_target(env: ManagerBasedRlEnv) -> torch.Tensor:
    """The way from the target to the fingertip in x and y. Shape (num_envs, 2)."""
    return mdp.between(env, "fingertip", "target")[:, :2]


def reset_arm_and_target(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """Start near the stretched arm, with a target anywhere within 0.2 m of the centre."""
    ids = mdp.all_or(env, env_ids)
    qpos, qvel = env.sim.data.qpos, env.sim.data.qvel
    qpos[ids] = env.rng.uniform(-0.1, 0.1, (len(ids), qpos.shape[1]), ids)
    # The root spreads the targets evenly over the disc.
    radius = 0.2 * env.rng.uniform(0.0, 1.0, (len(ids), 1), ids).sqrt()
    angle = env.rng.uniform(0.0, 2 * math.pi, (len(ids), 1), ids)
    qpos[ids, _JOINTS:] = radius * torch.cat((angle.cos(), angle.sin()), dim=-1)
    speed = env.rng.uniform(-0.005, 0.005, (len(ids), qvel.shape[1]), ids)
    speed[:, _JOINTS:] = 0.0
    qvel[ids] = speed


def reacher_env_cfg() -> ManagerBasedRlEnvCfg:
    """Reacher-v5: an arm with two links moves its fingertip to a target."""
    return gym_env_cfg(
        "reacher.xml",
        frame_skip=2,
        max_episode_steps=50,
        observations={
            "arm_cos_sin": ObservationTermCfg(func=arm_cos_sin),
            "target": ObservationTermCfg(func=mdp.qpos, params={"skip": _JOINTS}),
            "arm_vel": ObservationTermCfg(func=arm_vel),
            "from_target": ObservationTermCfg(func=from_target),
        },
        rewards={
            "reward_dist": RewardTermCfg(
                func=mdp.distance, params={"a": "fingertip", "b": "target"}, weight=-1.0
            ),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-1.0),
        },
        reset=EventTermCfg(func=reset_arm_and_target, mode="reset"),
        viewer=watch((0.0, 0.0, 0.0), distance=0.8, elevation=-60.0),
    )
