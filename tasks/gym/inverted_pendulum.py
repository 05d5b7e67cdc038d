"""Inverted pendulum: a cart keeps a pole upright."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import is_alive
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg, TerminationTermCfg
from tasks.gym import mdp
from tasks.gym.base import follow, gym_env_cfg


def fallen(env: ManagerBasedRlEnv, max_angle: float = 0.2) -> torch.Tensor:
    """The pole leans too far, or the state is not finite. Shape (num_envs,)."""
    return ~(mdp.is_finite(env) & (env.sim.data.qpos[:, 1].abs() <= max_angle))


def inverted_pendulum_env_cfg() -> ManagerBasedRlEnvCfg:
    """InvertedPendulum-v5: a cart keeps a pole upright."""
    return gym_env_cfg(
        "inverted_pendulum.xml",
        frame_skip=2,
        observations={
            "qpos": ObservationTermCfg(func=mdp.qpos),
            "qvel": ObservationTermCfg(func=mdp.qvel),
        },
        rewards={"reward_survive": RewardTermCfg(func=is_alive, weight=1.0)},
        terminations={"fallen": TerminationTermCfg(func=fallen)},
        reset=EventTermCfg(
            func=mdp.reset_with_noise,
            mode="reset",
            params={"pos_noise": 0.01, "vel_noise": 0.01},
        ),
        viewer=follow("cart", distance=3.0),
    )
