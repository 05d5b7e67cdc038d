"""Writing an entity's state, targets and outside forces into the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mjlab_rec.entity.names import EntityNames
from mjlab_rec.utils.indexing import EnvIds, Index, rows_for, write_block
from mjlab_rec.utils.math import quat_apply, quat_apply_inverse

if TYPE_CHECKING:
    from mjlab_rec.entity.data import EntityData

PartIds = Tensor | slice | Sequence[int] | None


class EntityWrites(EntityNames):
    """Methods that set an entity's state and targets in the given worlds.

    Worlds are an index tensor, a boolean mask, a slice, or None for all. Values have one row per
    chosen world; with a mask they may instead have a row per world of the batch, which avoids a
    wait on a GPU. Everything is in the world frame unless a name ends in ``_b``. Poses and
    velocities of bodies, the root included, follow at the next ``sim.forward()``: do not read them
    in the function that writes.
    """

    data: EntityData

    def write_root_state_to_sim(self, root_state: Tensor, env_ids: EnvIds = None) -> None:
        """Set position (3), quaternion (4), linear (3) and angular velocity (3) of the root."""
        self._check_root(root_state, 13, "root state")
        self.write_root_link_pose_to_sim(root_state[:, :7], env_ids)
        self.write_root_link_velocity_to_sim(root_state[:, 7:], env_ids)

    def write_root_link_pose_to_sim(self, root_pose: Tensor, env_ids: EnvIds = None) -> None:
        """Set position (3) and quaternion (4) of a floating root."""
        self._check_root(root_pose, 7, "root pose")
        write_block(self.data.data.qpos, root_pose, env_ids, self.data.part("free_q"))

    def write_root_link_velocity_to_sim(
        self, root_velocity: Tensor, env_ids: EnvIds = None
    ) -> None:
        """Set linear and angular velocity at the root frame's origin."""
        self._check_root(root_velocity, 6, "root velocity")
        quat = self._root_quat_for(root_velocity, env_ids)
        angular_b = quat_apply_inverse(quat, root_velocity[:, 3:])
        self._write_free_velocity(root_velocity[:, :3], angular_b, env_ids)

    def write_root_link_velocity_b_to_sim(
        self, root_velocity_b: Tensor, env_ids: EnvIds = None
    ) -> None:
        """Set linear and angular velocity at the root frame's origin, given in the root frame."""
        self._check_root(root_velocity_b, 6, "root velocity")
        quat = self._root_quat_for(root_velocity_b, env_ids)
        linear_w = quat_apply(quat, root_velocity_b[:, :3])
        self._write_free_velocity(linear_w, root_velocity_b[:, 3:], env_ids)

    def write_root_com_velocity_to_sim(self, root_velocity: Tensor, env_ids: EnvIds = None) -> None:
        """Set linear velocity at the root's center of mass, and angular velocity."""
        self._check_root(root_velocity, 6, "root velocity")
        # From the pose in the state: the body's own pose follows only at the next forward().
        offset = self.data.model.body_ipos[:, self.data.indexing.root_body_id]
        quat = self._root_quat_for(root_velocity, env_ids)
        arm = quat_apply(quat, rows_for(offset, root_velocity, env_ids))
        angular = root_velocity[:, 3:]
        linear = root_velocity[:, :3] - torch.linalg.cross(angular, arm)
        self.write_root_link_velocity_to_sim(torch.cat((linear, angular), dim=-1), env_ids)

    def write_joint_state_to_sim(
        self,
        position: Tensor,
        velocity: Tensor,
        joint_ids: PartIds = None,
        env_ids: EnvIds = None,
    ) -> None:
        """Set joint positions and velocities."""
        self.write_joint_position_to_sim(position, joint_ids, env_ids)
        self.write_joint_velocity_to_sim(velocity, joint_ids, env_ids)

    def write_joint_position_to_sim(
        self, position: Tensor, joint_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set joint positions."""
        write_block(self.data.data.qpos, position, env_ids, self._joint_columns("q", joint_ids))

    def write_joint_velocity_to_sim(
        self, velocity: Tensor, joint_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set joint velocities."""
        write_block(self.data.data.qvel, velocity, env_ids, self._joint_columns("v", joint_ids))

    def write_mocap_pose_to_sim(self, mocap_pose: Tensor, env_ids: EnvIds = None) -> None:
        """Set position (3) and quaternion (4) of a fixed base."""
        mocap_id = self.data.indexing.mocap_id
        if mocap_id is None:
            raise ValueError(
                f"{self._title()} has no mocap base, so there is no mocap pose to write. "
                "Use write_root_link_pose_to_sim() for a floating base."
            )
        self._check_width(mocap_pose, 7, "mocap pose")
        write_block(self.data.data.mocap_pos[:, mocap_id], mocap_pose[:, :3], env_ids)
        write_block(self.data.data.mocap_quat[:, mocap_id], mocap_pose[:, 3:], env_ids)

    def write_external_wrench_to_sim(
        self,
        forces: Tensor | None,
        torques: Tensor | None,
        env_ids: EnvIds = None,
        body_ids: PartIds = None,
    ) -> None:
        """Push and twist bodies, each (rows, num_bodies, 3), until overwritten or reset.

        None leaves forces, or torques, as they are.
        """
        columns = self._columns("body", body_ids, self.data.indexing.body_ids)
        applied = self.data.data.xfrc_applied
        for half, values in ((slice(0, 3), forces), (slice(3, 6), torques)):
            if values is not None:
                write_block(applied[:, :, half], values, env_ids, columns)

    def write_ctrl_to_sim(
        self, ctrl: Tensor, ctrl_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set ctrl itself; the actuators overwrite theirs in the next physics step."""
        columns = self._columns("ctrl", ctrl_ids, self.data.indexing.ctrl_ids)
        write_block(self.data.data.ctrl, ctrl, env_ids, columns)

    def set_joint_position_target(
        self, position: Tensor, joint_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set joint position targets."""
        self._set_target("joint_pos_target", position, joint_ids, env_ids)

    def set_joint_velocity_target(
        self, velocity: Tensor, joint_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set joint velocity targets."""
        self._set_target("joint_vel_target", velocity, joint_ids, env_ids)

    def set_joint_effort_target(
        self, effort: Tensor, joint_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set joint force or torque targets."""
        self._set_target("joint_effort_target", effort, joint_ids, env_ids)

    def set_tendon_len_target(
        self, length: Tensor, tendon_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set tendon length targets."""
        self._set_target("tendon_len_target", length, tendon_ids, env_ids)

    def set_tendon_vel_target(
        self, velocity: Tensor, tendon_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set tendon velocity targets."""
        self._set_target("tendon_vel_target", velocity, tendon_ids, env_ids)

    def set_tendon_effort_target(
        self, effort: Tensor, tendon_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set tendon force targets."""
        self._set_target("tendon_effort_target", effort, tendon_ids, env_ids)

    def set_site_effort_target(
        self, effort: Tensor, site_ids: PartIds = None, env_ids: EnvIds = None
    ) -> None:
        """Set force targets at sites."""
        self._set_target("site_effort_target", effort, site_ids, env_ids)

    def _set_target(self, name: str, values: Tensor, ids: PartIds, env_ids: EnvIds) -> None:
        target: Tensor = getattr(self.data, name)
        whole = ids is None or (isinstance(ids, slice) and ids == slice(0, target.shape[1]))
        if whole and env_ids is None and target.shape == values.shape:
            target.copy_(values)  # Every step takes this path.
            return
        if target.shape[1] == 0:
            kind = name.split("_")[0]
            raise ValueError(
                f"{self._title()} has no actuators on {kind}s, so a {name} has no effect. "
                "Add some to EntityCfg.articulation."
            )
        if ids is None or isinstance(ids, (slice, Tensor)):
            columns = ids
        else:
            columns = torch.tensor(list(ids), dtype=torch.long, device=target.device)
        write_block(target, values, env_ids, columns)

    def _write_free_velocity(self, linear_w: Tensor, angular_b: Tensor, env_ids: EnvIds) -> None:
        # A free joint's qvel: linear in the world frame, angular in the body's.
        velocity = torch.cat((linear_w, angular_b), dim=-1)
        write_block(self.data.data.qvel, velocity, env_ids, self.data.part("free_v"))

    def _root_quat_for(self, values: Tensor, env_ids: EnvIds) -> Tensor:
        return rows_for(self.data.peek("qpos", "free_quat"), values, env_ids)

    def _joint_columns(self, kind: str, joint_ids: PartIds) -> Index:
        indexing = self.data.indexing
        if not indexing.joints:
            raise ValueError(f"{self._title()} has no joints to write.")
        columns = indexing.joint_q_adr if kind == "q" else indexing.joint_v_adr
        if joint_ids is not None and len(columns) != len(indexing.joints):
            raise ValueError(
                f"{self._title()} has ball joints, which have several numbers each, so joint_ids "
                "would be ambiguous. Write all joints at once: joint_ids=None."
            )
        return self._columns(f"joint_{kind}", joint_ids, columns)

    def _columns(self, part: str, ids: PartIds, all_columns: Tensor) -> Index:
        """Return an engine array's columns for parts given by their indices in the entity."""
        everything = self.data.part(part)
        if ids is None:
            return everything
        if isinstance(ids, slice) and isinstance(everything, slice):
            picked = range(everything.start, everything.stop)[ids]
            if picked.step == 1:
                return slice(picked.start, picked.stop)
        if not isinstance(ids, (slice, Tensor)):
            ids = torch.tensor(list(ids), dtype=torch.long, device=all_columns.device)
        return all_columns[ids]

    def _check_root(self, values: Tensor, width: int, what: str) -> None:
        if self.data.is_fixed_base:
            raise ValueError(
                f"{self._title()} has a fixed base, so its {what} cannot be written. "
                "Use write_mocap_pose_to_sim() to place it."
            )
        self._check_width(values, width, what)

    def _check_width(self, values: Tensor, width: int, what: str) -> None:
        if values.shape[-1] != width:
            raise ValueError(
                f"{self._title()}: a {what} has {width} numbers, got {values.shape[-1]} "
                f"(shape {tuple(values.shape)})."
            )

    def _title(self) -> str:
        return f"Entity '{self.name}'" if self.name else "The entity"
