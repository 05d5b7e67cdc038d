"""What a motion wants of the robot in the current frames, and what the robot does instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mjlab_rec.managers import CommandTerm
from mjlab_rec.utils.math import quat_apply, quat_conjugate, quat_mul, yaw_quat
from mjlab_rec.utils.string import nearest
from tasks.tracking.motion import ARRAYS, Motion

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from tasks.tracking.mdp.commands import MotionCommandCfg


class MotionReference(CommandTerm):
    """The motion and the robot side by side, under names that rewards and observations read.

    What is called ``robot_...`` is measured, all else is what the motion wants. Positions are in
    the world, with the motion about the origin of each environment. Do not write to any of it: the
    tensors are kept for others.

    Args:
        cfg: The config of the command.
        env: The environment.
        motion: The motion, a frame per control step.
    """

    cfg: MotionCommandCfg

    def __init__(self, cfg: MotionCommandCfg, env: ManagerBasedRlEnv, motion: Motion) -> None:
        super().__init__(cfg, env)
        if cfg.anchor_body_name not in cfg.body_names:
            raise ValueError(
                f"The anchor '{cfg.anchor_body_name}' must be one of body_names."
                f" {nearest(cfg.anchor_body_name, cfg.body_names)}"
            )
        self.robot = env.scene[cfg.entity_name]
        ids, _ = self.robot.find_bodies(cfg.body_names, preserve_order=True)
        self.body_indexes = torch.tensor(ids, device=self.device)
        self.robot_anchor_body_index = self.robot.body_names.index(cfg.anchor_body_name)
        self.motion_anchor_body_index = cfg.body_names.index(cfg.anchor_body_name)
        # The root comes last: episodes begin with it where the motion has it.
        names = (*cfg.body_names, self.robot.body_names[0])
        motion = motion.of_robot(self.robot.joint_names, names).to(self.device)
        # All arrays side by side, so that the frames of all of them are found in one operation.
        arrays = [getattr(motion, name) for name in ARRAYS]
        self._shapes = [array.shape[1:] for array in arrays]
        self._table = torch.cat([array.flatten(1) for array in arrays], dim=1)
        self.motion = replace(motion, **dict(zip(ARRAYS, self._split(self._table), strict=True)))
        self.time_steps = torch.zeros(env.num_envs, dtype=torch.long, device=self.device)
        self._kept: dict[str, Tensor] = {}
        self._kept_at = -1
        self._look_up()

    @property
    def command(self) -> Tensor:
        """Positions, then velocities, of the joints (num_envs, 2 * joints)."""
        return self._frame[:, : 2 * len(self.motion.joint_names)]

    @property
    def joint_pos(self) -> Tensor:
        """Positions of the joints (num_envs, joints)."""
        return self._parts[0]

    @property
    def joint_vel(self) -> Tensor:
        """Velocities of the joints (num_envs, joints)."""
        return self._parts[1]

    @property
    def body_pos_w(self) -> Tensor:
        """Positions of the tracked bodies (num_envs, bodies, 3)."""
        return self._parts[2][:, :-1]

    @property
    def body_quat_w(self) -> Tensor:
        """Orientations of the tracked bodies (num_envs, bodies, 4)."""
        return self._parts[3][:, :-1]

    @property
    def body_lin_vel_w(self) -> Tensor:
        """Linear velocities of the tracked bodies (num_envs, bodies, 3)."""
        return self._parts[4][:, :-1]

    @property
    def body_ang_vel_w(self) -> Tensor:
        """Angular velocities of the tracked bodies (num_envs, bodies, 3)."""
        return self._parts[5][:, :-1]

    @property
    def anchor_pos_w(self) -> Tensor:
        """Position of the anchor (num_envs, 3)."""
        return self._parts[2][:, self.motion_anchor_body_index]

    @property
    def anchor_quat_w(self) -> Tensor:
        """Orientation of the anchor (num_envs, 4)."""
        return self._parts[3][:, self.motion_anchor_body_index]

    @property
    def anchor_lin_vel_w(self) -> Tensor:
        """Linear velocity of the anchor (num_envs, 3)."""
        return self._parts[4][:, self.motion_anchor_body_index]

    @property
    def anchor_ang_vel_w(self) -> Tensor:
        """Angular velocity of the anchor (num_envs, 3)."""
        return self._parts[5][:, self.motion_anchor_body_index]

    @property
    def body_pos_relative_w(self) -> Tensor:
        """Where the bodies should be around the robot's own anchor (num_envs, bodies, 3).

        The motion is moved horizontally and turned about the vertical so that its anchor is where
        the robot's is. So the posture can be right although the robot drifted away.
        """
        return self._now("relative_pos", self._relative_pos)

    @property
    def body_quat_relative_w(self) -> Tensor:
        """How the bodies should be turned around the robot's own anchor (num_envs, bodies, 4)."""
        return self._now("relative_quat", lambda: quat_mul(self._turn()[:, None], self.body_quat_w))

    @property
    def robot_joint_pos(self) -> Tensor:
        """Measured positions of the joints (num_envs, joints)."""
        return self.robot.data.joint_pos

    @property
    def robot_joint_vel(self) -> Tensor:
        """Measured velocities of the joints (num_envs, joints)."""
        return self.robot.data.joint_vel

    @property
    def robot_body_pos_w(self) -> Tensor:
        """Measured positions of the tracked bodies (num_envs, bodies, 3)."""
        data = self.robot.data
        return self._now("pos", lambda: data.peek("xpos", "body")[:, self.body_indexes])

    @property
    def robot_body_quat_w(self) -> Tensor:
        """Measured orientations of the tracked bodies (num_envs, bodies, 4)."""
        data = self.robot.data
        return self._now("quat", lambda: data.peek("xquat", "body")[:, self.body_indexes])

    @property
    def robot_body_lin_vel_w(self) -> Tensor:
        """Measured linear velocities of the tracked bodies (num_envs, bodies, 3)."""
        data = self.robot.data
        return self._now("lin_vel", lambda: data.body_link_lin_vel_w[:, self.body_indexes])

    @property
    def robot_body_ang_vel_w(self) -> Tensor:
        """Measured angular velocities of the tracked bodies (num_envs, bodies, 3)."""
        data = self.robot.data
        return self._now("ang_vel", lambda: data.body_link_ang_vel_w[:, self.body_indexes])

    @property
    def robot_anchor_pos_w(self) -> Tensor:
        """Measured position of the anchor (num_envs, 3)."""
        return self.robot_body_pos_w[:, self.motion_anchor_body_index]

    @property
    def robot_anchor_quat_w(self) -> Tensor:
        """Measured orientation of the anchor (num_envs, 4)."""
        return self.robot_body_quat_w[:, self.motion_anchor_body_index]

    @property
    def robot_anchor_lin_vel_w(self) -> Tensor:
        """Measured linear velocity of the anchor (num_envs, 3)."""
        return self.robot_body_lin_vel_w[:, self.motion_anchor_body_index]

    @property
    def robot_anchor_ang_vel_w(self) -> Tensor:
        """Measured angular velocity of the anchor (num_envs, 3)."""
        return self.robot_body_ang_vel_w[:, self.motion_anchor_body_index]

    def _look_up(self) -> None:
        """Look the current frames up. Call it whenever ``time_steps`` changed."""
        self._frame = self._table[self.time_steps]
        self._parts = self._split(self._frame)
        self._parts[2] += self._env.scene.env_origins[:, None]
        self._kept_at = -1

    def _split(self, rows: Tensor) -> list[Tensor]:
        """Rows of the table as the motion's arrays, which share its memory."""
        parts = rows.split([shape.numel() for shape in self._shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _now(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What a function returns, kept while neither the robot nor the frame changes."""
        generation = self._env.sim.data.generation
        if self._kept_at != generation:
            self._kept.clear()
            self._kept_at = generation
        value = self._kept.get(name)
        if value is None:
            value = self._kept[name] = compute()
        return value

    def _turn(self) -> Tensor:
        """The turn about the vertical from the motion's anchor to the robot's (num_envs, 4)."""
        return self._now(
            "turn",
            lambda: yaw_quat(
                quat_mul(self.robot_anchor_quat_w, quat_conjugate(self.anchor_quat_w))
            ),
        )

    def _relative_pos(self) -> Tensor:
        place = torch.cat((self.robot_anchor_pos_w[:, :2], self.anchor_pos_w[:, 2:]), dim=1)
        arms = self.body_pos_w - self.anchor_pos_w[:, None]
        return place[:, None] + quat_apply(self._turn()[:, None], arms)
