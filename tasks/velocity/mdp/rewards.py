"""Rewards of legged robots, each (num_envs,). Costs are positive: weight them negatively."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import selected_names
from mjlab_rec.managers import RewardTermCfg, SceneEntityCfg
from mjlab_rec.sensor import BuiltinSensor
from mjlab_rec.utils.math import quat_apply_inverse
from mjlab_rec.utils.string import resolve_matching_names_values
from tasks.velocity.mdp._common import (
    ROBOT,
    command_speed,
    contact_sensor,
    foot_heights,
    where_moving,
)
from tasks.velocity.mdp.terrain_utils import terrain_normal_from_sensors

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = [
    "angular_momentum_penalty",
    "body_angular_velocity_penalty",
    "feet_air_time",
    "feet_clearance",
    "feet_slip",
    "feet_swing_height",
    "self_collision_cost",
    "soft_landing",
    "upright",
    "variable_posture",
]


def upright(
    env: ManagerBasedRlEnv,
    std: float,
    asset_cfg: SceneEntityCfg = ROBOT,
    terrain_sensor_names: tuple[str, ...] | None = None,
) -> torch.Tensor:
    """exp(-sin(tilt)^2 / std^2) of a body; of the root, if none is chosen.

    The tilt is measured from the vertical, or from the normal of the ground that the given ray
    sensors see.
    """
    data = env.scene[asset_cfg.name].data
    bodies = asset_cfg.index("body", env.scene)
    if isinstance(bodies, slice):
        quat = data.root_link_quat_w
    else:
        quat = data.body_link_quat_w[:, bodies].flatten(1)
    if terrain_sensor_names is None:
        up = torch.zeros(env.num_envs, 3, device=env.device)
        up[:, 2] = 1.0
    else:
        up = terrain_normal_from_sensors(env, terrain_sensor_names)
    tilt = quat_apply_inverse(quat, up)[:, :2].square().sum(dim=1)
    return torch.exp(tilt / -(std**2))


def self_collision_cost(
    env: ManagerBasedRlEnv, sensor_name: str, force_threshold: float = 10.0
) -> torch.Tensor:
    """In how many physics steps a contact of this sensor was stronger than the threshold, in N.

    Without a history: how many contacts there are.
    """
    data = contact_sensor(env, sensor_name).data
    if data.force_history is not None:
        force = torch.linalg.vector_norm(data.force_history, dim=-1)  # (num_envs, N, steps)
        return (force > force_threshold).any(dim=1).sum(dim=-1).float()
    assert data.found is not None, "the sensor needs the field 'found'"
    return data.found.sum(dim=-1).float()


def body_angular_velocity_penalty(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = ROBOT
) -> torch.Tensor:
    """Squared roll and pitch rates of the chosen bodies, in world axes."""
    data = env.scene[asset_cfg.name].data
    rates = data.body_link_ang_vel_w[:, asset_cfg.index("body", env.scene), :2]
    return rates.square().flatten(1).sum(dim=1)


def angular_momentum_penalty(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
    """Squared angular momentum of the robot, from MuJoCo's sensor: swinging arms reduce it."""
    sensor = env.scene[sensor_name]
    assert isinstance(sensor, BuiltinSensor)
    return sensor.data.square().sum(dim=-1)


def feet_air_time(
    env: ManagerBasedRlEnv,
    sensor_name: str,
    threshold_min: float = 0.05,
    threshold_max: float = 0.5,
    command_name: str | None = None,
    command_threshold: float = 0.5,
) -> torch.Tensor:
    """How many feet have been in the air for a time between the thresholds, in seconds."""
    time = contact_sensor(env, sensor_name).data.current_air_time
    assert time is not None, "the sensor needs track_air_time=True"
    count = ((time > threshold_min) & (time < threshold_max)).sum(dim=1).float()
    return where_moving(env, count, command_name, command_threshold)


def feet_clearance(
    env: ManagerBasedRlEnv,
    target_height: float,
    height_sensor_name: str | None = None,
    command_name: str | None = None,
    command_threshold: float = 0.01,
    asset_cfg: SceneEntityCfg = ROBOT,
) -> torch.Tensor:
    """How far moving feet are from the target height, times their horizontal speed."""
    sites = asset_cfg.index("site", env.scene)
    velocity = env.scene[asset_cfg.name].data.site_lin_vel_w[:, sites, :2]
    error = (foot_heights(env, height_sensor_name, asset_cfg) - target_height).abs_()
    cost = (error * torch.linalg.vector_norm(velocity, dim=-1)).sum(dim=1)
    return where_moving(env, cost, command_name, command_threshold)


