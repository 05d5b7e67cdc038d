"""The robots of the velocity tasks."""

from __future__ import annotations

from dataclasses import replace

from tasks.robots import biped as biped_robot
from tasks.robots.quadruped import ACTION_SCALE, FOOT_GEOMS, quadruped_cfg
from tasks.velocity.robot import Gait, LeggedRobot


def quadruped() -> LeggedRobot:
    """The quadruped of tasks/robots, which trots."""
    return LeggedRobot(
        entity=quadruped_cfg(),
        base="trunk",
        action_scale=ACTION_SCALE,
        height=0.27,
        foot_sites=("FR", "FL", "RR", "RL"),
        foot_geoms=FOOT_GEOMS,
        forbidden_geoms=("trunk_collision", "head_collision"),
        unwanted_geoms=(".*_(thigh|calf)_collision",),
        gait=Gait(frequency_hz=2.0, offsets=(0.0, 0.5, 0.5, 0.0), swing_height=0.085),
        std_standing={".*_(hip|thigh)_joint": 0.1, ".*_calf_joint": 0.2},
        std_walking={".*_hip_joint": 0.2, ".*_thigh_joint": 0.4, ".*_calf_joint": 0.6},
        std_running={".*_hip_joint": 0.3, ".*_thigh_joint": 0.5, ".*_calf_joint": 0.8},
    )


def biped() -> LeggedRobot:
    """The biped of tasks/robots, which walks and keeps its arms at its sides."""
    still = {".*_(shoulder|elbow|wrist)_.*": 0.2, "waist_.*": 0.1}
    legs = {".*_hip_(roll|yaw)_joint": 0.15, ".*_ankle_roll_joint": 0.15}
    return LeggedRobot(
        entity=replace(biped_robot.biped_cfg(), collisions=()),
        base="pelvis",
        height=0.75,
        action_scale=biped_robot.ACTION_SCALE,
        foot_sites=("left_foot", "right_foot"),
        foot_geoms=biped_robot.FOOT_GEOMS,
        foot_bodies=("left_ankle_roll_link", "right_ankle_roll_link"),
        forbidden_geoms=("(torso|head|pelvis)_collision",),
        gait=Gait(frequency_hz=1.5, offsets=(0.0, 0.5), swing_height=0.09),
        avoid_self_collisions=True,
        std_standing={".*": 0.1},
        std_walking={
            **still,
            **legs,
            ".*_(hip_pitch|knee|ankle_pitch)_joint": 0.4,
        },
        std_running={
            **still,
            **legs,
            ".*_(hip_pitch|knee|ankle_pitch)_joint": 0.6,
        },
        weights={"body_ang_vel": -0.1},
    )
