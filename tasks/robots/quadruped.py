"""A quadruped with the published dimensions, masses, motors and limits of a Unitree Go1."""

from __future__ import annotations

from pathlib import Path

import mujoco

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.utils.actuator import ElectricActuator, reflected_inertia
from mjlab_rec.utils.spec_config import CollisionCfg

FOOT_GEOMS = ("[FR][RL]_foot_collision$",)
"""Geoms of the feet, as regular expressions."""

ACTION_SCALE = 0.4
"""Radians that an action of 1 moves a joint's target."""

# Motors of all joints have the same rotor; longer gears make the knees stronger and slower.
_ROTOR_INERTIA = 0.000111842
_HIP_MOTOR = ElectricActuator(
    reflected_inertia=reflected_inertia(_ROTOR_INERTIA, 6.0), velocity_limit=30.1, effort_limit=23.7
)
_KNEE_MOTOR = ElectricActuator(
    reflected_inertia=reflected_inertia(_ROTOR_INERTIA, 9.0),
    velocity_limit=20.06,
    effort_limit=35.55,
)
_STIFFNESS = 40.0  # N m / rad; with less than 35, the legs give way under the trunk.
_DAMPING = 1.0  # N m s / rad


def quadruped_cfg(feet_only: bool = False) -> EntityCfg:
    """The robot: 12 joints, driven by position targets.

    Args:
        feet_only: Let nothing collide but the feet.
    """
    return EntityCfg(
        spec_fn=_spec,
        init_state=EntityCfg.InitialStateCfg(
            pos=(0.0, 0.0, 0.29),
            joint_pos={
                ".*R_hip_joint": 0.1,
                ".*L_hip_joint": -0.1,
                ".*_thigh_joint": 1.0,
                ".*_calf_joint": -1.8,
            },
        ),
        articulation=EntityArticulationInfoCfg(
            actuators=(
                _servo(_HIP_MOTOR, (".*_hip_joint", ".*_thigh_joint")),
                _servo(_KNEE_MOTOR, (".*_calf_joint",)),
            ),
            soft_joint_pos_limit_factor=0.9,
        ),
        collisions=(
            CollisionCfg(
                geom_names_expr=FOOT_GEOMS,
                contype=0,  # Feet do not touch each other.
                conaffinity=1,
                condim=3,
                priority=1,
                friction=(0.8,),
                disable_other_geoms=feet_only,
            ),
        ),
    )


def _spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(Path(__file__).with_suffix(".xml")))


def _servo(motor: ElectricActuator, joints: tuple[str, ...]) -> BuiltinPositionActuatorCfg:
    return BuiltinPositionActuatorCfg(
        target_names_expr=joints,
        stiffness=_STIFFNESS,
        damping=_DAMPING,
        effort_limit=motor.effort_limit,
        armature=motor.reflected_inertia,
    )
