"""The ranges in which targets of joints, tendons and sites make sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import mujoco
import torch

from mjlab_rec.actuator import Actuator, TransmissionType
from mjlab_rec.actuator.actuator import CommandField
from mjlab_rec.actuator.pass_through import PassThroughActuator

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

Range = tuple[float, float]
"""Least and greatest value."""

_INFINITE: Range = (-float("inf"), float("inf"))


def target_ranges(
    model: mujoco.MjModel,
    entity: Entity,
    kind: TransmissionType,
    field: CommandField,
    target_ids: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and greatest targets that make sense; each (len(target_ids),).

    These are the ranges of ctrl (``ctrlrange``) of the actuators that get the target unchanged: the
    widest, if there are several. Positions without one stay in the limits of the joint or tendon,
    and efforts within the ``effort_limit`` of an actuator with its own law. Infinite where there is
    none of these.
    """
    clamps = not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL)
    ranges: dict[int, Range] = {}
    for actuator in entity.actuators:
        if actuator.transmission_type is kind:
            for target, (low, high) in _ranges(model, actuator, field, clamps):
                least, most = ranges.get(target, (low, high))
                ranges[target] = min(low, least), max(high, most)
    found = [ranges.get(target, _INFINITE) for target in target_ids]
    if field == "position":
        limits = position_limits(model, entity, kind, target_ids)
        found = [
            limit if own == _INFINITE else own for own, limit in zip(found, limits, strict=True)
        ]
    return _as_tensors(found)


def position_limits(
    model: mujoco.MjModel, entity: Entity, kind: TransmissionType, target_ids: list[int]
) -> list[Range]:
    """Return the limits of hinges, slides and tendons; infinite for what has none."""
    if kind is TransmissionType.JOINT:
        hard, _ = entity.joint_limits(model)
        return [(low, high) for low, high in hard[target_ids].tolist()]
    if kind is TransmissionType.TENDON:
        ids = entity.indexing.tendon_ids[target_ids].tolist()
        limited, ranges = model.tendon_limited, model.tendon_range
        return [tuple(ranges[i].tolist()) if limited[i] else _INFINITE for i in ids]
    return [_INFINITE for _ in target_ids]


def _ranges(
    model: mujoco.MjModel, actuator: Actuator, field: CommandField, clamps: bool
) -> Iterator[tuple[int, Range]]:
    """Return the targets of an actuator that the field affects, each with its range."""
    targets = actuator.target_ids.tolist()
    if not (isinstance(actuator, PassThroughActuator) and actuator.passes_through):
        limit = getattr(actuator.cfg, "effort_limit", None) if field == "effort" else None
        own = _INFINITE if limit is None else (-float(limit), float(limit))
        yield from ((target, own) for target in targets)
    elif field in actuator.command_fields:
        start = actuator.command_fields.index(field) * len(targets)
        ctrl_ids = actuator.global_ctrl_ids.tolist()[start : start + len(targets)]
        for target, ctrl in zip(targets, ctrl_ids, strict=True):
            limited = clamps and model.actuator_ctrllimited[ctrl]
            yield target, tuple(model.actuator_ctrlrange[ctrl]) if limited else _INFINITE


def _as_tensors(ranges: list[Range]) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.tensor(ranges, dtype=torch.float32).view(-1, 2).unbind(dim=1)
    return low, high
