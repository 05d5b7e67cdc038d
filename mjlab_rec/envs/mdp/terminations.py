"""Stock termination terms. Each returns a bool tensor of shape (num_envs,)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg
from mjlab_rec.utils.nan_guard import NanGuard

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = [
    "bad_orientation",
    "joint_pos_out_of_limit",
    "nan_detection",
    "root_height_below_minimum",
    "time_out",
]


def time_out(env: ManagerBasedRlEnv) -> torch.Tensor:
    """The episode has lasted its maximum length. Use with ``time_out=True``."""
    return env.episode_length_buf >= env.max_episode_length


def bad_orientation(
    env: ManagerBasedRlEnv,
    limit_angle: float,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> torch.Tensor:
    """The root is tilted from upright by more than ``limit_angle`` (rad)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.projected_gravity_b[:, 2] > -math.cos(min(limit_angle, math.pi))


def root_height_below_minimum(
    env: ManagerBasedRlEnv,
    minimum_height: float,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> torch.Tensor:
    """The root's world z is below ``minimum_height`` (m)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_pos_w[:, 2] < minimum_height


def joint_pos_out_of_limit(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Any of the joints is outside its soft limits."""
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    pos = asset.data.joint_pos[:, joints]
    limits = asset.data.soft_joint_pos_limits[:, joints]
    return ((pos < limits[..., 0]) | (pos > limits[..., 1])).any(dim=1)


def nan_detection(env: ManagerBasedRlEnv) -> torch.Tensor:
    """The physics holds a NaN or an infinity, as when the simulation diverges.

    Checked are positions, velocities, accelerations, activations and sensors.
    """
    return NanGuard.detect_nans(env.sim.data)
