"""Where an entity's parts are in the compiled model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import torch

from mjlab_rec.entity.names import EntityNames
from mjlab_rec.utils.mujoco import dof_width, qpos_width


@dataclass
class EntityIndexing:
    """Indices of an entity's parts in the model's arrays, in the entity's order."""

    bodies: tuple[mujoco.MjsBody, ...]
    joints: tuple[mujoco.MjsJoint, ...]
    geoms: tuple[mujoco.MjsGeom, ...]
    sites: tuple[mujoco.MjsSite, ...]
    tendons: tuple[mujoco.MjsTendon, ...]
    cameras: tuple[mujoco.MjsCamera, ...]
    lights: tuple[mujoco.MjsLight, ...]
    materials: tuple[mujoco.MjsMaterial, ...]
    textures: tuple[mujoco.MjsTexture, ...]
    pairs: tuple[mujoco.MjsPair, ...]
    actuators: tuple[mujoco.MjsActuator, ...] | None

    body_ids: torch.Tensor
    geom_ids: torch.Tensor
    site_ids: torch.Tensor
    tendon_ids: torch.Tensor
    cam_ids: torch.Tensor
    light_ids: torch.Tensor
    mat_ids: torch.Tensor
    tex_ids: torch.Tensor
    pair_ids: torch.Tensor
    ctrl_ids: torch.Tensor
    joint_ids: torch.Tensor
    root_body_id: int
    """Index of the root body: the one with the free joint, or the first one."""
    mocap_id: int | None
    """Row of mocap_pos that moves the root, for a movable fixed base."""

    joint_q_adr: torch.Tensor
    """Columns of qpos that belong to joints; a ball joint has four."""
    joint_v_adr: torch.Tensor
    """Columns of qvel that belong to joints; a ball joint has three."""
    free_joint_q_adr: torch.Tensor
    """The seven columns of qpos of a floating base, or none."""
    free_joint_v_adr: torch.Tensor
    """The six columns of qvel of a floating base, or none."""


def compute_indexing(
    entity: EntityNames, model: mujoco.MjModel, is_actuated: bool, device: str
) -> EntityIndexing:
    """Look up an entity's parts in the compiled model."""

    def tensor(ids: list[int]) -> torch.Tensor:
        return torch.tensor(ids, dtype=torch.long, device=device)

    def ids_of(elements: tuple[Any, ...]) -> torch.Tensor:
        return tensor([element.id for element in elements])

    bodies, joints = entity.elements_of("body"), entity.elements_of("joint")
    geoms, sites = entity.elements_of("geom"), entity.elements_of("site")
    tendons, pairs = entity.elements_of("tendon"), entity.elements_of("pair")
    cameras, lights = entity.elements_of("camera"), entity.elements_of("light")
    materials, textures = entity.elements_of("material"), entity.elements_of("texture")
    actuators = entity.elements_of("actuator") if is_actuated else ()

    joint_q, joint_v, free_q, free_v = [], [], [], []
    root = bodies[0].id if bodies else 0
    for body in bodies:
        start, count = int(model.body_jntadr[body.id]), int(model.body_jntnum[body.id])
        for joint in range(start, start + count):
            kind = int(model.jnt_type[joint])
            q, v = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
            is_free = kind == mujoco.mjtJoint.mjJNT_FREE
            root = body.id if is_free else root
            (free_q if is_free else joint_q).extend(range(q, q + qpos_width(kind)))
            (free_v if is_free else joint_v).extend(range(v, v + dof_width(kind)))

    mocap_id = int(model.body_mocapid[root]) if bodies else -1
    return EntityIndexing(
        bodies=bodies,
        joints=joints,
        geoms=geoms,
        sites=sites,
        tendons=tendons,
        cameras=cameras,
        lights=lights,
        materials=materials,
        textures=textures,
        pairs=pairs,
        actuators=actuators if is_actuated else None,
        body_ids=ids_of(bodies),
        geom_ids=ids_of(geoms),
        site_ids=ids_of(sites),
        tendon_ids=ids_of(tendons),
        cam_ids=ids_of(cameras),
        light_ids=ids_of(lights),
        mat_ids=ids_of(materials),
        tex_ids=ids_of(textures),
        pair_ids=ids_of(pairs),
        ctrl_ids=ids_of(actuators),
        joint_ids=ids_of(joints),
        root_body_id=root,
        mocap_id=mocap_id if mocap_id >= 0 else None,
        joint_q_adr=tensor(joint_q),
        joint_v_adr=tensor(joint_v),
        free_joint_q_adr=tensor(free_q),
        free_joint_v_adr=tensor(free_v),
    )
