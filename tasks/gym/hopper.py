"""Hopper: one leg hops forward."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import is_alive
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg, TerminationTermCfg
from tasks.gym import mdp
from tasks.gym.base import follow, gym_env_cfg, last, mean


def unhealthy(
    env: ManagerBasedRlEnv,
    min_z: float = 0.7,
    max_angle: float = 0.2,
    max_state: float = 100.0,
) -> torch.Tensor:
    """The torso is low or tilted, or the state is far off. Shape (num_envs,)."""
    qpos, qvel = env.sim.data.qpos, env.sim.data.qvel
    healthy = (qpos[:, 1] > min_z) & (qpos[:, 2].abs() < max_angle)
    return ~(healthy & (mdp.largest(qpos[:, 2:], qvel) < max_state))


def hopper_env_cfg() -> ManagerBasedRlEnvCfg:
    """Hopper-v5: one leg hops forward."""
    return gym_env_cfg(
        "hopper.xml",
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
        viewer=follow("torso", distance=3.0),
    )
