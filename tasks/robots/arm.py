"""A small arm with six joints and a parallel gripper, as an EntityCfg."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg

ARM_JOINTS = ("joint[1-6]",)
"""The joints that carry the hand."""

GRIPPER_JOINT = "left_finger"
"""The driven finger; the right one mirrors it."""

OPEN = 0.0375
"""Position of each finger when the gripper is open, in metres from the middle."""

FINGERS = ("left_finger", "right_finger")
"""The bodies that hold an object between them, left first."""

HAND = "grasp_site"
"""The site between the fingertips. Its z axis leads out of the hand; the fingers close along y."""

PADS = (".*_pad[1-4]",)
"""The geoms that touch what the gripper holds."""

HOME = {"joint2": 0.19, "joint3": 1.23, "joint4": 1.72, ".*_finger": OPEN}
"""The open hand points down, 0.3 m in front of the base and 0.15 m above the ground."""

_FREQUENCY = 2.0 * math.pi * 4.0  # The joints answer like a critically damped spring of 4 Hz.


def arm_cfg() -> EntityCfg:
    """An arm that follows joint positions: six joints, and the gripper's opening.

    Its gravity is compensated, as the controllers of such arms do, so it rests where it is told to.
    """
    return EntityCfg(
        spec_fn=_spec,
        init_state=EntityCfg.InitialStateCfg(joint_pos=dict(HOME)),
        articulation=EntityArticulationInfoCfg(
            actuators=(
                _servo(("joint1",), inertia=0.12, effort=28.0, armature=0.032),
                _servo(("joint2",), inertia=0.28, effort=28.0, armature=0.032),
                _servo(("joint3",), inertia=0.23, effort=28.0, armature=0.032),
                _servo(("joint4",), inertia=0.03, effort=10.0, armature=0.0018),
                _servo(("joint[56]",), inertia=0.01, effort=10.0, armature=0.0018),
                BuiltinPositionActuatorCfg(
                    target_names_expr=(GRIPPER_JOINT,),
                    stiffness=1000.0,
                    damping=40.0,
                    effort_limit=20.0,
                    armature=0.2,
                ),
            ),
            soft_joint_pos_limit_factor=0.95,
        ),
    )


def _spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(Path(__file__).parent / "arm.xml"))


def _servo(
    names: tuple[str, ...], inertia: float, effort: float, armature: float
) -> BuiltinPositionActuatorCfg:
    """Gains for a joint that carries this inertia (kg m^2), with a torque limit (Nm)."""
    return BuiltinPositionActuatorCfg(
        target_names_expr=names,
        stiffness=inertia * _FREQUENCY**2,
        damping=2.0 * inertia * _FREQUENCY,
        effort_limit=effort,
        armature=armature,
    )
