"""Pose and velocity of an entity's root, in the world and in its own frame."""

from __future__ import annotations

import torch
from torch import Tensor

from mjlab_rec.entity.frame_data import FrameData
from mjlab_rec.utils.math import quat_mul


class RootData(FrameData):
    """The root body: the one with the free joint, or the one of a fixed base.

    Like all other bodies it dates from the engine's last forward computation: after writing state
    or stepping the physics, call ``sim.forward()`` first to update it. What must follow from a pose
    that was just written reads ``qpos`` instead.
    """

    gravity_vec_w: Tensor
    """Direction of gravity in the world, (num_envs, 3)."""
    forward_vec_b: Tensor
    """The root's forward axis, (num_envs, 3)."""
    is_fixed_base: bool

    @property
    def root_link_pos_w(self) -> Tensor:
        """Position of the root frame (num_envs, 3)."""
        return self.read("xpos", "root")

    @property
    def root_link_quat_w(self) -> Tensor:
        """Orientation of the root frame (num_envs, 4)."""
        return self.read("xquat", "root")

    @property
    def root_link_pose_w(self) -> Tensor:
        """Position, then quaternion, of the root frame (num_envs, 7)."""
        return torch.cat((self.peek("xpos", "root"), self.peek("xquat", "root")), dim=-1)

    @property
    def root_link_lin_vel_w(self) -> Tensor:
        """Linear velocity of the root frame's origin (num_envs, 3)."""
        return self._root_velocity("xpos").clone()

    @property
    def root_link_ang_vel_w(self) -> Tensor:
        """Angular velocity of the root (num_envs, 3)."""
        return self.peek("cvel", "root")[:, 0:3].clone()

    @property
    def root_link_vel_w(self) -> Tensor:
        """Linear, then angular, velocity of the root frame (num_envs, 6)."""
        return torch.cat((self._root_velocity("xpos"), self._root_spin), dim=-1)

    @property
    def root_link_lin_vel_b(self) -> Tensor:
        """Linear velocity of the root frame's origin, in the root frame (num_envs, 3)."""
        return self._in_root_frame(self._root_velocity("xpos"))

    @property
    def root_link_ang_vel_b(self) -> Tensor:
        """Angular velocity of the root, in the root frame (num_envs, 3)."""
        return self._in_root_frame(self._root_spin)

    @property
    def root_com_pos_w(self) -> Tensor:
        """Position of the root's center of mass (num_envs, 3)."""
        return self.read("xipos", "root")

    @property
    def root_com_quat_w(self) -> Tensor:
        """Orientation of the root's principal axes of inertia (num_envs, 4)."""
        return quat_mul(self.peek("xquat", "root"), self.model.body_iquat[:, self._parts["root"]])

    @property
    def root_com_pose_w(self) -> Tensor:
        """Pose of the root's center of mass and principal axes (num_envs, 7)."""
        return torch.cat((self.peek("xipos", "root"), self.root_com_quat_w), dim=-1)

    @property
    def root_com_lin_vel_w(self) -> Tensor:
        """Linear velocity of the root's center of mass (num_envs, 3)."""
        return self._root_velocity("xipos").clone()

    @property
    def root_com_ang_vel_w(self) -> Tensor:
        """Angular velocity of the root (num_envs, 3)."""
        return self.root_link_ang_vel_w

    @property
    def root_com_vel_w(self) -> Tensor:
        """Linear, then angular, velocity at the root's center of mass (num_envs, 6)."""
        return torch.cat((self._root_velocity("xipos"), self._root_spin), dim=-1)

    @property
    def root_com_lin_vel_b(self) -> Tensor:
        """Linear velocity of the root's center of mass, in the root frame (num_envs, 3)."""
        return self._in_root_frame(self._root_velocity("xipos"))

    @property
    def root_com_ang_vel_b(self) -> Tensor:
        """Angular velocity of the root, in the root frame (num_envs, 3)."""
        return self.root_link_ang_vel_b

    @property
    def root_com_offset_w(self) -> Tensor:
        """Offset of the root's center of mass from its origin, in world axes (num_envs, 3)."""
        return self.peek("xipos", "root") - self.peek("xpos", "root")

    @property
    def projected_gravity_b(self) -> Tensor:
        """Direction of gravity in the root frame (num_envs, 3)."""
        return self._in_root_frame(self.gravity_vec_w)

    @property
    def heading_w(self) -> Tensor:
        """Angle of the root's forward axis around the world's z axis, in radians (num_envs,)."""
        rotation = self.peek("xmat", "root")
        forward = torch.bmm(rotation[:, :2], self.forward_vec_b.unsqueeze(-1))
        return torch.atan2(forward[:, 1, 0], forward[:, 0, 0])

    @property
    def _root_spin(self) -> Tensor:
        return self.peek("cvel", "root")[:, 0:3]

    def _root_velocity(self, point: str) -> Tensor:
        return self._linear_velocity(point, "root", "root", "root_tree")

    def _in_root_frame(self, vector: Tensor) -> Tensor:
        # The inverse rotation with MuJoCo's own matrix: one operation, where the quaternion
        # needs four.
        return torch.bmm(vector.unsqueeze(1), self.peek("xmat", "root")).squeeze(1)
