"""Ant: a torso with four legs walks forward."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import is_alive
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg, TerminationTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, last, mean

_TORSO = 1  # The body after the world.


def torso_xy(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Where the torso is, as precisely as the engine has it. Shape (num_envs, 2)."""
    return env.sim.precise("xpos")[:, _TORSO, :2]


def contact_cost(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Sum of the squared contact forces, each clipped to [-1, 1]. Shape (num_envs,)."""
    return mdp.step_contact_forces(env).clamp(-1.0, 1.0).square().sum(dim=-1)


def unhealthy(env: ManagerBasedRlEnv, z_range: tuple[float, float] = (0.2, 1.0)) -> torch.Tensor:
    """The torso is too low or too high, or the state is not finite. Shape (num_envs,)."""
    z = env.sim.data.qpos[:, 2]
    return ~(mdp.is_finite(env) & (z >= z_range[0]) & (z <= z_range[1]))


def ant_env_cfg() -> ManagerBasedRlEnvCfg:
    """Ant-v5: a torso with four legs walks forward."""
    return gym_env_cfg(
        "ant.xml",
        frame_skip=5,
        position=torso_xy,
        contact_forces=True,
        observations={
            "qpos": ObservationTermCfg(func=mdp.qpos, params={"skip": 2}),
            "qvel": ObservationTermCfg(func=mdp.qvel),
            "contact_forces": ObservationTermCfg(func=mdp.contact_forces, clip=(-1.0, 1.0)),
        },
        rewards={
            "reward_forward": RewardTermCfg(func=mdp.velocity, params={"axis": 0}, weight=1.0),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-0.5),
            "reward_contact": RewardTermCfg(func=contact_cost, weight=-5e-4),
            "reward_survive": RewardTermCfg(func=is_alive, weight=1.0),
        },
        terminations={"unhealthy": TerminationTermCfg(func=unhealthy)},
        metrics={
            "x_position": last(mdp.position, index=0),
            "y_position": last(mdp.position, index=1),
            "distance_from_origin": last(mdp.distance_from_origin),
            "x_velocity": mean(mdp.velocity, axis=0),
            "y_velocity": mean(mdp.velocity, axis=1),
        },
        reset=EventTermCfg(
            func=mdp.reset_with_noise,
            mode="reset",
            params={"pos_noise": 0.1, "vel_noise": 0.1, "gaussian_vel": True},
        ),
    )
