"""Adding actuators to MjSpec, by what they do rather than by MuJoCo's parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import mujoco
import numpy as np


class TransmissionType(StrEnum):
    """The kind of element that an actuator acts on."""

    JOINT = "joint"
    TENDON = "tendon"
    SITE = "site"


_TRANSMISSION = {
    TransmissionType.JOINT: mujoco.mjtTrn.mjTRN_JOINT,
    TransmissionType.TENDON: mujoco.mjtTrn.mjTRN_TENDON,
    TransmissionType.SITE: mujoco.mjtTrn.mjTRN_SITE,
}


def apply_target_overrides(
    spec: mujoco.MjSpec,
    target_name: str,
    transmission_type: TransmissionType,
    *,
    armature: float | None = None,
    frictionloss: float | None = None,
    viscous_damping: float | None = None,
) -> None:
    """Set passive properties of a joint or tendon; None keeps what the XML says."""
    if transmission_type == TransmissionType.SITE:
        return
    is_joint = transmission_type == TransmissionType.JOINT
    target = spec.joint(target_name) if is_joint else spec.tendon(target_name)
    if armature is not None:
        target.armature = armature
    if frictionloss is not None:
        target.frictionloss = frictionloss
    if viscous_damping is not None:
        target.damping[0] = viscous_damping


def create_motor_actuator(
    spec: mujoco.MjSpec,
    joint_name: str,
    *,
    effort_limit: float,
    gear: float = 1.0,
    armature: float | None = None,
    frictionloss: float | None = None,
    viscous_damping: float | None = None,
    transmission_type: TransmissionType = TransmissionType.JOINT,
) -> mujoco.MjsActuator:
    """Add a <motor>, whose ctrl is the force before the gear."""
    passive = (armature, frictionloss, viscous_damping)
    motor = _add_actuator(spec, joint_name, joint_name, transmission_type, passive)
    motor.gear[0] = gear
    _limit_force(motor, effort_limit)
    if math.isfinite(effort_limit):
        motor.ctrllimited = True
        motor.ctrlrange[:] = (-effort_limit, effort_limit)
    return motor


def create_position_actuator(
    spec: mujoco.MjSpec,
    joint_name: str,
    *,
    stiffness: float,
    damping: float,
    effort_limit: float | None = None,
    armature: float | None = None,
    frictionloss: float | None = None,
    viscous_damping: float | None = None,
    transmission_type: TransmissionType = TransmissionType.JOINT,
    actuator_name: str | None = None,
) -> mujoco.MjsActuator:
    """Add a <position>, whose ctrl is a setpoint.

    Setpoints are not clamped to the joint's range: otherwise there would be no force on a joint at
    its limit. The force is limited by ``effort_limit``; ``ctrlrange`` then tells, without limiting
    anything, which setpoints make a difference somewhere in the joint's range.
    """
    passive = (armature, frictionloss, viscous_damping)
    name = actuator_name or joint_name
    servo = _add_actuator(spec, name, joint_name, transmission_type, passive)
    servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0] = stiffness
    servo.biasprm[1] = -stiffness
    servo.biasprm[2] = -damping
    _limit_force(servo, effort_limit)
    if servo.forcelimited == mujoco.mjtLimited.mjLIMITED_TRUE and stiffness > 0.0:
        reach = servo.forcerange[1] / stiffness
        servo.ctrlrange[:] = _range(spec, joint_name, transmission_type) + (-reach, reach)
    return servo


def create_velocity_actuator(
    spec: mujoco.MjSpec,
    joint_name: str,
    *,
    damping: float,
    effort_limit: float | None = None,
    armature: float | None = None,
    frictionloss: float | None = None,
    viscous_damping: float | None = None,
    transmission_type: TransmissionType = TransmissionType.JOINT,
    actuator_name: str | None = None,
) -> mujoco.MjsActuator:
    """Add a <velocity>, whose ctrl is a velocity setpoint."""
    passive = (armature, frictionloss, viscous_damping)
    name = actuator_name or joint_name
    servo = _add_actuator(spec, name, joint_name, transmission_type, passive)
    servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0] = damping
    servo.biasprm[2] = -damping
    _limit_force(servo, effort_limit)
    return servo


def create_muscle_actuator(
    spec: mujoco.MjSpec,
    target_name: str,
    *,
    length_range: tuple[float, float] = (0.0, 0.0),
    gear: float = 1.0,
    timeconst: tuple[float, float] = (0.01, 0.04),
    tausmooth: float = 0.0,
    range: tuple[float, float] = (0.75, 1.05),
    force: float = -1.0,
    scale: float = 200.0,
    lmin: float = 0.5,
    lmax: float = 1.6,
    vmax: float = 1.5,
    fpmax: float = 1.3,
    fvmax: float = 1.2,
    transmission_type: TransmissionType = TransmissionType.TENDON,
) -> mujoco.MjsActuator:
    """Add a <muscle>, whose ctrl between 0 and 1 is its excitation."""
    if transmission_type == TransmissionType.SITE:
        raise ValueError("A muscle acts on a joint or a tendon; got transmission_type SITE.")
    muscle = _add_actuator(spec, target_name, target_name, transmission_type, (None, None, None))
    muscle.dyntype = mujoco.mjtDyn.mjDYN_MUSCLE
    muscle.gaintype = mujoco.mjtGain.mjGAIN_MUSCLE
    muscle.biastype = mujoco.mjtBias.mjBIAS_MUSCLE
    muscle.gear[0] = gear
    muscle.dynprm[0:3] = (*timeconst, tausmooth)
    muscle.gainprm[0:9] = (*range, force, scale, lmin, lmax, vmax, fpmax, fvmax)
    muscle.biasprm[:] = muscle.gainprm
    muscle.lengthrange[:] = length_range
    muscle.ctrllimited = True
    muscle.ctrlrange[:] = (0.0, 1.0)
    return muscle


def create_dc_motor_actuator(
    spec: mujoco.MjSpec,
    joint_name: str,
    *,
    nominal: Sequence[float] | None,
    constants: Sequence[float] | None,
    controller: Callable[[float, float], tuple[int, list[float]]],
    effort_limit: float | None = None,
    gear: float = 1.0,
    inductance: float = 0.0,
    electrical_time_constant: float = 0.0,
    thermal: Sequence[float] | None = None,
    cogging: Sequence[float] | None = None,
    lugre: Sequence[float] | None = None,
    armature: float | None = None,
    frictionloss: float | None = None,
    viscous_damping: float | None = None,
    transmission_type: TransmissionType = TransmissionType.JOINT,
) -> mujoco.MjsActuator:
    """Add a <dcmotor>.

    Args:
        spec: The spec.
        joint_name: The joint or tendon.
        nominal: Nominal voltage, stall torque and no-load speed; or else
        constants: torque constant, back-EMF constant and resistance.
        controller: Given the motor's K and R, returns MuJoCo's input bits (`mjtCtrlInput`), and
            its controller: kp, ki, kd, slewmax, imax and vmax.
        effort_limit: Greatest electromagnetic torque.
        gear: Gear ratio.
        inductance: Of the winding.
        electrical_time_constant: Used where the inductance is zero.
        thermal: MuJoCo's six numbers.
        cogging: MuJoCo's three numbers.
        lugre: MuJoCo's five numbers.
        armature: Of the joint.
        frictionloss: Of the joint.
        viscous_damping: Of the joint.
        transmission_type: Whether it is a joint or a tendon.
    """
    passive = (armature, frictionloss, viscous_damping)
    motor = _add_actuator(spec, joint_name, joint_name, transmission_type, passive)
    motor.gear[0] = gear
    kt, ke, resistance = constants or (0.0, 0.0, 0.0)
    values = {
        "motorconst": [kt, ke],
        "resistance": resistance,
        "nominal": list(nominal or (0.0, 0.0, 0.0)),
        "saturation": [effort_limit or 0.0, 0.0, 0.0],
        "inductance": [inductance, electrical_time_constant],
        "thermal": list(thermal or [0.0] * 6),
        "cogging": list(cogging or [0.0] * 3),
        "lugre": list(lugre or [0.0] * 5),
    }
    motor.set_to_dcmotor(**values)  # Computes K and R.
    inputs, gains = controller(float(motor.gainprm[1]), float(motor.gainprm[0]))
    motor.set_to_dcmotor(**values, controller=gains, ctrlspec=int(inputs))
    if inputs == mujoco.mjtCtrlInput.mjINPUT_VOLTAGE and gains[-1] > 0.0:
        motor.ctrllimited = True
        motor.ctrlrange[:] = (-gains[-1], gains[-1])
    return motor


def _range(spec: mujoco.MjSpec, name: str, transmission_type: TransmissionType) -> np.ndarray:
    """Range of a joint or tendon as compiled, in radians; zeros if it has none."""
    if transmission_type == TransmissionType.TENDON:
        return np.array(spec.tendon(name).range)
    joint = spec.joint(name)
    # Parts keep the compiler settings of the file they come from.
    in_degrees = joint.compiler.degree and joint.type == mujoco.mjtJoint.mjJNT_HINGE
    return np.deg2rad(joint.range) if in_degrees else np.array(joint.range)


def _add_actuator(
    spec: mujoco.MjSpec,
    name: str,
    target_name: str,
    transmission_type: TransmissionType,
    passive: tuple[float | None, float | None, float | None],
) -> mujoco.MjsActuator:
    """Add a plain force actuator, and set its target's armature, friction loss and damping."""
    actuator = spec.add_actuator(
        name=name,
        target=target_name,
        trntype=_TRANSMISSION[transmission_type],
        dyntype=mujoco.mjtDyn.mjDYN_NONE,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_NONE,
    )
    # Without this a joint's range would become limits of ctrl.
    actuator.inheritrange = 0.0
    actuator.ctrllimited = False
    apply_target_overrides(
        spec,
        target_name,
        transmission_type,
        armature=passive[0],
        frictionloss=passive[1],
        viscous_damping=passive[2],
    )
    return actuator


def _limit_force(actuator: mujoco.MjsActuator, limit: float | None) -> None:
    if limit is None or not math.isfinite(limit):
        actuator.forcelimited = False
    else:
        actuator.forcelimited = True
        actuator.forcerange[:] = (-limit, limit)
