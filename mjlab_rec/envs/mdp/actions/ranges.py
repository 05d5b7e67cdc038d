"""The ranges in which targets of joints, tendons and sites have an effect."""

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

_INFINITE = (-float("inf"), float("inf"))


def target_ranges(
    model: mujoco.MjModel,
    entity: Entity,
    kind: TransmissionType,
    field: CommandField,
    target_ids: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and greatest targets that MuJoCo does not clamp; each (len(target_ids),).

    These are the ranges of ctrl (``ctrlrange``) of the actuators that get the target unchanged: the
    widest, if there are several. Infinite where an actuator has none, or computes ctrl by its own
    law.
    """
    if model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL):
        return _as_tensors([_INFINITE for _ in target_ids])
    ranges: dict[int, tuple[float, float]] = {}
    for actuator in entity.actuators:
        if actuator.transmission_type is kind:
            for target, (low, high) in _ctrl_ranges(model, actuator, field):
                least, most = ranges.get(target, (low, high))
                ranges[target] = min(low, least), max(high, most)
    return _as_tensors([ranges.get(target, _INFINITE) for target in target_ids])


def _ctrl_ranges(
    model: mujoco.MjModel, actuator: Actuator, field: CommandField
) -> Iterator[tuple[int, tuple[float, float]]]:
    """Return the targets of an actuator that the field affects, each with its range."""
    targets = actuator.target_ids.tolist()
    if not (isinstance(actuator, PassThroughActuator) and actuator.passes_through):
        yield from ((target, _INFINITE) for target in targets)
    elif field in actuator.command_fields:
        start = actuator.command_fields.index(field) * len(targets)
        ctrl_ids = actuator.global_ctrl_ids.tolist()[start : start + len(targets)]
        for target, ctrl in zip(targets, ctrl_ids, strict=True):
            limited = model.actuator_ctrllimited[ctrl]
            yield target, tuple(model.actuator_ctrlrange[ctrl]) if limited else _INFINITE


def _as_tensors(ranges: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.tensor(ranges, dtype=torch.float32).view(-1, 2).unbind(dim=1)
    return low, high
