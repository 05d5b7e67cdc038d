"""Pose and velocity of an entity's root, in the world and in its own frame."""

from __future__ import annotations

import torch
from torch import Tensor

from mjlab_rec.entity.frame_data import FrameData
from mjlab_rec.utils.math import quat_apply, quat_apply_inverse, quat_mul


class RootData(FrameData):
    """The root body: the one with the free joint, or the one of a fixed base.

    Poses and velocities that the state contains (those of a free joint, the pose of a mocap body)
    are read from it. They are current after a physics step and after writing, without
    ``sim.forward()``, and agree with the joint positions.
    """

    gravity_vec_w: Tensor
    """Direction of gravity in the world, (num_envs, 3)."""
    forward_vec_b: Tensor
    """The root's forward axis, (num_envs, 3)."""
    is_fixed_base: bool

    _root_pos: tuple[str, str]
    _root_quat: tuple[str, str]

    @property
    def root_link_pos_w(self) -> Tensor:
        """Position of the root frame (num_envs, 3)."""
        return self.read(*self._root_pos)

    @property
    def root_link_quat_w(self) -> Tensor:
        """Orientation of the root frame (num_envs, 4)."""
        return self.read(*self._root_quat)

    @property
    def root_link_pose_w(self) -> Tensor:
        """Position, then quaternion, of the root frame (num_envs, 7)."""
        if not self.is_fixed_base:
            return self.read("qpos", "free_q")
        return torch.cat((self.peek(*self._root_pos), self.peek(*self._root_quat)), dim=-1)

    @property
    def root_link_lin_vel_w(self) -> Tensor:
        """Linear velocity of the root frame's origin (num_envs, 3)."""
        if not self.is_fixed_base:
            return self.read("qvel", "free_lin")
        return self._linear_velocity(self.peek("xpos", "root"), "root", "root")

    @property
    def root_link_ang_vel_w(self) -> Tensor:
        """Angular velocity of the root (num_envs, 3)."""
        if not self.is_fixed_base:
            # MuJoCo keeps a free joint's angular velocity in the body's own frame.
            return quat_apply(self.peek(*self._root_quat), self.peek("qvel", "free_ang"))
        return self.peek("cvel", "root")[:, 0:3].clone()

    @property
    def root_link_vel_w(self) -> Tensor:
        """Linear, then angular, velocity of the root frame (num_envs, 6)."""
        return torch.cat((self.root_link_lin_vel_w, self.root_link_ang_vel_w), dim=-1)

    @property
    def root_link_lin_vel_b(self) -> Tensor:
        """Linear velocity of the root frame's origin, in the root frame (num_envs, 3)."""
        if not self.is_fixed_base:
            return quat_apply_inverse(self.peek(*self._root_quat), self.peek("qvel", "free_lin"))
        return quat_apply_inverse(self.peek(*self._root_quat), self.root_link_lin_vel_w)

    @property
    def root_link_ang_vel_b(self) -> Tensor:
        """Angular velocity of the root, in the root frame (num_envs, 3)."""
        if not self.is_fixed_base:
            return self.read("qvel", "free_ang")
        return quat_apply_inverse(self.peek(*self._root_quat), self.root_link_ang_vel_w)

    @property
    def root_com_pos_w(self) -> Tensor:
        """Position of the root's center of mass (num_envs, 3)."""
        return self.root_com_offset_w.add_(self.peek(*self._root_pos))

    @property
    def root_com_quat_w(self) -> Tensor:
        """Orientation of the root's principal axes of inertia (num_envs, 4)."""
        return quat_mul(self.peek(*self._root_quat), self.model.body_iquat[:, self._parts["root"]])

    @property
    def root_com_pose_w(self) -> Tensor:
        """Pose of the root's center of mass and principal axes (num_envs, 7)."""
        return torch.cat((self.root_com_pos_w, self.root_com_quat_w), dim=-1)

    @property
    def root_com_lin_vel_w(self) -> Tensor:
        """Linear velocity of the root's center of mass (num_envs, 3)."""
        spin = torch.linalg.cross(self.root_link_ang_vel_w, self.root_com_offset_w)
        return spin.add_(self.root_link_lin_vel_w)

    @property
    def root_com_ang_vel_w(self) -> Tensor:
        """Angular velocity of the root (num_envs, 3)."""
        return self.root_link_ang_vel_w

    @property
    def root_com_vel_w(self) -> Tensor:
        """Linear, then angular, velocity at the root's center of mass (num_envs, 6)."""
        return torch.cat((self.root_com_lin_vel_w, self.root_link_ang_vel_w), dim=-1)

    @property
    def root_com_lin_vel_b(self) -> Tensor:
        """Linear velocity of the root's center of mass, in the root frame (num_envs, 3)."""
        return quat_apply_inverse(self.peek(*self._root_quat), self.root_com_lin_vel_w)

    @property
    def root_com_ang_vel_b(self) -> Tensor:
        """Angular velocity of the root, in the root frame (num_envs, 3)."""
        return self.root_link_ang_vel_b

    @property
    def root_com_offset_w(self) -> Tensor:
        """Offset of the root's center of mass from its origin, in world axes (num_envs, 3)."""
        offset = self.model.body_ipos[:, self._parts["root"]]
        return quat_apply(self.peek(*self._root_quat), offset)

    @property
    def projected_gravity_b(self) -> Tensor:
        """Direction of gravity in the root frame (num_envs, 3)."""
        return quat_apply_inverse(self.peek(*self._root_quat), self.gravity_vec_w)

    @property
    def heading_w(self) -> Tensor:
        """Angle of the root's forward axis around the world's z axis, in radians (num_envs,)."""
        forward = quat_apply(self.peek(*self._root_quat), self.forward_vec_b)
        return torch.atan2(forward[:, 1], forward[:, 0])
