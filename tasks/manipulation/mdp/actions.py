"""An action term of small steps: each action moves the joints on from where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp.actions.base import BaseAction, BaseActionCfg

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class JointStepActionCfg(BaseActionCfg):
    """Position targets for a control step: the joints' positions at its start + action * scale.

    ``RelativeJointPositionActionCfg`` measures from the current position in every physics step
    instead. Here the target stands still during a control step, so the arm holds its place, and the
    physics can run the whole control step in one call.
    """

    def build(self, env: ManagerBasedRlEnv) -> JointStepAction:
        """Make the term."""
        return JointStepAction(self, env)


class JointStepAction(BaseAction):
    """Position targets a step away from where the joints are."""

    def process_actions(self, actions: torch.Tensor) -> None:
        """Measure the target from the joints' current positions."""
        super().process_actions(actions)
        self._processed_actions += self._entity.data.joint_pos[:, self._index]

    def apply_actions(self) -> None:
        """Write the position targets."""
        self._entity.set_joint_position_target(self._processed_actions, joint_ids=self._index)
