"""Action terms for sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mjlab_rec.actuator import TransmissionType
from mjlab_rec.envs.mdp.actions.base import BaseAction, BaseActionCfg

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class SiteEffortActionCfg(BaseActionCfg):
    """Forces or torques at sites, such as thrusters."""

    transmission_type: TransmissionType = TransmissionType.SITE

    def build(self, env: ManagerBasedRlEnv) -> SiteEffortAction:
        """Make the term."""
        return SiteEffortAction(self, env)


class SiteEffortAction(BaseAction):
    """Forces or torques at sites."""

    command_field = "effort"

    def apply_actions(self) -> None:
        """Write the efforts."""
        self._entity.set_site_effort_target(self._processed_actions, site_ids=self._index)
