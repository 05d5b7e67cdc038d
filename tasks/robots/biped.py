"""A biped with the published dimensions, masses, motors and limits of a 29-joint Unitree G1."""

from __future__ import annotations

from pathlib import Path

import mujoco

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.utils.actuator import ElectricActuator, reflected_inertia_from_two_stage_planetary
from mjlab_rec.utils.spec_config import CollisionCfg

FOOT_GEOMS = ("(left|right)_foot[12]_collision$",)
"""Geoms of the feet, as regular expressions."""

ACTION_SCALE = 0.25
"""Radians that an action of 1 moves a joint's target: about half of what the motor can hold."""

# Each motor has a rotor and a planetary gearbox of two stages.
_HIP_MOTOR = ElectricActuator(
    reflected_inertia=reflected_inertia_from_two_stage_planetary(
        (0.489e-4, 0.098e-4, 0.533e-4), (1, 4.5, 1 + 48 / 22)
    ),
    velocity_limit=32.0,
    effort_limit=88.0,
)
_KNEE_MOTOR = ElectricActuator(
    reflected_inertia=reflected_inertia_from_two_stage_planetary(
        (0.489e-4, 0.109e-4, 0.738e-4), (1, 4.5, 5)
    ),
    velocity_limit=20.0,
    effort_limit=139.0,
)
_ARM_MOTOR = ElectricActuator(
    reflected_inertia=reflected_inertia_from_two_stage_planetary(
        (0.139e-4, 0.017e-4, 0.169e-4), (1, 1 + 46 / 18, 1 + 56 / 16)
    ),
    velocity_limit=37.0,
    effort_limit=25.0,
)
_WRIST_MOTOR = ElectricActuator(
    reflected_inertia=reflected_inertia_from_two_stage_planetary((0.068e-4, 0.0, 0.0), (1, 5, 5)),
    velocity_limit=22.0,
    effort_limit=5.0,
)


def biped_cfg(feet_only: bool = False) -> EntityCfg:
    """The robot: 29 joints, driven by position targets.

    Args:
        feet_only: Let only the feet collide, and only with other things than the robot itself.
    """
    # A robot of 33 kg with its center of mass 0.7 m above the ankles tips over unless the legs give
    # at least 230 N m/rad. So they are stiffer than the real robot's, whose software balances it.
    actuators = (
        _servo(_HIP_MOTOR, (".*_hip_pitch_joint", ".*_hip_yaw_joint", "waist_yaw_joint"), 200, 5),
        _servo(_KNEE_MOTOR, (".*_hip_roll_joint",), 200, 5),
        _servo(_KNEE_MOTOR, (".*_knee_joint",), 300, 8),
        # Two motors work together on these. With more damping, the light feet chatter.
        _servo(_ARM_MOTOR, (".*_ankle_.*",), 200, 2, motors=2),
        _servo(_ARM_MOTOR, ("waist_roll_joint", "waist_pitch_joint"), 200, 5, motors=2),
        _servo(_ARM_MOTOR, (".*_shoulder_.*", ".*_elbow_joint", ".*_wrist_roll_joint"), 40, 2),
        _servo(_WRIST_MOTOR, (".*_wrist_pitch_joint", ".*_wrist_yaw_joint"), 20, 1),
    )
    return EntityCfg(
        spec_fn=_spec,
        init_state=EntityCfg.InitialStateCfg(
            pos=(0.0, 0.0, 0.757),
            joint_pos={
                ".*_hip_pitch_joint": -0.3,
                ".*_knee_joint": 0.65,
                ".*_ankle_pitch_joint": -0.35,
                ".*_shoulder_pitch_joint": 0.2,
                "left_shoulder_roll_joint": 0.2,
                "right_shoulder_roll_joint": -0.2,
                ".*_elbow_joint": 0.9,
            },
        ),
        articulation=EntityArticulationInfoCfg(
            actuators=actuators, soft_joint_pos_limit_factor=0.9
        ),
        collisions=(feet_only_collision() if feet_only else full_collision(),),
    )


def full_collision() -> CollisionCfg:
    """Everything collides; only the feet have friction."""
    foot = FOOT_GEOMS[0]
    return CollisionCfg(
        geom_names_expr=(".*_collision",),
        contype=1,
        conaffinity=1,
        condim={foot: 3, ".*": 1},
        priority={foot: 1, ".*": 0},
        friction={foot: (0.6,)},
    )


def feet_only_collision() -> CollisionCfg:
    """Only the feet collide, and not with each other."""
    return CollisionCfg(
        geom_names_expr=FOOT_GEOMS,
        contype=0,
        conaffinity=1,
        condim=3,
        priority=1,
        friction=(0.6,),
    )


def _spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(Path(__file__).with_suffix(".xml")))


def _servo(
    motor: ElectricActuator,
    joints: tuple[str, ...],
    stiffness: float,
    damping: float,
    motors: int = 1,
) -> BuiltinPositionActuatorCfg:
    """Drive joints with motors of one kind, and gains in N m/rad and N m s/rad."""
    return BuiltinPositionActuatorCfg(
        target_names_expr=joints,
        stiffness=stiffness,
        damping=damping,
        effort_limit=motor.effort_limit * motors,
        armature=motor.reflected_inertia * motors,
    )
