"""Observations of the velocity tasks."""

from __future__ import annotations

from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg, SceneEntityCfg
from mjlab_rec.utils.noise import UniformNoiseCfg
from tasks.velocity import mdp
from tasks.velocity.robot import LeggedRobot

SCAN_RANGE = 5.0
"""Length of the rays that scan the ground, in meters."""


def observations(robot: LeggedRobot, rough: bool) -> dict[str, ObservationGroupCfg]:
    """For the actor what a robot can measure, with noise; for the critic more, without."""

    def term(func, noise: float | None = None, scale: float | None = None, **params):
        band = None if noise is None else UniformNoiseCfg(n_min=-noise, n_max=noise)
        return ObservationTermCfg(func=func, noise=band, scale=scale, params=params)

    seen = {
        "base_lin_vel": term(mdp.base_lin_vel, 0.1),
        "base_ang_vel": term(mdp.base_ang_vel, 0.2),
        "projected_gravity": term(mdp.projected_gravity, 0.05),
        "joint_pos": term(mdp.joint_pos_rel, 0.01, biased=True),
        "joint_vel": term(mdp.joint_vel_rel, 1.5),
        "actions": term(mdp.last_action),
        "command": term(mdp.generated_commands, command_name="twist"),
    }
    if robot.gait is not None:
        seen["gait_clock"] = term(
            mdp.gait_clock, frequency_hz=robot.gait.frequency_hz, command_name="twist"
        )
    if rough:
        scan = {"sensor_name": "terrain_scan", "scale": 1.0 / SCAN_RANGE}
        seen["height_scan"] = term(mdp.height_scan, 0.1, **scan)
    feet = SceneEntityCfg("robot", site_names=robot.sites())
    known = {
        **seen,
        "joint_pos": term(mdp.joint_pos_rel),  # Without the encoders' errors.
        "foot_height": term(
            mdp.foot_height,
            sensor_name="foot_height_scan" if rough else None,
            asset_cfg=feet,
        ),
        "foot_air_time": term(mdp.foot_air_time, sensor_name="feet_ground_contact"),
        "foot_contact": term(mdp.foot_contact, sensor_name="feet_ground_contact"),
        "foot_contact_forces": term(mdp.foot_contact_forces, sensor_name="feet_ground_contact"),
    }
    return {
        "actor": ObservationGroupCfg(seen, enable_corruption=True),
        "critic": ObservationGroupCfg(known, enable_corruption=False),
    }
