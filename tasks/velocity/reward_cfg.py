"""Rewards of the velocity tasks."""

from __future__ import annotations

import math

from mjlab_rec.managers import RewardTermCfg, SceneEntityCfg
from mjlab_rec.utils.string import nearest
from tasks.velocity import mdp
from tasks.velocity.robot import LeggedRobot


def rewards(robot: LeggedRobot, rough: bool) -> dict[str, RewardTermCfg]:
    """What the robot is rewarded for; its ``weights`` replace those here."""
    command = {"command_name": "twist"}
    walking = {**command, "command_threshold": 0.05}
    feet = SceneEntityCfg("robot", site_names=robot.sites())
    base = SceneEntityCfg("robot", body_names=(robot.base,))
    contact = {"sensor_name": "feet_ground_contact"}
    height = {"height_sensor_name": "foot_height_scan" if rough else None, "asset_cfg": feet}

    terms = {
        "track_linear_velocity": RewardTermCfg(
            func=mdp.track_linear_velocity, weight=2.0, params={**command, "std": 0.5}
        ),
        "track_angular_velocity": RewardTermCfg(
            func=mdp.track_angular_velocity, weight=1.0, params={**command, "std": math.sqrt(0.5)}
        ),
        "upright": RewardTermCfg(
            func=mdp.upright, weight=1.0, params={"std": math.sqrt(0.1), "asset_cfg": base}
        ),
        "pose": RewardTermCfg(
            func=mdp.variable_posture,
            weight=0.5,
            params={
                **command,
                "asset_cfg": SceneEntityCfg("robot", joint_names=(".*",)),
                "std_standing": robot.std_standing,
                "std_walking": robot.std_walking,
                "std_running": robot.std_running,
                "walking_threshold": 0.05,
                "running_threshold": 1.5,
            },
        ),
        "body_ang_vel": RewardTermCfg(
            func=mdp.body_angular_velocity_penalty, weight=-0.05, params={"asset_cfg": base}
        ),
        "dof_pos_limits": RewardTermCfg(func=mdp.joint_pos_limits, weight=-1.0),
        "action_rate_l2": RewardTermCfg(func=mdp.action_rate_l2, weight=-0.02),
        "foot_slip": RewardTermCfg(
            func=mdp.feet_slip, weight=-0.1, params={**walking, **contact, "asset_cfg": feet}
        ),
        "soft_landing": RewardTermCfg(
            func=mdp.soft_landing, weight=-1e-3, params={**walking, **contact}
        ),
    }
    if rough:
        terms["upright"].params["terrain_sensor_names"] = ("terrain_scan",)
    if robot.gait is not None:
        terms["gait"] = RewardTermCfg(
            func=mdp.feet_gait,
            weight=2.0,
            params={
                **contact,
                **command,
                **height,
                "frequency_hz": robot.gait.frequency_hz,
                "offsets": robot.gait.offsets,
                "swing_height": robot.gait.swing_height,
            },
        )
    else:
        terms.update(_own_gait(robot, {**walking, **height}, contact))
    touches = {}
    if robot.avoid_self_collisions:
        touches["self_collisions"] = "self_collision"
    if rough and robot.unwanted_geoms:
        touches["unwanted_contacts"] = "unwanted_ground_touch"
    for name, sensor in touches.items():
        terms[name] = RewardTermCfg(
            func=mdp.self_collision_cost, weight=-0.1, params={"sensor_name": sensor}
        )
    for name, weight in robot.weights.items():
        if name not in terms:
            raise ValueError(f"There is no reward '{name}'. {nearest(name, list(terms))}")
        terms[name].weight = weight
    return terms


def _own_gait(robot: LeggedRobot, feet: dict, contact: dict) -> dict[str, RewardTermCfg]:
    """Make the robot lift its feet, but leave it to itself when."""
    return {
        "air_time": RewardTermCfg(
            func=mdp.feet_air_time,
            weight=0.5,
            params={**contact, "command_name": "twist", "command_threshold": 0.05},
        ),
        "foot_clearance": RewardTermCfg(
            func=mdp.feet_clearance,
            weight=-2.0,
            params={**feet, "target_height": robot.foot_height},
        ),
        "foot_swing_height": RewardTermCfg(
            func=mdp.feet_swing_height,
            weight=-0.25,
            params={**feet, **contact, "target_height": robot.foot_height},
        ),
    }
