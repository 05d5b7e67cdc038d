"""Observations of feet, which only a simulator knows: for the critic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg
from tasks.velocity.mdp._common import ROBOT, contact_sensor, foot_heights

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["foot_air_time", "foot_contact", "foot_contact_forces", "foot_height"]


def foot_height(
    env: ManagerBasedRlEnv,
    sensor_name: str | None,
    asset_cfg: SceneEntityCfg = ROBOT,
) -> torch.Tensor:
    """Height of each foot above the ground; without a sensor, above the plane z = 0."""
    return foot_heights(env, sensor_name, asset_cfg)


def foot_air_time(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """How long each foot has been in the air, in seconds; 0 in contact."""
    time = contact_sensor(env, sensor_name).data.current_air_time
    assert time is not None, "the sensor needs track_air_time=True"
    return time


def foot_contact(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """1 for each foot that touches the ground, else 0."""
    found = contact_sensor(env, sensor_name).data.found
    assert found is not None, "the sensor needs the field 'found'"
    return (found > 0).float()


def foot_contact_forces(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """The force at each foot, x y z, on a logarithmic scale that keeps the sign."""
    force = contact_sensor(env, sensor_name).data.force
    assert force is not None, "the sensor needs the field 'force'"
    force = force.flatten(1)
    return torch.sign(force) * force.abs().log1p()
