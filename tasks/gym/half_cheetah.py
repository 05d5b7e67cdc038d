"""Half-cheetah: two legs run forward as fast as they can."""

from __future__ import annotations

from mjlab_rec.envs import ManagerBasedRlEnvCfg
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, last, mean


def half_cheetah_env_cfg() -> ManagerBasedRlEnvCfg:
    """HalfCheetah-v5: two legs run forward as fast as they can."""
    return gym_env_cfg(
        "half_cheetah.xml",
        frame_skip=5,
        position=mdp.root_xy,
        observations={
            "qpos": ObservationTermCfg(func=mdp.qpos, params={"skip": 1}),
            "qvel": ObservationTermCfg(func=mdp.qvel),
        },
        rewards={
            "reward_forward": RewardTermCfg(func=mdp.velocity, params={"axis": 0}, weight=1.0),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-0.1),
        },
        metrics={
            "x_position": last(mdp.position, index=0),
            "x_velocity": mean(mdp.velocity, axis=0),
        },
        reset=EventTermCfg(
            func=mdp.reset_with_noise,
            mode="reset",
            params={"pos_noise": 0.1, "vel_noise": 0.1, "gaussian_vel": True},
        ),
    )
