"""Everything that can be read from an entity, and the targets of its actuators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from mjlab_rec.actuator import TransmissionType
from mjlab_rec.entity.fields import Field
from mjlab_rec.entity.indexing import EntityIndexing
from mjlab_rec.entity.root_data import RootData
from mjlab_rec.entity.targets import Targets
from mjlab_rec.utils.buffers import DelayBuffer
from mjlab_rec.utils.indexing import Columns, EnvIds, Index, as_index, write_block

if TYPE_CHECKING:
    from mjlab_rec.entity.entity import Entity


class EntityData(RootData):
    """State of an entity in all worlds, batched: (num_envs, ...).

    Whatever is read from the simulation is a copy, which later steps do not change. Targets,
    defaults and limits are this object's own tensors; change them in place.
    """

    joint_pos = Field("qpos", "joint_q", "Joint positions (num_envs, num_joints).")
    joint_vel = Field("qvel", "joint_v", "Joint velocities (num_envs, num_joints).")
    joint_acc = Field("qacc", "joint_v", "Joint accelerations (num_envs, num_joints).")
    qfrc_actuator = Field(
        "qfrc_actuator", "joint_v", "Forces of all actuators on the joints (num_envs, num_joints)."
    )
    actuator_force = Field(
        "actuator_force", "ctrl", "Forces of the actuators before gears (num_envs, num_actuators)."
    )
    tendon_len = Field("ten_length", "tendon", "Tendon lengths (num_envs, num_tendons).")
    tendon_vel = Field("ten_velocity", "tendon", "Tendon velocities (num_envs, num_tendons).")

    def __init__(
        self,
        entity: Entity,
        indexing: EntityIndexing,
        mj_model: mujoco.MjModel,
        model: Any,
        data: Any,
        device: str,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__(data, _parts(indexing, mj_model, device))
        self.indexing = indexing
        """Where the entity's parts are in the model."""
        self.model = model
        """The simulation's model fields, for all entities together."""
        self.device = device
        self.num_envs: int = data.nworld
        self.generator = generator
        """Source of the randomness in actuator delays."""
        self.delays: list[DelayBuffer] = []
        """Every delay between targets and ctrl."""

        self.is_fixed_base = entity.is_fixed_base
        self.is_articulated = entity.is_articulated
        self.is_actuated = entity.is_actuated
        start = entity.initial_state
        self.default_root_state = self._for_all_worlds(start.root)
        """Initial pose and, for a floating base, velocities (num_envs, 7 or 13)."""
        self.default_joint_pos = self._for_all_worlds(start.joint_pos)
        self.default_joint_vel = self._for_all_worlds(start.joint_vel)
        hard, soft = entity.joint_limits(mj_model)
        self.default_joint_pos_limits = self._for_all_worlds(hard)
        self.joint_pos_limits = self._for_all_worlds(hard)
        """Joint limits (num_envs, num_joints, 2); infinite for joints without limits."""
        self.soft_joint_pos_limits = self._for_all_worlds(soft)
        """Soft limits: the hard ones, narrowed by the config's factor."""
        self.gravity_vec_w = self._for_all_worlds([0.0, 0.0, -1.0])
        self.forward_vec_b = self._for_all_worlds([1.0, 0.0, 0.0])
        self.encoder_bias = torch.zeros_like(self.default_joint_pos)
        """Joint encoder readings minus true positions (num_envs, num_joints)."""

        used = {act.transmission_type for act in entity.actuators}
        counts = {
            TransmissionType.JOINT: entity.num_joints if entity.is_actuated else 0,
            TransmissionType.TENDON: entity.num_tendons if TransmissionType.TENDON in used else 0,
            TransmissionType.SITE: entity.num_sites if TransmissionType.SITE in used else 0,
        }
        self.targets = Targets(self.num_envs, counts, device)
        self.joint_pos_target = self.targets.view("joint_pos_target")
        self.joint_vel_target = self.targets.view("joint_vel_target")
        self.joint_effort_target = self.targets.view("joint_effort_target")
        self.tendon_len_target = self.targets.view("tendon_len_target")
        self.tendon_vel_target = self.targets.view("tendon_vel_target")
        self.tendon_effort_target = self.targets.view("tendon_effort_target")
        self.site_effort_target = self.targets.view("site_effort_target")

    @property
    def joint_pos_biased(self) -> Tensor:
        """Joint positions as the encoders read them (num_envs, num_joints)."""
        return self.peek("qpos", "joint_q") + self.encoder_bias

    @property
    def qfrc_external(self) -> Tensor:
        """Joint forces due to wrenches applied to bodies (num_envs, num_joints)."""
        # MuJoCo does not keep them, but
        # qfrc_smooth = qfrc_passive - qfrc_bias + qfrc_applied + qfrc_actuator + these.
        force = self.read("qfrc_smooth", "joint_v")
        for name in ("qfrc_actuator", "qfrc_applied", "qfrc_passive"):
            force -= self.peek(name, "joint_v")
        return force.add_(self.peek("qfrc_bias", "joint_v"))

    def clear_state(self, env_ids: EnvIds = None) -> None:
        """Set all targets of the given worlds to zero."""
        write_block(self.targets.all, 0.0, env_ids)

    def state_columns(self, kind: TransmissionType, ids: Tensor) -> tuple[Columns, Columns]:
        """Return positions and velocities of the given joints or tendons, for their actuators."""
        if kind == TransmissionType.TENDON:
            index = as_index(self.indexing.tendon_ids[ids].tolist(), self.device)
            return Columns(self.data.ten_length, index), Columns(self.data.ten_velocity, index)
        q = as_index(self.indexing.joint_q_adr[ids].tolist(), self.device)
        v = as_index(self.indexing.joint_v_adr[ids].tolist(), self.device)
        return Columns(self.data.qpos, q), Columns(self.data.qvel, v)

    def _for_all_worlds(self, values: list[float] | Tensor) -> Tensor:
        row = torch.as_tensor(values, dtype=torch.float32, device=self.device)
        return row.expand(self.num_envs, *row.shape).clone()


