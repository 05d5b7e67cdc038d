"""Rewards of the tracking task: each is 1 where the robot does what the motion wants.

They are ``exp(-error / std**2)`` of a squared error, a mean over the bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.utils.math import quat_error_magnitude
from mjlab_rec.utils.string import nearest
from tasks.tracking.mdp.observations import motion_command

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from tasks.tracking.mdp.commands import MotionCommand

__all__ = [
    "motion_global_anchor_orientation_error_exp",
    "motion_global_anchor_position_error_exp",
    "motion_global_body_angular_velocity_error_exp",
    "motion_global_body_linear_velocity_error_exp",
    "motion_relative_body_orientation_error_exp",
    "motion_relative_body_position_error_exp",
]

BodyNames = tuple[str, ...] | None
"""Names of some of the tracked bodies; None means all of them."""


def motion_global_anchor_position_error_exp(
    env: ManagerBasedRlEnv, command_name: str, std: float
) -> torch.Tensor:
    """Reward the anchor's position in the world (num_envs,)."""
    command = motion_command(env, command_name)
    error = (command.anchor_pos_w - command.robot_anchor_pos_w).square().sum(dim=-1)
    return torch.exp(error * (-1.0 / std**2))


def motion_global_anchor_orientation_error_exp(
    env: ManagerBasedRlEnv, command_name: str, std: float
) -> torch.Tensor:
    """Reward the anchor's orientation (num_envs,)."""
    command = motion_command(env, command_name)
    error = quat_error_magnitude(command.anchor_quat_w, command.robot_anchor_quat_w).square()
    return torch.exp(error * (-1.0 / std**2))


def motion_relative_body_position_error_exp(
    env: ManagerBasedRlEnv, command_name: str, std: float, body_names: BodyNames = None
) -> torch.Tensor:
    """Reward the bodies' positions around the robot's own anchor (num_envs,)."""
    command = motion_command(env, command_name)
    error = command.body_pos_relative_w - command.robot_body_pos_w
    return _mean_exp(error[:, bodies(command, body_names)].square().sum(dim=-1), std)


def motion_relative_body_orientation_error_exp(
    env: ManagerBasedRlEnv, command_name: str, std: float, body_names: BodyNames = None
) -> torch.Tensor:
    """Reward the bodies' orientations around the robot's own anchor (num_envs,)."""
    command = motion_command(env, command_name)
    chosen = bodies(command, body_names)
    error = quat_error_magnitude(
        command.body_quat_relative_w[:, chosen], command.robot_body_quat_w[:, chosen]
    )
    return _mean_exp(error.square(), std)


def motion_global_body_linear_velocity_error_exp(
    env: ManagerBasedRlEnv, command_name: str, std: float, body_names: BodyNames = None
) -> torch.Tensor:
    """Reward the bodies' linear velocities (num_envs,)."""
    command = motion_command(env, command_name)
    error = command.body_lin_vel_w - command.robot_body_lin_vel_w
    return _mean_exp(error[:, bodies(command, body_names)].square().sum(dim=-1), std)


def motion_global_body_angular_velocity_error_exp(
    env: ManagerBasedRlEnv, command_name: str, std: float, body_names: BodyNames = None
) -> torch.Tensor:
    """Reward the bodies' angular velocities (num_envs,)."""
    command = motion_command(env, command_name)
    error = command.body_ang_vel_w - command.robot_body_ang_vel_w
    return _mean_exp(error[:, bodies(command, body_names)].square().sum(dim=-1), std)


def bodies(command: MotionCommand, body_names: BodyNames) -> slice | list[int]:
    """Places of bodies among the tracked ones."""
    if body_names is None:
        return slice(None)
    tracked = command.cfg.body_names
    for name in body_names:
        if name not in tracked:
            raise ValueError(f"The body '{name}' is not tracked. {nearest(name, tracked)}")
    return [tracked.index(name) for name in body_names]


def _mean_exp(error: torch.Tensor, std: float) -> torch.Tensor:
    return torch.exp(error.mean(dim=-1) * (-1.0 / std**2))
