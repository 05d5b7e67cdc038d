"""The motion of a whole robot, from where its root and its joints are."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from torch import Tensor

from mjlab_rec.entity import EntityCfg
from mjlab_rec.utils.math import normalize, quat_apply_inverse, quat_box_minus
from tasks.tracking.motion import MIN_FRAMES, Motion, MotionError, check_unit


class Robot:
    """The kinematics of a robot with a floating base: MuJoCo's own, without any simulation.

    Args:
        cfg: The robot, of which only the model counts.
    """

    def __init__(self, cfg: EntityCfg) -> None:
        self.model = cfg.spec_fn().compile()
        free = mujoco.mjtJoint.mjJNT_FREE
        if self.model.njnt == 0 or self.model.jnt_type[0] != free or self.model.body_jntadr[1] != 0:
            raise MotionError(
                "Motions are for robots with a floating base: the first body of the model must"
                " have a free joint."
            )
        names = [self.model.joint(i).name for i in range(1, self.model.njnt)]
        if self.model.nq != 7 + len(names):
            raise MotionError("Motions are for robots whose joints are all hinges or slides.")
        self.joint_names: tuple[str, ...] = tuple(names)
        self.body_names: tuple[str, ...] = tuple(
            self.model.body(i).name for i in range(1, self.model.nbody)
        )

    def motion(
        self,
        fps: float,
        root_pos: Tensor,
        root_quat: Tensor,
        joint_pos: Tensor,
        velocity: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Motion:
        """Return the motion of all joints and bodies.

        Args:
            fps: Frames per second.
            root_pos: Positions of the root (frames, 3).
            root_quat: Orientations of the root, (w, x, y, z) (frames, 4).
            joint_pos: Positions of the joints (frames, joints).
            velocity: Linear and angular velocity of the root, in the world, and velocities of the
                joints; None computes them from the positions of the frames before and after.
        """
        root_pos, root_quat, joint_pos = (v.double() for v in (root_pos, root_quat, joint_pos))
        self._check(root_pos, root_quat, joint_pos)
        root_quat = normalize(root_quat)
        if velocity is None:
            velocity = (
                torch.gradient(root_pos, spacing=1.0 / fps, dim=0)[0],
                _angular_velocity(root_quat, fps),
                torch.gradient(joint_pos, spacing=1.0 / fps, dim=0)[0],
            )
        lin_vel, ang_vel, joint_vel = (v.double() for v in velocity)
        qpos = torch.cat((root_pos, root_quat, joint_pos), dim=1)
        # MuJoCo has the angular velocity of a free joint in the frame of its body.
        qvel = torch.cat((lin_vel, quat_apply_inverse(root_quat, ang_vel), joint_vel), dim=1)
        return Motion(
            fps=fps,
            joint_names=self.joint_names,
            body_names=self.body_names,
            joint_pos=joint_pos.float(),
            joint_vel=joint_vel.float(),
            **self._bodies(qpos.numpy(), qvel.numpy()),
        )

    def site_pos(self, joint_pos: Tensor, sites: Sequence[str]) -> Tensor:
        """Positions of sites while the root is at the origin: (frames, sites, 3)."""
        data = mujoco.MjData(self.model)
        data.qpos[:7] = (0, 0, 0, 1, 0, 0, 0)
        ids = [self.model.site(name).id for name in sites]
        places = np.empty((len(joint_pos), len(ids), 3))
        for place, joints in zip(places, joint_pos.double().numpy(), strict=True):
            data.qpos[7:] = joints
            mujoco.mj_kinematics(self.model, data)
            place[:] = data.site_xpos[ids]
        return torch.from_numpy(places)

    def _check(self, root_pos: Tensor, root_quat: Tensor, joint_pos: Tensor) -> None:
        frames, joints = len(joint_pos), len(self.joint_names)
        if frames < MIN_FRAMES:
            raise MotionError(
                f"The motion is too short: it has {frames} frames, but needs {MIN_FRAMES}."
            )
        if joint_pos.shape[1] != joints:
            raise MotionError(
                f"The motion has {joint_pos.shape[1]} joints, but the robot has {joints}:"
                f" {', '.join(self.joint_names)}."
            )
        for value, what in ((root_pos, "position"), (root_quat, "rotation"), (joint_pos, "joints")):
            bad = ~value.isfinite().all(dim=1)
            if bad.any():
                raise MotionError(
                    f"The motion has a number that is not finite in frame {int(bad.nonzero()[0])},"
                    f" in the {'root' if what != 'joints' else 'robot'}'s {what}."
                )
        check_unit(root_quat, "The root")

    def _bodies(self, qpos: np.ndarray, qvel: np.ndarray) -> dict[str, Tensor]:
        """Poses and velocities of the bodies, by the names of a motion's arrays."""
        model, data = self.model, mujoco.MjData(self.model)
        count = model.nbody - 1
        pos, lin, ang = (np.empty((len(qpos), count, 3), np.float32) for _ in range(3))
        quat = np.empty((len(qpos), count, 4), np.float32)
        tree = model.body_rootid[1:]
        for i in range(len(qpos)):
            data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_comVel(model, data)
            pos[i], quat[i] = data.xpos[1:], data.xquat[1:]
            ang[i] = data.cvel[1:, :3]
            # cvel is the velocity at the center of mass of the whole robot.
            arm = data.xpos[1:] - data.subtree_com[tree]
            lin[i] = data.cvel[1:, 3:] + np.cross(data.cvel[1:, :3], arm)
        return {
            "body_pos_w": torch.from_numpy(pos),
            "body_quat_w": torch.from_numpy(quat),
            "body_lin_vel_w": torch.from_numpy(lin),
            "body_ang_vel_w": torch.from_numpy(ang),
        }


def _angular_velocity(quat: Tensor, fps: float) -> Tensor:
    """Angular velocity in the world from the frames before and after (frames, 3)."""
    frame = torch.arange(len(quat))
    before, after = (frame - 1).clamp(min=0), (frame + 1).clamp(max=len(quat) - 1)
    return quat_box_minus(quat[after], quat[before]) * (fps / (after - before))[:, None]