def _parts(indexing: EntityIndexing, model: mujoco.MjModel, device: str) -> dict[str, Index | int]:
    """Return the columns of the engine's arrays that belong to each part of the entity."""
    body_ids = indexing.body_ids.tolist()
    geom_bodies = model.geom_bodyid[indexing.geom_ids.tolist()]
    site_bodies = model.site_bodyid[indexing.site_ids.tolist()]
    free_q, free_v = indexing.free_joint_q_adr.tolist(), indexing.free_joint_v_adr.tolist()

    def index(ids: Any) -> Index:
        return as_index([int(i) for i in ids], device)

    def trees(bodies: Any) -> Index:
        roots = model.body_rootid[bodies]
        # With one tree for all of them, it broadcasts and needs no gather.
        same = len(roots) > 0 and bool(np.all(roots == roots[0]))
        return index(roots[:1] if same else roots)

    return {
        "body": index(body_ids),
        "body_tree": trees(body_ids),
        "geom": index(indexing.geom_ids),
        "geom_body": index(geom_bodies),
        "geom_tree": trees(geom_bodies),
        "site": index(indexing.site_ids),
        "site_body": index(site_bodies),
        "site_tree": trees(site_bodies),
        "tendon": index(indexing.tendon_ids),
        "ctrl": index(indexing.ctrl_ids),
        "joint_q": index(indexing.joint_q_adr),
        "joint_v": index(indexing.joint_v_adr),
        "root": indexing.root_body_id,
        "root_tree": int(model.body_rootid[indexing.root_body_id]),
        "free_q": index(free_q),
        "free_quat": index(free_q[3:]),
        "free_v": index(free_v),
    }
