"""An entity's initial state, and the limits of its joints."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import torch

from mjlab_rec.entity.config import EntityCfg
from mjlab_rec.utils.mujoco import detect_command_field, dof_width, qpos_width
from mjlab_rec.utils.string import resolve_expr

_BALL = mujoco.mjtJoint.mjJNT_BALL


@dataclass(kw_only=True)
class InitialState:
    """Numbers from the config, in the model's order."""

    root: list[float]
    """Pose, and for a floating base the velocities: 7 or 13 numbers."""
    joint_pos: list[float]
    """As in qpos, without the free joint."""
    joint_vel: list[float]
    """As in qvel, without the free joint."""
    ctrl: list[float]
    """Control that holds the joints where they start; 0 for actuators without position targets."""
    free_column: int | None
    """Where in the entity's part of qpos the free joint begins; None for a fixed base."""

    @property
    def qpos(self) -> list[float]:
        """The entity's part of qpos."""
        if self.free_column is None:
            return list(self.joint_pos)
        before, after = self.joint_pos[: self.free_column], self.joint_pos[self.free_column :]
        return [*before, *self.root[:7], *after]


def take_keyframe(spec: mujoco.MjSpec) -> list[float] | None:
    """Remove the spec's keyframes, which do not fit a scene, and return the first one's qpos."""
    keys = list(spec.keys)
    qpos = [float(x) for x in keys[0].qpos] if keys else None
    for key in keys:
        spec.delete(key)
    return qpos


def add_keyframe(spec: mujoco.MjSpec, qpos: list[float], ctrl: list[float]) -> None:
    """Add the keyframe "init_state", unless there is nothing to put into it."""
    if qpos or ctrl:
        spec.add_key(name="init_state", qpos=qpos, ctrl=ctrl)


def initial_state(
    cfg: EntityCfg.InitialStateCfg,
    spec: mujoco.MjSpec,
    joints: tuple[mujoco.MjsJoint, ...],
    joint_names: tuple[str, ...],
    keyframe: list[float] | None,
) -> InitialState:
    """Work out an entity's initial state."""
    root = [*cfg.pos, *cfg.rot]
    column = _free_column(spec)
    if column is not None:
        root += [*cfg.lin_vel, *cfg.ang_vel]
    if cfg.joint_pos is None:
        if keyframe is None:
            raise ValueError(
                "init_state.joint_pos=None takes the joint positions of the model's keyframe, but "
                "the model has none. Add a <keyframe> to the XML or give joint_pos."
            )
        joint_pos = list(keyframe)
        if column is not None:
            del joint_pos[column : column + 7]
    else:
        joint_pos = _spread(cfg.joint_pos, joints, joint_names, "joint_pos")
    joint_vel = _spread(cfg.joint_vel, joints, joint_names, "joint_vel")
    starts = np.cumsum([0, *(qpos_width(joint.type) for joint in joints)]).tolist()
    pos_of = {
        joint.name: joint_pos[start]
        for joint, start in zip(joints, starts, strict=False)
        if joint.type != _BALL
    }
    ctrl = [pos_of.get(a.target, 0.0) if _holds_position(a) else 0.0 for a in spec.actuators]
    return InitialState(
        root=root, joint_pos=joint_pos, joint_vel=joint_vel, ctrl=ctrl, free_column=column
    )


def joint_limits(
    model: mujoco.MjModel, joint_ids: list[int], soft_factor: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hard and soft limits, each (num_joints, 2); infinite for joints without limits."""
    hard = torch.from_numpy(np.array(model.jnt_range[joint_ids], dtype=np.float32)).view(-1, 2)
    middle, half = hard.mean(dim=1), 0.5 * (hard[:, 1] - hard[:, 0])
    soft = torch.stack((middle - soft_factor * half, middle + soft_factor * half), dim=1)
    unlimited = torch.from_numpy(np.array(model.jnt_limited[joint_ids]) == 0)
    anything = torch.tensor([-torch.inf, torch.inf])
    hard[unlimited] = anything
    soft[unlimited] = anything
    return hard, soft


def _free_column(spec: mujoco.MjSpec) -> int | None:
    column = 0
    for joint in spec.joints:
        if joint.type == mujoco.mjtJoint.mjJNT_FREE:
            return column
        column += qpos_width(joint.type)
    return None


def _spread(
    values: dict[str, float],
    joints: tuple[mujoco.MjsJoint, ...],
    names: tuple[str, ...],
    what: str,
) -> list[float]:
    """Return one number per joint; for a ball joint, no rotation and zero velocity."""
    spread: list[float] = []
    for joint, name, value in zip(joints, names, resolve_expr(values, names, 0.0), strict=True):
        if joint.type != _BALL:
            spread.append(float(value))
        elif value != 0.0:
            raise ValueError(
                f"init_state.{what}: '{name}' is a ball joint, which one number ({value}) cannot "
                "describe. Leave it at 0, or use a keyframe with joint_pos=None."
            )
        elif what == "joint_pos":
            spread += [1.0, 0.0, 0.0, 0.0]
        else:
            spread += [0.0] * dof_width(joint.type)
    return spread


def _holds_position(actuator: mujoco.MjsActuator) -> bool:
    try:
        return detect_command_field(actuator) == "position"
    except ValueError:
        return False
