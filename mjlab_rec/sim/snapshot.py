"""The visible state of some worlds, on the host, and a model that takes their poses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch

# Per-world model fields that change where things are or how they look. The others, gains and
# friction for example, are not copied.
_MASSES = ("body_mass", "body_subtreemass", "body_ipos")
DRAWN_FIELDS = (
    *_MASSES,  # These matter only to cameras and lights that follow a centre of mass.
    *("qpos0", "body_pos", "body_quat", "jnt_pos", "jnt_axis"),
    *("geom_pos", "geom_quat", "geom_size", "geom_rgba", "geom_matid"),
    "geom_dataid",
    *("site_pos", "site_quat", "site_size", "site_rgba", "site_matid"),
    *("cam_pos", "cam_quat", "cam_fovy", "cam_intrinsic", "cam_pos0", "cam_poscom0", "cam_mat0"),
    *("light_pos", "light_dir", "light_pos0", "light_poscom0", "light_dir0", "light_diffuse"),
    *("light_ambient", "light_specular", "mat_rgba", "mat_texid", "mat_texrepeat", "mat_emission"),
    *("mat_specular", "mat_shininess", "mat_reflectance", "tendon_width", "tendon_rgba"),
)


_STATE = ("qpos", "mocap_pos", "mocap_quat")


@dataclass(frozen=True)
class Snapshot:
    """Poses and appearance of some worlds at one moment, on the host."""

    env_ids: tuple[int, ...]
    """The worlds, a row each."""

    values: torch.Tensor
    """All numbers, (worlds, numbers), on the host once ``wait`` has returned."""

    layout: dict[str, tuple[slice, tuple[int, ...]]]
    """Columns and shape of each field."""

    event: Any = None

    def wait(self) -> Snapshot:
        """Wait until a GPU has delivered the values. Any thread may do so."""
        if self.event is not None:
            self.event.synchronize()
        return self

    def __getitem__(self, name: str) -> np.ndarray:
        """A field as an array (worlds, ...)."""
        columns, shape = self.layout[name]
        return self.values.numpy()[:, columns].reshape(len(self.env_ids), *shape)

    @property
    def model_fields(self) -> list[str]:
        """Names of the model fields in it; the other fields are the state's."""
        return [name for name in self.layout if name not in _STATE]


class SnapshotReader:
    """Takes snapshots of some worlds of a simulation. It never changes the simulation.

    On a GPU the copy to the host runs in parallel with the simulation; ``Snapshot.wait`` waits for
    it.

    Args:
        sim: The simulation.
        env_ids: The worlds.
    """

    def __init__(self, sim: Any, env_ids: Sequence[int]) -> None:
        self._sim = sim
        self.env_ids = tuple(env_ids)
        self._ids = torch.tensor(self.env_ids, dtype=torch.long, device=sim.device)
        self._state = ["qpos"]
        if sim.mj_model.nmocap:
            self._state += ["mocap_pos", "mocap_quat"]
        self._fields = DRAWN_FIELDS if _tracks_mass(sim.mj_model) else DRAWN_FIELDS[len(_MASSES) :]
        self._layout: dict[str, tuple[slice, tuple[int, ...]]] = {}

    def gather(self) -> Snapshot:
        """Copy the worlds' visible state; the numbers stay on the simulation's device."""
        sim = self._sim
        values = {name: getattr(sim.data, name) for name in self._state}
        # Unlike expanded_fields, this also has the constants that were recomputed.
        per_world = sim.per_world_fields
        for name in self._fields:
            if name in per_world:
                values[name] = getattr(sim.model, name)
        if list(values) != list(self._layout):
            self._layout = _layout(values)
        rows = torch.cat(
            [
                value.index_select(0, self._ids).reshape(len(self.env_ids), -1).float()
                for value in values.values()
            ],
            dim=1,
        )
        return Snapshot(self.env_ids, rows, self._layout)

    def read(self) -> Snapshot:
        """Copy the worlds' visible state to the host."""
        snapshot = self.gather()
        host, event = to_host(snapshot.values)
        return Snapshot(self.env_ids, host, snapshot.layout, event)


class PosedModel:
    """A model on the host that takes the poses of snapshots, one world at a time.

    Only what is visible is computed: poses of bodies, geoms, sites, cameras, lights, tendons and
    flexes. Use it from one thread only.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = copy_for_drawing(model)
        self.data = mujoco.MjData(self.model)

    def pose(self, snapshot: Snapshot, row: int) -> mujoco.MjData:
        """Take the pose of a snapshot's row. The data returned is overwritten by the next pose."""
        model, data = self.model, self.data
        for name in snapshot.model_fields:
            target = getattr(model, name)
            target[...] = snapshot[name][row].reshape(target.shape)
        data.qpos[:] = snapshot["qpos"][row]
        if model.nmocap:
            data.mocap_pos[:] = snapshot["mocap_pos"][row]
            data.mocap_quat[:] = snapshot["mocap_quat"][row]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mj_flex(model, data)
        mujoco.mj_tendon(model, data)
        return data


def _tracks_mass(model: mujoco.MjModel) -> bool:
    """Whether a camera or a light follows a centre of mass."""
    kinds = mujoco.mjtCamLight
    following = (int(kinds.mjCAMLIGHT_TRACKCOM), int(kinds.mjCAMLIGHT_TARGETBODYCOM))
    return bool(np.isin([*model.cam_mode, *model.light_mode], following).any())


def copy_for_drawing(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of a model that takes the fields of any world."""
    model = copy.copy(model)
    # MuJoCo skips local offsets that were zero when the model was compiled; in a randomized
    # environment they need not be.
    for shortcut in (model.body_sameframe, model.geom_sameframe, model.site_sameframe):
        shortcut[:] = 0
    return model


def to_host(values: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Return values on the host, and the event to wait for before reading them.

    From a CPU nothing is copied, and there is no event. From a GPU the copy is only started.
    """
    if values.device.type == "cpu":
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(values.device))
    return host, event


def _layout(values: dict[str, torch.Tensor]) -> dict[str, tuple[slice, tuple[int, ...]]]:
    layout, start = {}, 0
    for name, value in values.items():
        size = int(np.prod(value.shape[1:], dtype=int))
        layout[name] = slice(start, start + size), tuple(value.shape[1:])
        start += size
    return layout
