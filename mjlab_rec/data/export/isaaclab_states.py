"""Poses and joints of entities, as Isaac Lab stores them, from recorded physics states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import mujoco
import numpy as np
import torch

from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.math import normalize, quat_apply
from mjlab_rec.utils.string import nearest

Quaternion = Literal["wxyz", "xyzw"]

_ONE_NUMBER = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass(frozen=True, kw_only=True)
class _Entity:
    """Where the numbers of an entity are."""

    path: str  # such as articulation/robot
    root: int  # its root body
    joints: dict[str, int]  # name -> joint


class EntityStates:
    """Converts physics states to poses, velocities and joints of entities.

    An entity is what has a common prefix in the names of its bodies, such as "robot/". Its root is
    the body with the free joint, or else the first one.

    Args:
        model: The model.
        elements: The name of each number in a state, such as "qpos.0".
        quaternion: Order of the numbers of quaternions: "wxyz" up to Isaac Lab 2, "xyzw" later.
        joints: Names of joints, in the order of Isaac Lab; empty: in that of the model.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        elements: Sequence[str],
        quaternion: Quaternion = "wxyz",
        joints: Sequence[str] = (),
    ) -> None:
        if quaternion not in get_args(Quaternion):
            known = "', '".join(get_args(Quaternion))
            raise DataError(f"quaternion is '{quaternion}', but it must be one of: '{known}'.")
        self._model = model
        self._last = quaternion == "xyzw"
        self._columns = {name: _columns(elements, name) for name in _sizes(model)}
        for name, size in _sizes(model).items():
            if len(self._columns[name]) != size:
                raise DataError(
                    f"The states have {len(self._columns[name])} numbers of '{name}', but the"
                    f" attached model has {size}."
                )
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        self._at_rest = data.xpos.copy(), data.xquat.copy()
        self.left_out: list[str] = []
        """Joints that Isaac Lab has no place for."""
        self._entities = [self._entity(name, bodies) for name, bodies in self._bodies().items()]
        self._sort(joints)

    @property
    def joint_names(self) -> dict[str, list[str]]:
        """Names of the joints of each articulation, in the order of the values."""
        return {
            each.path.partition("/")[2]: list(each.joints) for each in self._entities if each.joints
        }

    def __call__(
        self, states: np.ndarray, centre: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The values of each entity, by path, each (rows, n) float32.

        Args:
            states: Physics states, (rows, n).
            centre: ``body_ipos`` of each row, if it is not that of the model, (rows, bodies, 3).
        """
        found = {}
        qpos, qvel = (states[:, self._columns[name]] for name in ("qpos", "qvel"))
        for each in self._entities:
            ipos = self._model.body_ipos if centre is None else centre
            pose, velocity = self._root(each.root, states, np.asarray(ipos)[..., each.root, :])
            found[f"{each.path}/root_pose"] = pose
            found[f"{each.path}/root_velocity"] = velocity
            if each.joints:
                numbers = list(each.joints.values())
                found[f"{each.path}/joint_position"] = qpos[:, self._model.jnt_qposadr[numbers]]
                found[f"{each.path}/joint_velocity"] = qvel[:, self._model.jnt_dofadr[numbers]]
        return {path: values.astype(np.float32) for path, values in found.items()}

    def _root(
        self, body: int, states: np.ndarray, centre: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose of a root body, and velocity of its centre of mass, in the world."""
        model = self._model
        velocity = np.zeros((len(states), 6))
        free, mocap = _free_joint(model, body), int(model.body_mocapid[body])
        if free is not None:
            start, first = int(model.jnt_qposadr[free]), int(model.jnt_dofadr[free])
            pose = states[:, self._columns["qpos"][start : start + 7]].astype(float)
            velocity[:] = states[:, self._columns["qvel"][first : first + 6]]
        elif mocap >= 0:
            at = self._columns["mocap_pos"][3 * mocap : 3 * mocap + 3]
            turned = self._columns["mocap_quat"][4 * mocap : 4 * mocap + 4]
            pose = states[:, [*at, *turned]].astype(float)
        else:
            fixed = np.concatenate([values[body] for values in self._at_rest])
            pose = np.tile(fixed, (len(states), 1))
        quat = normalize(torch.from_numpy(pose[:, 3:]))
        # MuJoCo's velocity is that of the frame's origin, and turns in the body's own frame.
        turning = quat_apply(quat, torch.from_numpy(velocity[:, 3:])).numpy()
        offset = quat_apply(
            quat, torch.from_numpy(np.broadcast_to(centre, (len(states), 3)).astype(float))
        )
        velocity[:, :3] += np.cross(turning, offset.numpy())
        velocity[:, 3:] = turning
        pose[:, 3:] = np.roll(quat.numpy(), -1, axis=1) if self._last else quat.numpy()
        return pose, velocity

    def _bodies(self) -> dict[str, list[int]]:
        """The bodies of each entity."""
        found: dict[str, list[int]] = {}
        for body in range(1, self._model.nbody):
            name, slash, _ = self._model.body(body).name.partition("/")
            if slash:
                found.setdefault(name, []).append(body)
        return found

    def _entity(self, name: str, bodies: list[int]) -> _Entity:
        model = self._model
        floating = [body for body in bodies if _free_joint(model, body) is not None]
        joints = {}
        for joint in range(model.njnt):
            own = model.joint(joint).name
            if int(model.jnt_bodyid[joint]) not in bodies:
                continue
            if int(model.jnt_type[joint]) in _ONE_NUMBER:
                joints[own.removeprefix(f"{name}/")] = joint
            elif int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_BALL):
                self.left_out.append(own)
        kind = "articulation" if joints else "rigid_object"
        return _Entity(path=f"{kind}/{name}", root=(floating or bodies)[0], joints=joints)

    def _sort(self, order: Sequence[str]) -> None:
        """Put the joints of entities in this order."""
        known = {
            f"{each.path.partition('/')[2]}/{name}"
            for each in self._entities
            for name in each.joints
        }
        known |= {name.partition("/")[2] for name in known}
        for name in order:
            if name not in known:
                raise DataError(f"Unknown joint '{name}'. {nearest(name, sorted(known))}")
        sorted_entities = []
        for each in self._entities:
            prefix = f"{each.path.partition('/')[2]}/"
            mine = [name.removeprefix(prefix) for name in order]
            mine = [name for name in dict.fromkeys(mine) if name in each.joints]
            missing = [name for name in each.joints if name not in mine]
            if mine and missing:
                raise DataError(
                    f"The order of joints has some of '{prefix[:-1]}', but not all of them:"
                    f" {', '.join(missing)}."
                )
            joints = {name: each.joints[name] for name in mine} or each.joints
            sorted_entities.append(_Entity(path=each.path, root=each.root, joints=joints))
        self._entities = sorted_entities


def _sizes(model: mujoco.MjModel) -> dict[str, int]:
    """The parts of a state that are used here, and how many numbers each has."""
    mocap = {"mocap_pos": 3 * model.nmocap, "mocap_quat": 4 * model.nmocap}
    return {"qpos": model.nq, "qvel": model.nv, **mocap}


def _columns(elements: Iterable[str], name: str) -> list[int]:
    """The columns of a part of the state."""
    return [i for i, each in enumerate(elements) if each == name or each.startswith(f"{name}.")]


def _free_joint(model: mujoco.MjModel, body: int) -> int | None:
    """The free joint of a body."""
    joint = int(model.body_jntadr[body])
    free = joint >= 0 and int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE)
    return joint if free else None
