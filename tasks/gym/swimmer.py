"""Swimmer: three links swim forward in a fluid."""

from __future__ import annotations

from mjlab_rec.envs import ManagerBasedRlEnvCfg
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, last, mean


def swimmer_env_cfg() -> ManagerBasedRlEnvCfg:
    """Swimmer-v5: three links swim forward in a fluid."""
    return gym_env_cfg(
        "swimmer.xml",
        frame_skip=4,
        position=mdp.root_xy,
        observations={
            "qpos": ObservationTermCfg(func=mdp.qpos, params={"skip": 2}),
            "qvel": ObservationTermCfg(func=mdp.qvel),
        },
        rewards={
            "reward_forward": RewardTermCfg(func=mdp.velocity, params={"axis": 0}, weight=1.0),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-1e-4),
        },
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
            params={"pos_noise": 0.1, "vel_noise": 0.1},
        ),
    )
