"""What is rewarded: reaching, grasping, lifting and arriving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg
from tasks.manipulation.mdp.commands import PoseCommand
from tasks.manipulation.mdp.observations import ee_to_object_distance, object_grasped

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = [
    "bring_object_reward",
    "joint_velocity_hinge_penalty",
    "pose_reward",
    "reach_object",
    "staged_position_reward",
    "succeeded",
]


def reach_object(
    env: ManagerBasedRlEnv, object_name: str, std: float, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """1 - tanh(distance / std) of the hand's site and the object, in (0, 1]."""
    return _near(ee_to_object_distance(env, object_name, asset_cfg), std)


def bring_object_reward(
    env: ManagerBasedRlEnv, command_name: str, object_name: str, std: float
) -> torch.Tensor:
    """exp(-distance^2 / std^2) of the object and its goal."""
    return torch.exp(_to_goal(env, command_name, object_name).square_().sum(dim=-1) / -(std**2))


def staged_position_reward(
    env: ManagerBasedRlEnv,
    command_name: str,
    object_name: str,
    sensor_name: str,
    bringing_std: float,
    asset_cfg: SceneEntityCfg,
) -> torch.Tensor:
    """0 without a grasp; with one, 1 + bringing, which is 1 - tanh(distance / std) of the goal.

    What lies between the fingers but is not held earns nothing, so pushing the object towards the
    goal does not pay.
    """
    held = object_grasped(env, sensor_name, asset_cfg).squeeze(1)
    return held * (1.0 + _near(_to_goal(env, command_name, object_name), bringing_std))


def pose_reward(
    env: ManagerBasedRlEnv, command_name: str, position_std: float, rotation_std: float
) -> torch.Tensor:
    """Nearness to the commanded pose: 1 - tanh(distance / std), times 1 + the same of the angle."""
    command = env.command_manager.get_term(command_name)
    if not isinstance(command, PoseCommand):
        raise TypeError(
            f"pose_reward: the command '{command_name}' is a {type(command).__name__}, but a"
            " PoseCommand is needed."
        )
    distance, angle = command.errors()
    near = 1.0 - torch.tanh(distance / position_std)
    return near * (2.0 - torch.tanh(angle / rotation_std))


def succeeded(env: ManagerBasedRlEnv, term_name: str = "success") -> torch.Tensor:
    """1 in the step in which a termination ends the episode, so that ending early pays."""
    return env.termination_manager.get_term(term_name).float()


def joint_velocity_hinge_penalty(
    env: ManagerBasedRlEnv, max_vel: float, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """Sum of the squares of what joint speeds exceed ``max_vel`` by (rad/s or m/s)."""
    robot: Entity = env.scene[asset_cfg.name]
    speed = robot.data.joint_vel[:, asset_cfg.index("joint", env.scene)].abs()
    return (speed - max_vel).clamp_(min=0.0).square_().sum(dim=-1)


def _near(offset: torch.Tensor, std: float) -> torch.Tensor:
    return 1.0 - torch.tanh(torch.linalg.vector_norm(offset, dim=-1) / std)


def _to_goal(env: ManagerBasedRlEnv, command_name: str, object_name: str) -> torch.Tensor:
    goal = env.command_manager.get_command(command_name)[:, :3]
    return goal - env.scene[object_name].data.root_link_pos_w
