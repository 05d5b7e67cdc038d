"""Ends of episodes of the tracking task: the robot lost the motion, or reached its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg
from mjlab_rec.utils.math import quat_apply_inverse
from tasks.tracking.mdp.observations import motion_command
from tasks.tracking.mdp.rewards import BodyNames, bodies

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = [
    "bad_anchor_ori",
    "bad_anchor_pos",
    "bad_anchor_pos_z_only",
    "bad_motion_body_pos",
    "bad_motion_body_pos_z_only",
    "motion_ended",
]


def motion_ended(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """Whether this was the step to the motion's last frame; use it with ``time_out=True``."""
    command = motion_command(env, command_name)
    return command.time_steps >= len(command.motion) - 1


def bad_anchor_pos(env: ManagerBasedRlEnv, command_name: str, threshold: float) -> torch.Tensor:
    """Whether the anchor is farther from the motion's than a distance (m)."""
    command = motion_command(env, command_name)
    return (command.anchor_pos_w - command.robot_anchor_pos_w).norm(dim=-1) > threshold


def bad_anchor_pos_z_only(
    env: ManagerBasedRlEnv, command_name: str, threshold: float
) -> torch.Tensor:
    """Whether the anchor is higher or lower than the motion's by more than a distance (m)."""
    command = motion_command(env, command_name)
    return (command.anchor_pos_w - command.robot_anchor_pos_w)[:, 2].abs() > threshold


def bad_anchor_ori(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg, command_name: str, threshold: float
) -> torch.Tensor:
    """Whether the anchor leans differently: by the vertical part of gravity in both frames."""
    command = motion_command(env, command_name)
    gravity = env.scene[asset_cfg.name].data.gravity_vec_w
    wanted = quat_apply_inverse(command.anchor_quat_w, gravity)[:, 2]
    measured = quat_apply_inverse(command.robot_anchor_quat_w, gravity)[:, 2]
    return (wanted - measured).abs() > threshold


def bad_motion_body_pos(
    env: ManagerBasedRlEnv, command_name: str, threshold: float, body_names: BodyNames = None
) -> torch.Tensor:
    """Whether a body is farther from where it should be around the anchor than a distance (m)."""
    command = motion_command(env, command_name)
    error = command.body_pos_relative_w - command.robot_body_pos_w
    return (error[:, bodies(command, body_names)].norm(dim=-1) > threshold).any(dim=-1)


def bad_motion_body_pos_z_only(
    env: ManagerBasedRlEnv, command_name: str, threshold: float, body_names: BodyNames = None
) -> torch.Tensor:
    """Whether a body is higher or lower than it should be by more than a distance (m)."""
    command = motion_command(env, command_name)
    error = (command.body_pos_relative_w - command.robot_body_pos_w)[..., 2].abs()
    return (error[:, bodies(command, body_names)] > threshold).any(dim=-1)
