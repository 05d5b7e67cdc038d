"""Pusher: an arm with seven joints pushes a cylinder to a goal."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, watch

_JOINTS = 7  # The joints of the arm; two slides each of the cylinder and the goal follow.
_TRIES = 32  # One place in three is too close to the goal, so one of these is far enough.


def arm_pos(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Positions of the arm's joints. Shape (num_envs, 7)."""
    return env.sim.data.qpos[:, :_JOINTS]


def arm_vel(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Velocities of the arm's joints. Shape (num_envs, 7)."""
    return env.sim.data.qvel[:, :_JOINTS]


def reset_arm_and_cylinder(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """Start with the arm in its default pose, and a cylinder more than 0.17 m from the goal."""
    ids = mdp.all_or(env, env_ids)
    n = len(ids)
    x = env.rng.uniform(-0.3, 0.0, (n, _TRIES), ids)
    y = env.rng.uniform(-0.2, 0.2, (n, _TRIES), ids)
    # The first that is far enough, as if drawn again until one is.
    chosen = (torch.hypot(x, y) > 0.17).float().argmax(dim=1, keepdim=True)
    place = torch.cat((x.gather(1, chosen), y.gather(1, chosen)), dim=-1)
    qpos, qvel = env.sim.data.qpos, env.sim.data.qvel
    qpos[ids, _JOINTS:] = torch.cat((place, torch.zeros_like(place)), dim=-1)
    speed = env.rng.uniform(-0.005, 0.005, (n, qvel.shape[1]), ids)
    speed[:, _JOINTS:] = 0.0
    qvel[ids] = speed


def pusher_env_cfg() -> ManagerBasedRlEnvCfg:
    """Pusher-v5: an arm with seven joints pushes a cylinder to a goal."""
    return gym_env_cfg(
        "pusher_v5.xml",
        frame_skip=5,
        max_episode_steps=100,
        observations={
            "arm_pos": ObservationTermCfg(func=arm_pos),
            "arm_vel": ObservationTermCfg(func=arm_vel),
            "tip": ObservationTermCfg(func=mdp.body_pos, params={"body": "tips_arm"}),
            "cylinder": ObservationTermCfg(func=mdp.body_pos, params={"body": "object"}),
            "goal": ObservationTermCfg(func=mdp.body_pos, params={"body": "goal"}),
        },
        rewards={
            "reward_dist": RewardTermCfg(
                func=mdp.distance, params={"a": "object", "b": "goal"}, weight=-1.0
            ),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-0.1),
            "reward_near": RewardTermCfg(
                func=mdp.distance, params={"a": "object", "b": "tips_arm"}, weight=-0.5
            ),
        },
        reset=EventTermCfg(func=reset_arm_and_cylinder, mode="reset"),
        viewer=watch((0.0, 0.0, 0.0), distance=2.5, elevation=-30.0),
    )
