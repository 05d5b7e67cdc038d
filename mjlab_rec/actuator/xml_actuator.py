"""Actuators that the robot's XML already has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco

from mjlab_rec.actuator.actuator import ActuatorCfg, CommandField, TransmissionType
from mjlab_rec.actuator.pass_through import PassThroughActuator
from mjlab_rec.utils.mujoco import detect_command_field

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

_TRANSMISSIONS = {
    TransmissionType.JOINT: (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT),
    TransmissionType.TENDON: (mujoco.mjtTrn.mjTRN_TENDON,),
    TransmissionType.SITE: (mujoco.mjtTrn.mjTRN_SITE,),
}


@dataclass(kw_only=True)
class XmlActuatorCfg(ActuatorCfg):
    """Uses the XML's actuators on the matching targets; targets without one are left out.

    All of one config must follow the same kind of target.
    """

    command_field: CommandField | None = None
    """Target that they follow; None infers it. Needed for <general> actuators, and for joints with
    several actuators."""

    def build(self, entity: Entity, target_ids: list[int], target_names: list[str]) -> XmlActuator:
        """Make the actuator."""
        return XmlActuator(self, entity, target_ids, target_names)


class XmlActuator(PassThroughActuator[XmlActuatorCfg]):
    """Passes targets to actuators defined in the XML."""

    def __init__(
        self,
        cfg: XmlActuatorCfg,
        entity: Entity,
        target_ids: list[int],
        target_names: list[str],
    ) -> None:
        super().__init__(cfg, entity, target_ids, target_names)
        self._command_field: CommandField | None = cfg.command_field

    @property
    def command_field(self) -> CommandField:
        """The target that the actuators follow."""
        assert self._command_field is not None
        return self._command_field

    @property
    def command_fields(self) -> tuple[CommandField, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The one target field that is passed."""
        return (self.command_field,)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Find the actuators and their targets, and set passive properties if configured."""
        found = [
            (target_id, name, actuator)
            for target_id, name, spec_name in zip(
                self._target_ids_list, self._target_names, target_names, strict=True
            )
            if (actuator := self._find(spec, spec_name)) is not None
        ]
        if not found:
            have = ", ".join(a.target for a in spec.actuators) or "none"
            raise ValueError(
                f"XmlActuatorCfg: the XML has no actuator on the {self.transmission_type.value}s "
                f"{target_names}. It has actuators on: {have}. Add them to the XML, or use a "
                "config that adds them, such as BuiltinPositionActuatorCfg."
            )
        for _, _, actuator in found:
            self._override_passive(spec, actuator.target)
        self._target_ids_list = [target_id for target_id, _, _ in found]
        self._target_names = [name for _, name, _ in found]
        self._mjs_actuators = [actuator for _, _, actuator in found]
        if self._command_field is None:
            fields: dict[str, CommandField]
            fields = {name: detect_command_field(actuator) for _, name, actuator in found}
            if len(set(fields.values())) > 1:
                raise ValueError(
                    f"XmlActuatorCfg: these actuators follow different targets: {fields}. "
                    "Give each kind its own XmlActuatorCfg."
                )
            self._command_field = next(iter(fields.values()))

    def _find(self, spec: mujoco.MjSpec, target_name: str) -> mujoco.MjsActuator | None:
        on_target = [
            actuator
            for actuator in spec.actuators
            if actuator.target == target_name
            and actuator.trntype in _TRANSMISSIONS[self.transmission_type]
        ]
        wanted = self.cfg.command_field
        if wanted is None:
            chosen = on_target
        else:
            chosen = [a for a in on_target if _field_or(a, wanted) == wanted]
            if on_target and not chosen:
                kinds = {a.name: detect_command_field(a) for a in on_target}
                raise ValueError(
                    f"XmlActuatorCfg: command_field is '{wanted}', but the actuators on "
                    f"'{target_name}' follow: {kinds}."
                )
        if len(chosen) > 1:
            raise ValueError(
                f"XmlActuatorCfg: '{target_name}' has several actuators: "
                f"{[a.name for a in chosen]}. Choose one kind with command_field='position' | "
                "'velocity' | 'effort'."
            )
        return chosen[0] if chosen else None


def _field_or(actuator: mujoco.MjsActuator, default: CommandField) -> CommandField:
    """Return an actuator's target field, or the default if it is unclear, as with <general>."""
    try:
        return detect_command_field(actuator)
    except ValueError:
        return default
