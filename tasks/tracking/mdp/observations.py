"""Observations of the tracking task: the motion's anchor and the bodies, as the robot sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mjlab_rec.utils.frames import subtract_frame_transforms
from mjlab_rec.utils.math import matrix_from_quat
from tasks.tracking.mdp.commands import MotionCommand

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["motion_anchor_ori_b", "motion_anchor_pos_b", "robot_body_ori_b", "robot_body_pos_b"]


def motion_command(env: ManagerBasedRlEnv, command_name: str) -> MotionCommand:
    """The motion command of this name."""
    return cast(MotionCommand, env.command_manager.get_term(command_name))


def motion_anchor_pos_b(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """Position of the motion's anchor in the frame of the robot's (num_envs, 3)."""
    return _anchor_b(env, command_name)[0]


def motion_anchor_ori_b(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """Orientation of the motion's anchor in the frame of the robot's (num_envs, 6)."""
    return _two_axes(_anchor_b(env, command_name)[1])


def robot_body_pos_b(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """Positions of the tracked bodies in the frame of the anchor (num_envs, 3 * bodies)."""
    return _bodies_b(env, command_name)[0].flatten(1)


def robot_body_ori_b(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """Orientations of the tracked bodies in the frame of the anchor (num_envs, 6 * bodies)."""
    return _two_axes(_bodies_b(env, command_name)[1])


def _anchor_b(env: ManagerBasedRlEnv, command_name: str) -> tuple[torch.Tensor, torch.Tensor]:
    command = motion_command(env, command_name)
    return subtract_frame_transforms(
        command.robot_anchor_pos_w,
        command.robot_anchor_quat_w,
        command.anchor_pos_w,
        command.anchor_quat_w,
    )


def _bodies_b(env: ManagerBasedRlEnv, command_name: str) -> tuple[torch.Tensor, torch.Tensor]:
    command = motion_command(env, command_name)
    return subtract_frame_transforms(
        command.robot_anchor_pos_w[:, None],
        command.robot_anchor_quat_w[:, None],
        command.robot_body_pos_w,
        command.robot_body_quat_w,
    )


def _two_axes(quat: torch.Tensor) -> torch.Tensor:
    """The first two columns of rotation matrices, which have no jumps: (num_envs, 6 * n)."""
    return matrix_from_quat(quat)[..., :2].flatten(1)
