"""Building blocks for MjSpec: actuators, joints, options and movable bases."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.utils.spec_export import export_spec as export_spec

logger = logging.getLogger(__name__)


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


def option_fields() -> list[str]:
    """Names of the fields of MuJoCo's <option>."""
    return [name for name in dir(mujoco.MjSpec().option) if not name.startswith("_")]


def non_default_option_fields(option: Any) -> list[str]:
    """Names of the <option> fields whose values are not MuJoCo's defaults."""
    default = mujoco.MjSpec().option
    return [
        name
        for name in option_fields()
        if not np.array_equal(getattr(option, name), getattr(default, name))
    ]


def copy_option(source: mujoco.MjSpec, target: mujoco.MjSpec) -> None:
    """Copy the <option> of one spec to another."""
    for name in option_fields():
        setattr(target.option, name, getattr(source.option, name))


def get_free_joint(spec: mujoco.MjSpec) -> mujoco.MjsJoint | None:
    """The first free joint, or None."""
    return next((j for j in spec.joints if j.type == mujoco.mjtJoint.mjJNT_FREE), None)


def get_non_free_joints(spec: mujoco.MjSpec) -> tuple[mujoco.MjsJoint, ...]:
    """Return all joints except free ones."""
    return tuple(j for j in spec.joints if j.type != mujoco.mjtJoint.mjJNT_FREE)


def is_joint_limited(joint: mujoco.MjsJoint) -> bool:
    """Return whether a joint of a spec will have limits once compiled."""
    if joint.limited == mujoco.mjtLimited.mjLIMITED_AUTO:
        return bool(joint.range[0] < joint.range[1])
    return joint.limited == mujoco.mjtLimited.mjLIMITED_TRUE


def auto_wrap_fixed_base_mocap(
    spec_fn: Callable[[], mujoco.MjSpec],
) -> Callable[[], mujoco.MjSpec]:
    """Put fixed-base specs onto a mocap body, so that each world can place its own copy.

    Specs with a free joint, with a mocap root or without bodies do not change. A later write,
    usually from a reset event, sets the pose of the mocap body; until then all copies are at the
    world's origin.
    """

    def wrapped() -> mujoco.MjSpec:
        spec = spec_fn()
        has_bodies = len(spec.bodies) > 1
        if get_free_joint(spec) is not None or not has_bodies or spec.bodies[1].mocap:
            return spec
        base = mujoco.MjSpec()
        copy_option(spec, base)
        # Attaching renames or drops keyframes, so this copies them.
        keys = [(key.name, np.array(key.qpos), np.array(key.ctrl)) for key in spec.keys]
        for key in list(spec.keys):
            spec.delete(key)
        frame = base.worldbody.add_body(name="mocap_base", mocap=True).add_frame()
        with _no_warning_of_prefix():
            base.attach(child=spec, prefix="", frame=frame)
        for name, qpos, ctrl in keys:
            base.add_key(name=name, qpos=qpos.tolist(), ctrl=ctrl.tolist())
        return base

    return wrapped


@contextlib.contextmanager
def _no_warning_of_prefix() -> Iterator[None]:
    """Keep MuJoCo 4 from saying, to a file too, that XML of a spec without prefix may be wrong.

    The scene gives it one before anything is saved. There is no other way to put bodies that exist
    below a new one.
    """
    before = mujoco.get_mju_user_warning()

    def pass_others_on(text: str) -> None:
        if "empty prefix" not in text:
            (before or logger.warning)(text)

    mujoco.set_mju_user_warning(pass_others_on)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


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
    target_name: str,
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
    motor = _add_actuator(spec, target_name, target_name, transmission_type, passive)
    motor.gear[0] = gear
    _limit_force(motor, effort_limit)
    if math.isfinite(effort_limit):
        motor.ctrllimited = True
        motor.ctrlrange[:] = (-effort_limit, effort_limit)
    return motor


def create_position_actuator(
    spec: mujoco.MjSpec,
    target_name: str,
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
    its limit. The force is limited by ``effort_limit``.
    """
    passive = (armature, frictionloss, viscous_damping)
    name = actuator_name or target_name
    servo = _add_actuator(spec, name, target_name, transmission_type, passive)
    servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0] = stiffness
    servo.biasprm[1] = -stiffness
    servo.biasprm[2] = -damping
    _limit_force(servo, effort_limit)
    return servo


def create_velocity_actuator(
    spec: mujoco.MjSpec,
    target_name: str,
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
    name = actuator_name or target_name
    servo = _add_actuator(spec, name, target_name, transmission_type, passive)
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
