"""Groups of actuators that are computed together, in a few operations per entity and step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.actuator.actuator import COMMAND_FIELDS, Actuator, ActuatorCmd
from mjlab_rec.actuator.pass_through import PassThroughActuator
from mjlab_rec.actuator.pd_actuator import IdealPdActuator
from mjlab_rec.utils.buffers import DelayBuffer
from mjlab_rec.utils.indexing import Columns, as_index

if TYPE_CHECKING:
    from mjlab_rec.entity import EntityData


class PassThroughGroup:
    """Copies targets to ctrl: one copy if both are contiguous, else a gather and a scatter."""

    def __init__(self, actuators: Sequence[PassThroughActuator], data: EntityData) -> None:
        pairs: list[tuple[int, int]] = []
        for act in actuators:
            sources = [
                column
                for field in act.command_fields
                for column in data.targets.columns(act.transmission_type, field, act.target_ids)
            ]
            pairs += zip(act.global_ctrl_ids.tolist(), sources, strict=True)
        pairs.sort()
        device = data.device
        self._targets = Columns(data.targets.all, as_index([s for _, s in pairs], device))
        self._ctrl = Columns(data.data.ctrl, as_index([c for c, _ in pairs], device))
        self._delay = _shared_delay(actuators, data)

    def apply(self) -> None:
        """Write ctrl."""
        targets = self._targets.peek()
        if self._delay is not None:
            self._delay.append(targets)
            targets = self._delay.compute()
        self._ctrl.write(targets)


class ControlLawGroup:
    """Computes one control law for several actuators, with their parameters concatenated."""

    def __init__(self, actuators: Sequence[IdealPdActuator], data: EntityData) -> None:
        kind = actuators[0].transmission_type
        target_ids = torch.cat([act.target_ids for act in actuators])
        columns = [
            c for field in COMMAND_FIELDS for c in data.targets.columns(kind, field, target_ids)
        ]
        ctrl_ids = torch.cat([act.global_ctrl_ids for act in actuators]).tolist()
        self._law = type(actuators[0]).control_law
        self._targets = Columns(data.targets.all, as_index(columns, data.device))
        self._pos, self._vel = data.state_columns(kind, target_ids)
        self._ctrl = Columns(data.data.ctrl, as_index(ctrl_ids, data.device))
        self._params = _join_params(actuators)
        self._delay = _shared_delay(actuators, data)

    def apply(self) -> None:
        """Compute and write ctrl."""
        targets = self._targets.peek()
        if self._delay is not None:
            self._delay.append(targets)
            targets = self._delay.compute()
        position, velocity, effort = targets.chunk(3, dim=1)
        cmd = ActuatorCmd(position, velocity, effort, self._pos.peek(), self._vel.peek())
        self._ctrl.write(self._law(self._params, cmd))


class SingleActuator:
    """Computes one actuator that has its own ``compute``."""

    def __init__(self, actuator: Actuator, data: EntityData) -> None:
        self._actuator = actuator
        self._data = data
        ctrl_ids = actuator.global_ctrl_ids.tolist()
        self._ctrl = Columns(data.data.ctrl, as_index(ctrl_ids, data.device))
        _shared_delay([actuator], data)

    def apply(self) -> None:
        """Compute and write ctrl."""
        act = self._actuator
        self._ctrl.write(act.compute(act.apply_delay(act.get_command(self._data))))


ActuatorGroup = PassThroughGroup | ControlLawGroup | SingleActuator


def group_actuators(actuators: Sequence[Actuator], data: EntityData) -> list[ActuatorGroup]:
    """Group the initialized actuators that can be computed together."""
    members: dict[Any, list[Any]] = {}
    makers: dict[Any, Callable[..., ActuatorGroup]] = {}
    for i, act in enumerate(actuators):
        alike = (type(act), act.transmission_type, *_delay_settings(act))
        if isinstance(act, PassThroughActuator) and act.passes_through:
            # Without a delay only the columns differ, whatever the type.
            key, maker = (alike if act.has_delay else "direct"), PassThroughGroup
        elif isinstance(act, IdealPdActuator) and _keeps_law(act):
            key, maker = alike, ControlLawGroup
        else:
            key, maker = i, SingleActuator
        members.setdefault(key, []).append(act)
        makers[key] = maker
    return [
        makers[key](acts[0] if makers[key] is SingleActuator else acts, data)
        for key, acts in members.items()
    ]


def _keeps_law(act: IdealPdActuator) -> bool:
    cls = type(act)
    return (
        cls.compute is IdealPdActuator.compute
        and cls.get_command is Actuator.get_command
        and cls.apply_delay is Actuator.apply_delay
    )


def _delay_settings(act: Actuator) -> tuple[Any, ...]:
    cfg = act.cfg
    return (
        cfg.delay_min_lag,
        cfg.delay_max_lag,
        cfg.delay_hold_prob,
        cfg.delay_update_period,
        cfg.delay_per_env_phase,
    )


def _shared_delay(actuators: Sequence[Actuator], data: EntityData) -> DelayBuffer | None:
    """Give a group one shared delay, so that ``set_lags`` works on any of its members."""
    cfg = actuators[0].cfg
    if not actuators[0].has_delay:
        return None
    delay = DelayBuffer(
        min_lag=cfg.delay_min_lag,
        max_lag=cfg.delay_max_lag,
        batch_size=data.num_envs,
        device=data.device,
        hold_prob=cfg.delay_hold_prob,
        update_period=cfg.delay_update_period,
        per_env_phase=cfg.delay_per_env_phase,
        generator=data.generator,
    )
    for act in actuators:
        act._delay_buffer = delay
    data.delays.append(delay)
    return delay


def _join_params(actuators: Sequence[IdealPdActuator]) -> dict[str, torch.Tensor]:
    """Concatenate parameters; the actuators keep views, so in-place changes reach the law."""
    params: dict[str, torch.Tensor] = {}
    for name in actuators[0].param_names:
        joined = torch.cat([getattr(act, name) for act in actuators], dim=1)
        params[name] = joined
        start = 0
        for act in actuators:
            width = getattr(act, name).shape[1]
            setattr(act, name, joined[:, start : start + width])
            start += width
    return params
