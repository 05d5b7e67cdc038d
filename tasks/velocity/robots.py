"""The robots of the velocity tasks."""

from __future__ import annotations

from tasks.robots.quadruped import FOOT_GEOMS, quadruped_cfg
from tasks.velocity.robot import Gait, LeggedRobot


def quadruped() -> LeggedRobot:
    """The quadruped of tasks/robots, which trots."""
    return LeggedRobot(
        entity=quadruped_cfg(),
        base="trunk",
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
