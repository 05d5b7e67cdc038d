"""The base of actuators whose ctrl is a target, because MuJoCo itself closes the loop."""

from __future__ import annotations

import torch

from mjlab_rec.actuator.actuator import Actuator, ActuatorCfgT, ActuatorCmd, CommandField


class PassThroughActuator(Actuator[ActuatorCfgT]):
    """An actuator whose ctrl is its targets, unchanged.

    The entity copies the targets of all such actuators to ctrl at once.
    """

    command_fields: tuple[CommandField, ...] = ()
    """The target fields that are passed; with several, ctrl has one block per field."""

    @property
    def passes_through(self) -> bool:
        """False in a subclass that changes the command before it becomes ctrl."""
        cls = type(self)
        return (
            cls.compute is PassThroughActuator.compute
            and cls.get_command is Actuator.get_command
            and cls.apply_delay is Actuator.apply_delay
        )

    @property
    def constant_between_substeps(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True without a delay: MuJoCo closes the loop itself in every physics step."""
        unchanged = type(self).update is Actuator.update
        return unchanged and self.passes_through and not self.has_delay

    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        """Return the targets."""
        parts = [getattr(cmd, f"{field}_target") for field in self.command_fields]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
