"""Building blocks for MjSpec: joints, options, movable bases and, from its own file, actuators."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.utils.spec_actuators import TransmissionType as TransmissionType
from mjlab_rec.utils.spec_actuators import apply_target_overrides as apply_target_overrides
from mjlab_rec.utils.spec_actuators import create_dc_motor_actuator as create_dc_motor_actuator
from mjlab_rec.utils.spec_actuators import create_motor_actuator as create_motor_actuator
from mjlab_rec.utils.spec_actuators import create_muscle_actuator as create_muscle_actuator
from mjlab_rec.utils.spec_actuators import create_position_actuator as create_position_actuator
from mjlab_rec.utils.spec_actuators import create_velocity_actuator as create_velocity_actuator
from mjlab_rec.utils.spec_export import export_spec as export_spec

logger = logging.getLogger(__name__)


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
