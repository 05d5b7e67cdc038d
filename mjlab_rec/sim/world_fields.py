"""Model fields whose values differ between worlds from the beginning, as those of variants do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np

from mjlab_rec.sim.engine import array_names, has_world_axis

_COLLIDING = ("geom_contype", "geom_conaffinity")
_WHOLE_NUMBERS = ("geom_dataid", "geom_matid", *_COLLIDING)
_PLACING = ("geom_pos", "geom_quat", "geom_aabb", "body_ipos", "body_iquat")
_ROOM = 1e-6
# Shortcuts that MuJoCo takes where offsets were zero when the model was compiled.
_SHORTCUTS = ("body_sameframe", "geom_sameframe", "site_sameframe")


@dataclass(frozen=True)
class Values:
    """Values of some elements of a model field."""

    ids: np.ndarray  # (elements,)
    values: np.ndarray  # (elements, ...)


class Variants(Protocol):
    """The variants of one entity."""

    def assign(self, num_envs: int) -> np.ndarray:
        """The index of each world's variant (num_envs,)."""
        ...

    def values(self, scene: mujoco.MjModel) -> list[dict[str, Values]]:
        """What each variant's worlds get in the compiled scene, by model field."""
        ...


VariantInfo = Sequence[tuple[str, Variants]]
"""Variants of entities, by the prefix of their names in the scene: ``object/``."""


@dataclass(frozen=True)
class WorldFields:
    """Values for each world, and which variants it has."""

    fields: dict[str, np.ndarray]
    """Model fields (num_envs, ...)."""
    world_to_variant: dict[str, np.ndarray]
    """By entity, the index of each world's variant (num_envs,)."""


def world_fields(model: mujoco.MjModel, num_envs: int, info: VariantInfo) -> WorldFields:
    """Work out the values of each world. The model gets those of the first one.

    Worlds with the same variants of all entities have the same values, so these are computed once
    for each combination, by C MuJoCo.
    """
    chosen = {prefix.rstrip("/"): variants.assign(num_envs) for prefix, variants in info}
    rows, first, of_world = np.unique(
        np.stack(list(chosen.values()), axis=1), axis=0, return_index=True, return_inverse=True
    )
    of_world = of_world.reshape(-1)
    values = [variants.values(model) for _, variants in info]
    combined = []
    for row in rows:
        world = copy.copy(model)
        for variant, fields in zip(row, values, strict=True):
            _write(world, fields[variant])
        for shortcut in _SHORTCUTS:
            getattr(world, shortcut)[:] = 0
        mujoco.mj_setConst(world, mujoco.MjData(world))
        combined.append(world)
    start = combined[of_world[0]]
    changed = _changed(model, combined)
    _enlarge_boxes(model, combined, changed)
    for name in changed:
        if name not in _COLLIDING:
            field, values = getattr(model, name), getattr(start, name)
            # An empty slot keeps the mesh that it was compiled with.
            field[:] = np.where(values < 0, field, values) if name == "geom_dataid" else values
    for shortcut in _SHORTCUTS:
        getattr(model, shortcut)[:] = 0
    model.stat.meaninertia = start.stat.meaninertia
    fields = {
        name: np.stack([getattr(world, name) for world in combined])[of_world]
        for name in _changed(model, combined)
    }
    return WorldFields(fields, chosen)


def _write(world: mujoco.MjModel, fields: dict[str, Values]) -> None:
    for name, some in fields.items():
        field = getattr(world, name)
        field[some.ids] = some.values.reshape(len(some.ids), *field.shape[1:])


def _changed(model: mujoco.MjModel, combined: list[mujoco.MjModel]) -> list[str]:
    """The fields of which some world has other values than the model."""
    changed = []
    for name in array_names(model):
        compiled = getattr(model, name)
        if has_world_axis(name, compiled) or name in _WHOLE_NUMBERS:
            if not all(np.array_equal(getattr(world, name), compiled) for world in combined):
                changed.append(name)
    return changed


def _enlarge_boxes(
    model: mujoco.MjModel, combined: list[mujoco.MjModel], changed: list[str]
) -> None:
    """Make the boxes in which bodies search for contacts large enough for all worlds' geoms.

    The boxes, unlike the geoms, are shared. They only exclude geoms that are far away, so larger
    ones change no contact.
    """
    bodies: set[int] = set()
    for name in _PLACING:
        if name in changed:
            values = np.stack([getattr(world, name) for world in (model, *combined)])
            ids = np.flatnonzero((values != values[0]).any(axis=(0, 2)))
            bodies.update(model.geom_bodyid[ids] if name.startswith("geom") else ids)
    for body in sorted(bodies):
        start, count = int(model.body_bvhadr[body]), int(model.body_bvhnum[body])
        low, high = _boxes_of_geoms(model, combined, body)
        boxes = model.bvh_aabb[start : start + count]
        # Children come after their parents.
        for node in reversed(range(count)):
            geom = int(model.bvh_nodeid[start + node])
            children = [int(child) for child in model.bvh_child[start + node] if child >= 0]
            if geom >= 0:
                bottom, top = low[geom], high[geom]
            else:
                bottom = np.min([boxes[c, :3] - boxes[c, 3:] for c in children], axis=0)
                top = np.max([boxes[c, :3] + boxes[c, 3:] for c in children], axis=0)
            boxes[node] = [*(bottom + top) / 2, *(top - bottom) / 2]


def _boxes_of_geoms(
    model: mujoco.MjModel, combined: list[mujoco.MjModel], body: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Corners, for each geom of a body, of a box around it in all worlds, in the inertial frame."""
    low: dict[int, np.ndarray] = {}
    high: dict[int, np.ndarray] = {}
    first = int(model.body_geomadr[body])
    for geom in range(first, first + int(model.body_geomnum[body])):
        corners = []
        for world in combined:
            turn, frame = np.empty(9), np.empty(9)
            mujoco.mju_quat2Mat(turn, world.geom_quat[geom])
            mujoco.mju_quat2Mat(frame, world.body_iquat[body])
            box = world.geom_aabb[geom]
            into = frame.reshape(3, 3).T
            place = into @ (
                world.geom_pos[geom] + turn.reshape(3, 3) @ box[:3] - world.body_ipos[body]
            )
            reach = np.abs(into @ turn.reshape(3, 3)) @ box[3:]
            corners += [place - reach - _ROOM, place + reach + _ROOM]
        low[geom], high[geom] = np.min(corners, axis=0), np.max(corners, axis=0)
    return low, high
