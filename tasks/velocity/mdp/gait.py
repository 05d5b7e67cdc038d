"""A gait's clock: when each foot should be in the air. It shows a policy how to walk, and when.

The clock is the time since the episode's start, so that there is no state to keep.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import constant
from mjlab_rec.managers import SceneEntityCfg
from tasks.velocity.mdp._common import ROBOT, command_speed, contact_sensor, foot_heights

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["feet_gait", "gait_clock"]


def gait_clock(
    env: ManagerBasedRlEnv,
    frequency_hz: float,
    command_name: str,
    command_threshold: float = 0.05,
) -> torch.Tensor:
    """Sine and cosine of the gait's phase, (num_envs, 2); both 0 where the robot should stand."""
    angle = _angle(env, frequency_hz)
    moving = command_speed(env, command_name) > command_threshold
    return torch.stack((torch.sin(angle), torch.cos(angle)), dim=1) * moving.unsqueeze(1)


def feet_gait(
    env: ManagerBasedRlEnv,
    frequency_hz: float,
    offsets: tuple[float, ...],
    swing_height: float,
    sensor_name: str,
    command_name: str,
    height_sensor_name: str | None = None,
    command_threshold: float = 0.05,
    height_std: float = 0.035,
    slip_std: float = 0.22,
    asset_cfg: SceneEntityCfg = ROBOT,
) -> torch.Tensor:
    """How well the feet follow the gait: 1 if each swings and stands when it should.

    A swinging foot is off the ground and at least as high as half a sine of ``swing_height``. A
    standing one is on the ground and does not slip. Where the robot should stand, all feet should.

    Args:
        env: The environment.
        frequency_hz: Steps of each foot per second.
        offsets: Phase of each foot, as a part of a period.
        swing_height: Height of the foot's site in the middle of the swing, in meters.
        sensor_name: Contact sensor of the feet.
        command_name: The velocity command.
        height_sensor_name: Height sensor of the feet; None on a plane.
        command_threshold: Slowest command at which the robot should walk.
        height_std: Distance below the wanted height at which the reward drops to 37 %, in meters.
        slip_std: Speed at which it drops so for a standing foot, in m/s.
        asset_cfg: The robot, with the sites of the feet.
    """
    found = contact_sensor(env, sensor_name).data.found
    assert found is not None, "the sensor needs the field 'found'"
    shift = constant(tuple(2.0 * math.pi * offset for offset in offsets), str(env.device))
    moving = command_speed(env, command_name) > command_threshold
    wave = torch.sin(_angle(env, frequency_hz).unsqueeze(1) + shift) * moving.unsqueeze(1)

    in_contact = (found > 0).float()
    height = foot_heights(env, height_sensor_name, asset_cfg)
    too_low = (height - swing_height * wave).clamp_(max=0.0)
    swings = (1.0 - in_contact) * torch.exp(too_low.square_() / -(height_std**2))
    sites = asset_cfg.index("site", env.scene)
    velocity = env.scene[asset_cfg.name].data.site_lin_vel_w[:, sites, :2]
    slip = velocity.square().sum(dim=-1)
    stands = in_contact * torch.exp(slip / -(slip_std**2))

    # At the change of phase both are partly right, so a foot may be a little early or late.
    share = (0.5 + wave).clamp_(0.0, 1.0) * moving.unsqueeze(1)
    return torch.lerp(stands, swings, share).mean(dim=1)


def _angle(env: ManagerBasedRlEnv, frequency_hz: float) -> torch.Tensor:
    return env.episode_length_buf * (2.0 * math.pi * frequency_hz * env.step_dt)
