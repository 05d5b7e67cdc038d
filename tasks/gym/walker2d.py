"""Walker2d: two legs walk forward."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import is_alive
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg, TerminationTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, last, mean


def unhealthy(
    env: ManagerBasedRlEnv, z_range: tuple[float, float] = (0.8, 2.0), max_angle: float = 1.0
) -> torch.Tensor:
    """The torso is too low, too high or tilted. Shape (num_envs,)."""
    z, angle = env.sim.data.qpos[:, 1], env.sim.data.qpos[:, 2]
    return ~((z > z_range[0]) & (z < z_range[1]) & (angle.abs() < max_angle))


def walker2d_env_cfg() -> ManagerBasedRlEnvCfg:
    """Walker2d-v5: two legs walk forward."""
    return gym_env_cfg(
        "walker2d_v5.xml",
        frame_skip=4,
        position=mdp.root_xy,
        observations={
            "qpos": ObservationTermCfg(func=mdp.qpos, params={"skip": 1}),
            "qvel": ObservationTermCfg(func=mdp.qvel, clip=(-10.0, 10.0)),
        },
        rewards={
            "reward_forward": RewardTermCfg(func=mdp.velocity, params={"axis": 0}, weight=1.0),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-1e-3),
            "reward_survive": RewardTermCfg(func=is_alive, weight=1.0),
        },
        terminations={"unhealthy": TerminationTermCfg(func=unhealthy)},
        metrics={
            "x_position": last(mdp.position, index=0),
            "z_distance_from_origin": mean(mdp.position, index=1, origin=1.25),
            "x_velocity": mean(mdp.velocity, axis=0),
        },
        reset=EventTermCfg(
            func=mdp.reset_with_noise,
            mode="reset",
            params={"pos_noise": 5e-3, "vel_noise": 5e-3},
        ),
    )
