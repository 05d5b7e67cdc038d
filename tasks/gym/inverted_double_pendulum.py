"""Inverted double pendulum: a cart keeps two poles, one on the other, upright."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import is_alive
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg, TerminationTermCfg
from tasks.gym import mdp
from tasks.gym.base import follow, gym_env_cfg


def cart_pos(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Position of the cart. Shape (num_envs, 1)."""
    return env.sim.data.qpos[:, :1]


def pole_sin(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Sines of the poles' angles. Shape (num_envs, 2)."""
    return env.sim.data.qpos[:, 1:].sin()


def pole_cos(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Cosines of the poles' angles. Shape (num_envs, 2)."""
    return env.sim.data.qpos[:, 1:].cos()


def cart_constraint(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Force of the end of the rail on the cart. Shape (num_envs, 1)."""
    return env.sim.data.qfrc_constraint[:, :1]


def tip_distance(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Squared distance of the tip from 2 m above the rail; 1 % of it along x. Shape (num_envs,)."""
    tip = env.sim.data.site_xpos[:, 0]
    return 0.01 * tip[:, 0].square() + (tip[:, 2] - 2.0).square()


def pole_speed(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Weighted sum of the poles' squared velocities. Shape (num_envs,)."""
    speed = env.sim.data.qvel[:, 1:].square()
    return 1e-3 * speed[:, 0] + 5e-3 * speed[:, 1]


def fallen(env: ManagerBasedRlEnv, min_height: float = 1.0) -> torch.Tensor:
    """The tip is too low. Shape (num_envs,)."""
    return env.sim.data.site_xpos[:, 0, 2] <= min_height


def inverted_double_pendulum_env_cfg() -> ManagerBasedRlEnvCfg:
    """InvertedDoublePendulum-v5: a cart keeps two poles, one on the other, upright."""
    return gym_env_cfg(
        "inverted_double_pendulum.xml",
        frame_skip=5,
        observations={
            "cart_pos": ObservationTermCfg(func=cart_pos),
            "pole_sin": ObservationTermCfg(func=pole_sin),
            "pole_cos": ObservationTermCfg(func=pole_cos),
            "qvel": ObservationTermCfg(func=mdp.qvel, clip=(-10.0, 10.0)),
            "cart_constraint": ObservationTermCfg(func=cart_constraint, clip=(-10.0, 10.0)),
        },
        rewards={
            "reward_survive": RewardTermCfg(func=is_alive, weight=10.0),
            "distance_penalty": RewardTermCfg(func=tip_distance, weight=-1.0),
            "velocity_penalty": RewardTermCfg(func=pole_speed, weight=-1.0),
        },
        terminations={"fallen": TerminationTermCfg(func=fallen)},
        reset=EventTermCfg(
            func=mdp.reset_with_noise,
            mode="reset",
            params={"pos_noise": 0.1, "vel_noise": 0.1, "gaussian_vel": True},
        ),
        viewer=follow("cart", distance=4.0),
    )
