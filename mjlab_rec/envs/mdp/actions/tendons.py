"""Action terms for tendons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mjlab_rec.actuator import TransmissionType
from mjlab_rec.envs.mdp.actions.base import BaseAction, BaseActionCfg

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class TendonLengthActionCfg(BaseActionCfg):
    """Length targets of tendons."""

    transmission_type: TransmissionType = TransmissionType.TENDON

    def build(self, env: ManagerBasedRlEnv) -> TendonLengthAction:
        """Make the term."""
        return TendonLengthAction(self, env)


class TendonLengthAction(BaseAction):
    """Length targets of tendons."""

    command_field = "position"

    def apply_actions(self) -> None:
        """Write the length targets."""
        self._entity.set_tendon_len_target(self._processed_actions, tendon_ids=self._index)


@dataclass(kw_only=True)
class TendonVelocityActionCfg(BaseActionCfg):
    """Velocity targets of tendons."""

    transmission_type: TransmissionType = TransmissionType.TENDON

    def build(self, env: ManagerBasedRlEnv) -> TendonVelocityAction:
        """Make the term."""
        return TendonVelocityAction(self, env)


class TendonVelocityAction(BaseAction):
    """Velocity targets of tendons."""

    command_field = "velocity"

    def apply_actions(self) -> None:
        """Write the velocity targets."""
        self._entity.set_tendon_vel_target(self._processed_actions, tendon_ids=self._index)


@dataclass(kw_only=True)
class TendonEffortActionCfg(BaseActionCfg):
    """Forces of tendons."""

    transmission_type: TransmissionType = TransmissionType.TENDON

    def build(self, env: ManagerBasedRlEnv) -> TendonEffortAction:
        """Make the term."""
        return TendonEffortAction(self, env)


class TendonEffortAction(BaseAction):
    """Forces of tendons."""

    command_field = "effort"

    def apply_actions(self) -> None:
        """Write the forces."""
        self._entity.set_tendon_effort_target(self._processed_actions, tendon_ids=self._index)
