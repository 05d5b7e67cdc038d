"""Poses and velocities of an entity's bodies, geoms and sites."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mjlab_rec.entity.fields import EngineFields, Field
from mjlab_rec.utils.math import quat_mul


class FrameData(EngineFields):
    """Frames in the world: positions (m), quaternions (w, x, y, z), linear and angular velocity.

    Shapes are (num_envs, parts, ...). They date from the engine's last forward computation: after
    writing state or stepping the physics, call ``sim.forward()`` first to update them. Linear
    velocities are computed once until then, however many terms read them.
    """

    model: Any

    body_link_pos_w = Field("xpos", "body", "Positions of the body frames.")
    body_link_quat_w = Field("xquat", "body", "Orientations of the body frames.")
    body_com_pos_w = Field("xipos", "body", "Positions of the bodies' centers of mass.")
    body_external_wrench = Field(
        "xfrc_applied", "body", "Forces, then torques, applied from outside (num_bodies, 6)."
    )
    geom_pos_w = Field("geom_xpos", "geom", "Positions of the geoms.")
    site_pos_w = Field("site_xpos", "site", "Positions of the sites.")

    @property
    def body_link_pose_w(self) -> Tensor:
        """Positions, then quaternions, of the body frames: 7 numbers each."""
        return torch.cat((self.peek("xpos", "body"), self.peek("xquat", "body")), dim=-1)

    @property
    def body_link_vel_w(self) -> Tensor:
        """Linear, then angular, velocities of the body frames: 6 numbers each."""
        return self._velocity("xpos", "body", "body", "body_tree")

    @property
    def body_link_lin_vel_w(self) -> Tensor:
        """Linear velocities of the body frames."""
        return self._linear_velocity("xpos", "body", "body", "body_tree").clone()

    @property
    def body_link_ang_vel_w(self) -> Tensor:
        """Angular velocities of the bodies."""
        return self.peek("cvel", "body")[..., 0:3].clone()

    @property
    def body_com_quat_w(self) -> Tensor:
        """Orientations of the bodies' principal axes of inertia."""
        return quat_mul(self.peek("xquat", "body"), self.model.body_iquat[:, self._parts["body"]])

    @property
    def body_com_pose_w(self) -> Tensor:
        """Poses of the bodies' centers of mass and principal axes: 7 numbers each."""
        return torch.cat((self.peek("xipos", "body"), self.body_com_quat_w), dim=-1)

    @property
    def body_com_vel_w(self) -> Tensor:
        """Linear, then angular, velocities at the bodies' centers of mass: 6 numbers each."""
        return self._velocity("xipos", "body", "body", "body_tree")

    @property
    def body_com_lin_vel_w(self) -> Tensor:
        """Linear velocities of the bodies' centers of mass."""
        return self._linear_velocity("xipos", "body", "body", "body_tree").clone()

    @property
    def body_com_ang_vel_w(self) -> Tensor:
        """Angular velocities of the bodies."""
        return self.body_link_ang_vel_w

    @property
    def body_external_force(self) -> Tensor:
        """Forces applied to the bodies from outside."""
        return self.body_external_wrench[..., 0:3]

    @property
    def body_external_torque(self) -> Tensor:
        """Torques applied to the bodies from outside."""
        return self.body_external_wrench[..., 3:6]

    @property
    def geom_quat_w(self) -> Tensor:
        """Orientations of the geoms."""
        # From the body's quaternion; turning the geom's matrix into one costs five times as much.
        local = self.model.geom_quat[:, self._parts["geom"]]
        return quat_mul(self.peek("xquat", "geom_body"), local)

    @property
    def geom_pose_w(self) -> Tensor:
        """Poses of the geoms: 7 numbers each."""
        return torch.cat((self.peek("geom_xpos", "geom"), self.geom_quat_w), dim=-1)

    @property
    def geom_vel_w(self) -> Tensor:
        """Linear, then angular, velocities of the geoms: 6 numbers each."""
        return self._velocity("geom_xpos", "geom", "geom_body", "geom_tree")

    @property
    def geom_lin_vel_w(self) -> Tensor:
        """Linear velocities of the geoms."""
        return self._linear_velocity("geom_xpos", "geom", "geom_body", "geom_tree").clone()

    @property
    def geom_ang_vel_w(self) -> Tensor:
        """Angular velocities of the geoms."""
        return self.peek("cvel", "geom_body")[..., 0:3].clone()

    @property
    def site_quat_w(self) -> Tensor:
        """Orientations of the sites."""
        local = self.model.site_quat[:, self._parts["site"]]
        return quat_mul(self.peek("xquat", "site_body"), local)

    @property
    def site_pose_w(self) -> Tensor:
        """Poses of the sites: 7 numbers each."""
        return torch.cat((self.peek("site_xpos", "site"), self.site_quat_w), dim=-1)

    @property
    def site_vel_w(self) -> Tensor:
        """Linear, then angular, velocities of the sites: 6 numbers each."""
        return self._velocity("site_xpos", "site", "site_body", "site_tree")

    @property
    def site_lin_vel_w(self) -> Tensor:
        """Linear velocities of the sites."""
        return self._linear_velocity("site_xpos", "site", "site_body", "site_tree").clone()

    @property
    def site_ang_vel_w(self) -> Tensor:
        """Angular velocities of the sites."""
        return self.peek("cvel", "site_body")[..., 0:3].clone()

    def _linear_velocity(self, point: str, part: str, body: str, tree: str) -> Tensor:
        """Linear velocity at a point of each part. Do not write to it: it is kept for others."""

        def compute() -> Tensor:
            # cvel refers to the center of mass of the whole kinematic tree; move it to the point.
            cvel = self.peek("cvel", body)
            arm = self.peek(point, part) - self.peek("subtree_com", tree)
            return torch.linalg.cross(cvel[..., 0:3], arm).add_(cvel[..., 3:6])

        return self.derived(point, part, compute)

    def _velocity(self, point: str, part: str, body: str, tree: str) -> Tensor:
        angular = self.peek("cvel", body)[..., 0:3]
        return torch.cat((self._linear_velocity(point, part, body, tree), angular), dim=-1)
