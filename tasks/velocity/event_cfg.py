"""Events of the velocity tasks: how episodes start, pushes, and how robots differ."""

from __future__ import annotations

import math

from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from tasks.velocity import mdp
from tasks.velocity.robot import LeggedRobot


def events(robot: LeggedRobot) -> dict[str, EventTermCfg]:
    """Resets, pushes, and the randomization of friction, mass and gains."""
    base = SceneEntityCfg("robot", body_names=(robot.base,))
    return {
        "reset_base": EventTermCfg(
            func=mdp.reset_root_state_uniform,
            mode="reset",
            params={
                "pose_range": {
                    "x": (-0.5, 0.5),
                    "y": (-0.5, 0.5),
                    "z": (0.01, 0.03),
                    "yaw": (-math.pi, math.pi),
                },
                "velocity_range": {axis: (-0.2, 0.2) for axis in ("x", "y", "roll", "pitch")},
            },
        ),
        "reset_robot_joints": EventTermCfg(
            func=mdp.reset_joints_by_offset,
            mode="reset",
            params={"position_range": (-0.1, 0.1), "velocity_range": (-0.2, 0.2)},
        ),
        "push_robot": EventTermCfg(
            func=mdp.push_by_setting_velocity,
            mode="interval",
            interval_range_s=(5.0, 10.0),
            params={
                "velocity_range": {
                    "x": (-0.5, 0.5),
                    "y": (-0.5, 0.5),
                    "z": (-0.2, 0.2),
                    "roll": (-0.5, 0.5),
                    "pitch": (-0.5, 0.5),
                    "yaw": (-0.5, 0.5),
                },
            },
        ),
        "foot_friction": EventTermCfg(
            func=mdp.dr.geom_friction,
            mode="startup",
            params={
                "asset_cfg": SceneEntityCfg("robot", geom_names=robot.foot_geoms),
                "operation": "abs",
                "ranges": (0.4, 1.2),
                "shared_random": True,
            },
        ),
        "base_mass": EventTermCfg(
            func=mdp.dr.body_mass,
            mode="startup",
            params={"asset_cfg": base, "operation": "scale", "ranges": (0.85, 1.15)},
        ),
        "base_com": EventTermCfg(
            func=mdp.dr.body_com_offset,
            mode="startup",
            params={
                "asset_cfg": base,
                "operation": "add",
                "ranges": {0: (-0.025, 0.025), 1: (-0.025, 0.025), 2: (-0.03, 0.03)},
            },
        ),
        "gains": EventTermCfg(
            func=mdp.dr.pd_gains,
            mode="startup",
            params={"kp_range": (0.9, 1.1), "kd_range": (0.9, 1.1)},
        ),
        "encoder_bias": EventTermCfg(
            func=mdp.dr.encoder_bias, mode="startup", params={"bias_range": (-0.015, 0.015)}
        ),
    }
