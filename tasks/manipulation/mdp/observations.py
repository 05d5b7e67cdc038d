"""What the policy sees: where the hand, the object and the goal are, and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg
from mjlab_rec.utils.math import axis_angle_from_quat, quat_apply_inverse, quat_conjugate, quat_mul

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.sensor import CameraSensor, ContactSensor

__all__ = [
    "camera_depth",
    "camera_rgb",
    "ee_to_object_distance",
    "ee_to_pose",
    "object_grasped",
    "object_to_goal_distance",
    "target_position",
]

_LEAST_FORCE = 0.5  # N, with which each finger must press.


def ee_to_object_distance(
    env: ManagerBasedRlEnv, object_name: str, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """Vector from the hand's site to an object, in the axes of the robot's base: (num_envs, 3)."""
    robot: Entity = env.scene[asset_cfg.name]
    offset = env.scene[object_name].data.root_link_pos_w - _ee_pos(env, asset_cfg)
    return quat_apply_inverse(robot.data.root_link_quat_w, offset)


def object_to_goal_distance(
    env: ManagerBasedRlEnv,
    object_name: str,
    command_name: str,
    asset_cfg: SceneEntityCfg | None = None,
) -> torch.Tensor:
    """Vector from an object to its goal, in the axes of the robot's base: (num_envs, 3)."""
    robot: Entity = env.scene["robot" if asset_cfg is None else asset_cfg.name]
    goal = env.command_manager.get_command(command_name)[:, :3]
    offset = goal - env.scene[object_name].data.root_link_pos_w
    return quat_apply_inverse(robot.data.root_link_quat_w, offset)


def target_position(
    env: ManagerBasedRlEnv, command_name: str, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """Vector from the hand's site to the goal, in the hand's axes: (num_envs, 3)."""
    goal = env.command_manager.get_command(command_name)[:, :3]
    return quat_apply_inverse(_ee_quat(env, asset_cfg), goal - _ee_pos(env, asset_cfg))


def ee_to_pose(
    env: ManagerBasedRlEnv, command_name: str, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """Way of the hand's site to the commanded pose, in the axes of the robot's base.

    A vector in metres and a rotation vector in radians: (num_envs, 6).
    """
    base = env.scene[asset_cfg.name].data.root_link_quat_w
    goal = env.command_manager.get_command(command_name)
    turn = quat_mul(goal[:, 3:], quat_conjugate(_ee_quat(env, asset_cfg)))
    way = torch.stack((goal[:, :3] - _ee_pos(env, asset_cfg), axis_angle_from_quat(turn)), dim=1)
    return quat_apply_inverse(base[:, None].expand(-1, 2, -1), way).flatten(1)


def object_grasped(
    env: ManagerBasedRlEnv, sensor_name: str, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """1 where both fingers press an object from opposite sides, else 0: (num_envs, 1).

    The contact sensor has the left and the right finger as primaries and nets their forces. They
    close along the y axis of the hand's site.
    """
    sensor: ContactSensor = env.scene[sensor_name]
    force = sensor.data.force
    if force is None or force.shape[1] != 2:
        raise ValueError(
            f"object_grasped: the contact sensor '{sensor_name}' must have two primaries, the left"
            ' and the right finger, reduce="netforce" and the field "force".'
        )
    quat = _ee_quat(env, asset_cfg)[:, None].expand(-1, 2, -1)
    inwards = quat_apply_inverse(quat, force)[..., 1]
    return ((inwards[:, :1] < -_LEAST_FORCE) & (inwards[:, 1:] > _LEAST_FORCE)).float()


def camera_rgb(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """Colours that a camera sensor sees, from 0 to 1: (num_envs, 3, height, width)."""
    rgb = _camera(env, sensor_name, "rgb").data.rgb
    assert rgb is not None
    return rgb.permute(0, 3, 1, 2).float().div_(255.0)


def camera_depth(
    env: ManagerBasedRlEnv, sensor_name: str, cutoff_distance: float, min_depth: float = 0.01
) -> torch.Tensor:
    """Depths as fractions of ``cutoff_distance`` (m), at most 1: (num_envs, 1, height, width).

    Where there is nothing, a camera sensor reports 0; here that is 1, as for all that is far away.
    """
    depth = _camera(env, sensor_name, "depth").data.depth
    assert depth is not None
    depth = depth.permute(0, 3, 1, 2)
    near = depth.clamp(min_depth, cutoff_distance).div_(cutoff_distance)
    return near.masked_fill_(depth == 0.0, 1.0)


def _camera(env: ManagerBasedRlEnv, sensor_name: str, kind: str) -> CameraSensor:
    sensor: CameraSensor = env.scene[sensor_name]
    if kind not in sensor.cfg.data_types:
        raise ValueError(
            f"Camera sensor '{sensor_name}' takes no {kind} pictures: its data_types are"
            f" {sensor.cfg.data_types}. Add {kind!r}."
        )
    return sensor


def _ee_pos(env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg) -> torch.Tensor:
    site = asset_cfg.index("site", env.scene)
    return env.scene[asset_cfg.name].data.site_pos_w[:, site].squeeze(1)


def _ee_quat(env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg) -> torch.Tensor:
    site = asset_cfg.index("site", env.scene)
    return env.scene[asset_cfg.name].data.site_quat_w[:, site].squeeze(1)
