"""Stock observation terms. Each returns (num_envs, n)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg
from mjlab_rec.sensor import BuiltinSensor, RayCastSensor

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = [
    "base_ang_vel",
    "base_lin_vel",
    "builtin_sensor",
    "generated_commands",
    "height_scan",
    "joint_pos",
    "joint_pos_rel",
    "joint_vel",
    "joint_vel_rel",
    "last_action",
    "projected_gravity",
    "projected_gravity_from_sensor",
    "root_ang_vel_w",
    "root_lin_vel_w",
    "root_pos_w",
    "root_quat_w",
]


def root_pos_w(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Position of the root in the world, measured from the environment's origin: (num_envs, 3)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_pos_w - env.scene.env_origins


def root_quat_w(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Orientation of the root in the world as (w, x, y, z): (num_envs, 4)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_quat_w


def root_lin_vel_w(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Linear velocity of the root in world axes: (num_envs, 3)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_lin_vel_w


def root_ang_vel_w(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Angular velocity of the root in world axes: (num_envs, 3)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_ang_vel_w


def base_lin_vel(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Linear velocity of the root in its own axes: (num_envs, 3)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_lin_vel_b


def base_ang_vel(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Angular velocity of the root in its own axes: (num_envs, 3)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.root_link_ang_vel_b


def projected_gravity(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Direction of gravity in the root's axes, (0, 0, -1) when upright: (num_envs, 3)."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.projected_gravity_b


def joint_pos(
    env: ManagerBasedRlEnv,
    biased: bool = False,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> torch.Tensor:
    """Joint positions; ``biased`` adds the encoder bias, as in a real encoder's reading."""
    asset: Entity = env.scene[asset_cfg.name]
    pos = asset.data.joint_pos_biased if biased else asset.data.joint_pos
    return pos[:, asset_cfg.index("joint", env.scene)]


def joint_vel(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Joint velocities."""
    asset: Entity = env.scene[asset_cfg.name]
    return asset.data.joint_vel[:, asset_cfg.index("joint", env.scene)]


def joint_pos_rel(
    env: ManagerBasedRlEnv,
    biased: bool = False,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> torch.Tensor:
    """Joint positions minus the default ones; ``biased`` adds the encoder bias."""
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    pos = asset.data.joint_pos_biased if biased else asset.data.peek("qpos", "joint_q")
    return pos[:, joints] - asset.data.default_joint_pos[:, joints]


def joint_vel_rel(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Joint velocities minus the default ones."""
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    return asset.data.peek("qvel", "joint_v")[:, joints] - asset.data.default_joint_vel[:, joints]


def last_action(env: ManagerBasedRlEnv, action_name: str | None = None) -> torch.Tensor:
    """The policy's last action, all of it or one term's slice; zero after a reset."""
    if action_name is None:
        return env.action_manager.action
    return env.action_manager.get_term(action_name).raw_action


def generated_commands(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """The current command of a command term."""
    return env.command_manager.get_command(command_name)


def builtin_sensor(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """Reading of a MuJoCo sensor, by its name in the scene."""
    return _builtin(env, sensor_name).data


def projected_gravity_from_sensor(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """Direction of gravity in the axes of a site, from a sensor of the world's up direction there.

    The sensor is a ``framezaxis`` of the world body with the site as reference. Unlike
    ``projected_gravity`` this depends on where and how the IMU's site is mounted.
    """
    return -_builtin(env, sensor_name).data


def height_scan(
    env: ManagerBasedRlEnv,
    sensor_name: str,
    offset: float = 0.0,
    miss_value: float | None = None,
) -> torch.Tensor:
    """Height of a ray sensor's frames above what each of their rays hit: (num_envs, rays).

    Args:
        env: The environment.
        sensor_name: A ray sensor of the scene.
        offset: What to subtract from the heights, in meters.
        miss_value: Value for rays that hit nothing; None means the sensor's ``max_distance``.
    """
    sensor = env.scene[sensor_name]
    if not isinstance(sensor, RayCastSensor):
        rays = [name for name, s in env.scene.sensors.items() if isinstance(s, RayCastSensor)]
        raise ValueError(
            f"height_scan needs a ray sensor, but '{sensor_name}' is a {type(sensor).__name__}."
            f" Ray sensors: {', '.join(rays) or 'none'}."
        )
    data = sensor.data
    # Every ray of a frame is measured from that frame's own height.
    shape = (-1, sensor.num_frames, sensor.num_rays_per_frame)
    heights = data.frame_pos_w[:, :, 2:] - data.hit_pos_w[..., 2].view(shape)
    heights = heights.flatten(1) - offset
    missing = sensor.cfg.max_distance if miss_value is None else miss_value
    return heights.masked_fill(data.distances < 0.0, missing)


def _builtin(env: ManagerBasedRlEnv, sensor_name: str) -> BuiltinSensor:
    sensor = env.scene[sensor_name]
    if not isinstance(sensor, BuiltinSensor):
        raise TypeError(
            f"'{sensor_name}' is a {type(sensor).__name__}, but a BuiltinSensor is needed here."
        )
    return sensor
