"""Ghosts of robots: where their parts are, and which of their geoms are drawn in what colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.sim.debug_shapes import Ghost
from mjlab_rec.sim.meshes import Triangles, geom_triangles, merged

_SHOWN_GROUPS = (0, 1, 2)  # as MuJoCo shows by default
_GREY = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default colour of geoms


class GhostPoser:
    """Computes where the parts of ghosts are. Use it from one thread only."""

    def __init__(self) -> None:
        self._data: dict[int, tuple[mujoco.MjModel, mujoco.MjData]] = {}

    def pose(self, ghost: Ghost) -> mujoco.MjData:
        """Take a ghost's pose. The data returned is overwritten by the next pose of its model."""
        model = ghost.model
        if id(model) not in self._data:
            self._data[id(model)] = model, mujoco.MjData(model)
        data = self._data[id(model)][1]
        data.qpos[:] = ghost.qpos
        if ghost.mocap_pos is not None:
            data.mocap_pos[:] = ghost.mocap_pos
        if ghost.mocap_quat is not None:
            data.mocap_quat[:] = ghost.mocap_quat
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_flex(model, data)
        mujoco.mj_tendon(model, data)
        return data


@dataclass(frozen=True)
class GhostPart:
    """What a ghost shows of a body in one colour."""

    body: int
    color: tuple[float, float, float]
    mesh: Triangles
    """In the body's frame."""


def ghost_parts(model: mujoco.MjModel) -> list[GhostPart]:
    """Return what a ghost of a model shows: geoms that can move, neither hidden nor transparent."""
    parts: dict[tuple[int, tuple[float, float, float]], list[Triangles]] = {}
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        moves = model.body_weldid[body] != 0 or model.body_mocapid[model.body_rootid[body]] >= 0
        *color, alpha = _color(model, geom)
        if moves and alpha > 0.0 and model.geom_group[geom] in _SHOWN_GROUPS:
            mesh = geom_triangles(model, geom)
            parts.setdefault((body, (color[0], color[1], color[2])), []).append(mesh)
    return [GhostPart(body, color, merged(meshes)) for (body, color), meshes in parts.items()]


def by_model(ghosts: Sequence[Ghost]) -> list[list[Ghost]]:
    """Return the ghosts of each model."""
    groups: dict[int, list[Ghost]] = {}
    for ghost in ghosts:
        groups.setdefault(id(ghost.model), []).append(ghost)
    return list(groups.values())


def _color(model: mujoco.MjModel, geom: int) -> tuple[float, ...]:
    """A geom's colour, by MuJoCo's rule: its own, unless that is the default."""
    own, material = tuple(model.geom_rgba[geom].tolist()), int(model.geom_matid[geom])
    if material >= 0 and np.allclose(own, _GREY):
        return tuple(model.mat_rgba[material].tolist())
    return own
