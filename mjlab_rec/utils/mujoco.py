"""Helpers for MuJoCo's joints and actuators."""

from __future__ import annotations

from typing import Literal

import mujoco

CommandField = Literal["position", "velocity", "effort"]


def qpos_width(joint_type: int | mujoco.mjtJoint) -> int:
    """Return how many numbers a joint has in qpos."""
    return (7, 4, 1, 1)[int(joint_type)]


def dof_width(joint_type: int | mujoco.mjtJoint) -> int:
    """Return how many numbers a joint has in qvel."""
    return (6, 3, 1, 1)[int(joint_type)]


def detect_command_field(actuator: mujoco.MjsActuator) -> CommandField:
    """Return the target that an actuator of a spec follows, inferred from its force law.

    Raises:
        ValueError: It is neither a position, velocity or motor actuator nor a muscle.
    """
    if actuator.dyntype == mujoco.mjtDyn.mjDYN_MUSCLE:
        return "effort"
    if actuator.gaintype == mujoco.mjtGain.mjGAIN_FIXED:
        gain, bias, dyn = actuator.gainprm[0], actuator.biasprm, actuator.dyntype
        if actuator.biastype == mujoco.mjtBias.mjBIAS_NONE:
            return "effort"
        if actuator.biastype == mujoco.mjtBias.mjBIAS_AFFINE:
            filters = (mujoco.mjtDyn.mjDYN_NONE, mujoco.mjtDyn.mjDYN_FILTEREXACT)
            if gain == -bias[1] and dyn in filters:
                return "position"
            if bias[1] == 0 and gain == -bias[2] and dyn == mujoco.mjtDyn.mjDYN_NONE:
                return "velocity"
    raise ValueError(
        f"Cannot tell which command the XML actuator '{actuator.name}' follows: it is not a "
        "<position>, <velocity>, <motor> or <muscle>. Set it with "
        "XmlActuatorCfg(command_field='position' | 'velocity' | 'effort')."
    )
