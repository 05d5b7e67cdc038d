"""Poses from recorded states: where geoms, cameras and contacts are in each row of a block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.data.schema import Block
from mjlab_rec.recorders.channels import Source
from mjlab_rec.sim.snapshot import DRAWN_FIELDS, PosedModel, Snapshot
from mjlab_rec.utils.math import quat_from_matrix

PREFIX = "pose/"
"""Prefix of the channels from which poses are computed."""

# Prefixes of the visible fields that place or shape geoms, cameras and contacts.
_NEEDED = ("qpos0", "body_", "jnt_", "geom_", "cam_", "mat_rgba")

# What MuJoCo checks before it computes the contacts of two geoms.
_CONTACT_FIELDS = ("geom_rbound", "geom_aabb", "geom_margin", "geom_gap")


def pose_sources(env: Any, contacts: bool) -> list[Source]:
    """What must be recorded in every step to compute poses from it later.

    Args:
        env: The environment.
        contacts: Whether contacts are computed as well.
    """
    sim = env.sim
    readers: dict[str, Any] = {}
    if sim.mj_model.nq:
        readers["qpos"] = lambda: sim.data.qpos
    if sim.mj_model.nmocap:
        readers["mocap_pos"] = lambda: sim.data.mocap_pos
        readers["mocap_quat"] = lambda: sim.data.mocap_quat
    for field in model_fields(env, contacts):
        readers[field] = lambda field=field: getattr(sim.model, field)
    # Read as a step's result, which at an episode's last step is before the reset.
    return [Source(name=PREFIX + name, read=read, exact=True) for name, read in readers.items()]


def model_fields(env: Any, contacts: bool) -> list[str]:
    """Model fields that differ between worlds and place what is visible."""
    needed = [field for field in DRAWN_FIELDS if field.startswith(_NEEDED)]
    return [
        field
        for field in (*needed, *(_CONTACT_FIELDS if contacts else ()))
        if field in env.sim.expanded_fields
    ]


@dataclass
class Poses:
    """Poses of geoms, cameras and contacts; quaternions are xyzw, as in Rerun."""

    geom_pos: np.ndarray  # (rows, num_envs, geoms, 3) float32
    geom_quat: np.ndarray  # (rows, num_envs, geoms, 4) float32
    camera_pos: np.ndarray  # (rows, cameras, 3) float32, of the first environment
    camera_quat: np.ndarray  # (rows, cameras, 4) float32
    contacts: list[list[tuple[int, np.ndarray]]]  # per row: env_index and its points (n, 3)


class ForwardKinematics:
    """Computes poses with MuJoCo's kinematics, on the host.

    Args:
        model: The compiled model.
        contacts: Whether to find contacts as well.
    """

    def __init__(self, model: mujoco.MjModel, contacts: bool) -> None:
        self._posed = PosedModel(model)
        # The midphase uses bounding boxes that were computed for the compiled sizes.
        self._posed.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        self._contacts = contacts

    def poses(self, block: Block, wanted: np.ndarray) -> Poses:
        """Poses of a block's wanted rows and environments (rows, num_envs); the others are zero."""
        names = [name for name in block.arrays if name.startswith(PREFIX)]
        arrays = {name.removeprefix(PREFIX): block.arrays[name] for name in names}
        count = block.rows * block.num_envs
        layout, columns, start = {}, [], 0
        for name, array in arrays.items():
            size = int(np.prod(array.shape[2:], dtype=int))
            layout[name] = slice(start, start + size), array.shape[2:]
            columns.append(np.asarray(array, np.float32).reshape(count, size))
            start += size
        if "qpos" not in layout:
            layout["qpos"] = slice(0, 0), (0,)
        values = np.concatenate(columns, axis=1) if columns else np.zeros((count, 0), np.float32)
        rows = Snapshot(tuple(range(count)), torch.from_numpy(values), layout)
        return self._poses(rows, wanted, arrays.get("geom_quat"))

    def _poses(self, states: Snapshot, wanted: np.ndarray, geom_quat: np.ndarray | None) -> Poses:
        model, (rows, num_envs) = self._posed.model, wanted.shape
        place = np.zeros((rows, num_envs, model.ngeom, 3), np.float32)
        body_quat = np.zeros((rows, num_envs, model.nbody, 4), np.float32)
        body_quat[..., 0] = 1.0
        camera = np.zeros((rows, model.ncam, 3), np.float32)
        turn = np.zeros((rows, model.ncam, 9), np.float32)
        contacts: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(rows)]
        for row, env_index in np.argwhere(wanted):
            data = self._posed.pose(states, int(row * num_envs + env_index))
            place[row, env_index] = data.geom_xpos
            body_quat[row, env_index] = data.xquat
            if env_index == 0:
                camera[row] = data.cam_xpos
                turn[row] = data.cam_xmat
            if self._contacts:
                contacts[row].append((int(env_index), self._contact_points(data)))
        if geom_quat is None:
            geom_quat = np.asarray(model.geom_quat, np.float32)
        geom_quat = _product(body_quat[:, :, model.geom_bodyid], geom_quat)
        matrices = torch.from_numpy(turn.reshape(rows, model.ncam, 3, 3))
        camera_quat = quat_from_matrix(matrices).numpy() if model.ncam else turn[..., :4]
        return Poses(place, _real_last(geom_quat), camera, _real_last(camera_quat), contacts)

    def _contact_points(self, data: mujoco.MjData) -> np.ndarray:
        mujoco.mj_collision(self._posed.model, data)
        # Contacts that are close but not within the margin exert no force.
        return data.contact.pos[data.contact.exclude == 0].astype(np.float32)


def unmoved(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Positions (ngeom, 3) and quaternions (ngeom, 4) of all geoms in the compiled model."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    matrices = torch.from_numpy(data.geom_xmat.reshape(-1, 3, 3))
    return data.geom_xpos.astype(np.float32), _real_last(quat_from_matrix(matrices).float().numpy())


def joined(points: Iterable[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All points (n, 3), and the number of points per row."""
    rows = [np.concatenate(row) if row else np.zeros((0, 3), np.float32) for row in points]
    lengths = np.array([len(row) for row in rows], np.int64)
    return np.concatenate(rows) if rows else np.zeros((0, 3), np.float32), lengths


def _product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # Not quat_mul: torch would use threads that the simulation needs.
    a, b, c, d = (first[..., i] for i in range(4))
    w, x, y, z = (second[..., i] for i in range(4))
    parts = (a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y)
    parts += (a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w)
    return np.stack(parts, axis=-1)


def _real_last(quat: np.ndarray) -> np.ndarray:
    return np.roll(quat, -1, axis=-1)
