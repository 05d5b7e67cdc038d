"""What several terms need: heights of feet, and which environments are told to move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.managers import SceneEntityCfg
from mjlab_rec.sensor import ContactSensor
from mjlab_rec.sensor.terrain_height_sensor import TerrainHeightSensor

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

ROBOT = SceneEntityCfg("robot")
"""The entity that the terms use by default."""


def contact_sensor(env: ManagerBasedRlEnv, name: str) -> ContactSensor:
    """The contact sensor of this name."""
    return _sensor(env, name, ContactSensor)


def foot_heights(
    env: ManagerBasedRlEnv, height_sensor_name: str | None, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
    """Height of each foot above the ground, (num_envs, feet).

    Without a sensor the ground is the plane z = 0, and the feet are the sites of ``asset_cfg``.
    """
    if height_sensor_name is None:
        position = env.scene[asset_cfg.name].data.site_pos_w
        return position[:, asset_cfg.index("site", env.scene), 2]
    return _sensor(env, height_sensor_name, TerrainHeightSensor).data.heights


def command_speed(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
    """Commanded speed (m/s) plus commanded turning rate (rad/s), (num_envs,)."""
    command = env.command_manager.get_command(command_name)
    return torch.linalg.vector_norm(command[:, :2], dim=1) + command[:, 2].abs()


def where_moving(
    env: ManagerBasedRlEnv, value: torch.Tensor, command_name: str | None, threshold: float
) -> torch.Tensor:
    """The value where the command is faster than the threshold, else 0. Shape (num_envs,)."""
    if command_name is None:
        return value
    return value * (command_speed(env, command_name) > threshold)


def _sensor(env: ManagerBasedRlEnv, name: str, kind: type) -> Any:
    sensor = env.scene[name]
    if not isinstance(sensor, kind):
        known = [key for key, other in env.scene.sensors.items() if isinstance(other, kind)]
        raise TypeError(
            f"'{name}' is a {type(sensor).__name__}, but a {kind.__name__} is needed here. There"
            f" are: {', '.join(known) or 'none'}."
        )
    return sensor