class feet_swing_height:
    """Squared relative error of the greatest height in a swing, once the foot lands."""

    def __init__(self, cfg: RewardTermCfg, env: ManagerBasedRlEnv) -> None:
        feet = contact_sensor(env, cfg.params["sensor_name"]).data.found
        assert feet is not None, "the sensor needs the field 'found'"
        self._peak = torch.zeros(feet.shape, device=env.device)  # (num_envs, feet)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Forget the swings of these environments."""
        self._peak[slice(None) if env_ids is None else env_ids] = 0.0

    def __call__(
        self,
        env: ManagerBasedRlEnv,
        sensor_name: str,
        target_height: float,
        command_name: str,
        command_threshold: float,
        height_sensor_name: str | None = None,
        asset_cfg: SceneEntityCfg = ROBOT,
    ) -> torch.Tensor:
        """Compute the cost. Shape (num_envs,)."""
        sensor = contact_sensor(env, sensor_name)
        found = sensor.data.found
        assert found is not None
        height = foot_heights(env, height_sensor_name, asset_cfg)
        peak = torch.where(found == 0, torch.maximum(self._peak, height), self._peak)
        landed = sensor.compute_first_contact(env.step_dt)
        cost = ((peak / target_height - 1.0).square_() * landed).sum(dim=1)
        self._peak.copy_(peak.masked_fill_(landed, 0.0))
        return where_moving(env, cost, command_name, command_threshold)


def feet_slip(
    env: ManagerBasedRlEnv,
    sensor_name: str,
    command_name: str,
    command_threshold: float = 0.01,
    asset_cfg: SceneEntityCfg = ROBOT,
) -> torch.Tensor:
    """Squared horizontal speed of feet on the ground."""
    found = contact_sensor(env, sensor_name).data.found
    assert found is not None, "the sensor needs the field 'found'"
    sites = asset_cfg.index("site", env.scene)
    velocity = env.scene[asset_cfg.name].data.site_lin_vel_w[:, sites, :2]
    cost = (velocity.square().sum(dim=-1) * (found > 0)).sum(dim=1)
    return where_moving(env, cost, command_name, command_threshold)


def soft_landing(
    env: ManagerBasedRlEnv,
    sensor_name: str,
    command_name: str | None = None,
    command_threshold: float = 0.05,
) -> torch.Tensor:
    """Force (N) of the feet that have just landed."""
    sensor = contact_sensor(env, sensor_name)
    force = sensor.data.force
    assert force is not None, "the sensor needs the field 'force'"
    landed = sensor.compute_first_contact(env.step_dt)
    cost = (torch.linalg.vector_norm(force, dim=-1) * landed).sum(dim=1)
    return where_moving(env, cost, command_name, command_threshold)


class variable_posture:
    """exp(-mean(error^2 / std^2)) of the joints around their default positions.

    How far a joint may deviate (``std``, by name or regex) depends on how fast the robot is told to
    be: standing, walking or running. The speed is that of the command, m/s plus rad/s.
    """

    def __init__(self, cfg: RewardTermCfg, env: ManagerBasedRlEnv) -> None:
        asset_cfg: SceneEntityCfg = cfg.params.get("asset_cfg", ROBOT)
        names = selected_names(env.scene[asset_cfg.name], asset_cfg, "joint")
        rows = [
            _scales(key, cfg.params[key], names)
            for key in ("std_standing", "std_walking", "std_running")
        ]
        self._weights = torch.tensor(rows, device=env.device)  # (3, joints)

    def __call__(
        self,
        env: ManagerBasedRlEnv,
        std_standing: dict[str, float],
        std_walking: dict[str, float],
        std_running: dict[str, float],
        command_name: str,
        asset_cfg: SceneEntityCfg = ROBOT,
        walking_threshold: float = 0.5,
        running_threshold: float = 1.5,
    ) -> torch.Tensor:
        """Compute the reward. Shape (num_envs,)."""
        data = env.scene[asset_cfg.name].data
        joints = asset_cfg.index("joint", env.scene)
        error = data.joint_pos[:, joints] - data.default_joint_pos[:, joints]
        speed = command_speed(env, command_name)
        pace = (speed >= walking_threshold).long() + (speed >= running_threshold)
        return torch.exp((error.square_() * self._weights[pace]).sum(dim=1))


def _scales(what: str, std: dict[str, float], names: tuple[str, ...]) -> list[float]:
    """Factors of the squared errors, such that their sum is the exponent."""
    ids, _, values = resolve_matching_names_values(std, names)
    if len(ids) < len(names):
        missing = [name for i, name in enumerate(names) if i not in ids]
        raise ValueError(
            f"variable_posture: {what} has no value for the joints {missing}. Add a pattern for"
            " them, or exclude them from the term with joint_names."
        )
    return [-1.0 / (len(names) * value**2) for value in values]
