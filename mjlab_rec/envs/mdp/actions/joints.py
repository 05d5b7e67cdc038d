"""Action terms for joints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp.actions.base import BaseAction, BaseActionCfg
from mjlab_rec.envs.mdp.actions.ranges import position_limits

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


def _refuse_second_offset(cfg: JointPositionActionCfg | JointVelocityActionCfg) -> None:
    if cfg.use_default_offset and cfg.offset != 0.0:
        raise ValueError(
            f"{type(cfg).__name__} has the offset {cfg.offset!r}, but measures from the default"
            " joint state. Set use_default_offset=False, or remove the offset."
        )


@dataclass(kw_only=True)
class JointPositionActionCfg(BaseActionCfg):
    """Position targets for joints: default position + action * scale."""

    use_default_offset: bool = True
    """Measure from the default joint positions, instead of from ``offset``."""

    def __post_init__(self) -> None:
        _refuse_second_offset(self)

    def build(self, env: ManagerBasedRlEnv) -> JointPositionAction:
        """Make the term."""
        return JointPositionAction(self, env)


class JointPositionAction(BaseAction):
    """Position targets as the encoders read them: the encoder bias is subtracted."""

    command_field = "position"

    def __init__(self, cfg: JointPositionActionCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg=cfg, env=env)
        if cfg.use_default_offset:
            self._offset = self._entity.data.default_joint_pos[:, self._target_ids].clone()

    def apply_actions(self) -> None:
        """Write the position targets."""
        target = self._processed_actions - self._entity.data.encoder_bias[:, self._index]
        self._entity.set_joint_position_target(target, joint_ids=self._index)


@dataclass(kw_only=True)
class RelativeJointPositionActionCfg(BaseActionCfg):
    """Position targets measured from where the joints are: position + clip(action * scale).

    The joint's position is read at every physics substep, so the target moves with it.
    """

    def __post_init__(self) -> None:
        if self.offset != 0.0:
            raise ValueError(
                f"RelativeJointPositionActionCfg takes no offset, got {self.offset!r}: its targets"
                " are measured from the joints' current positions. Remove it, or use"
                " JointPositionActionCfg."
            )

    def build(self, env: ManagerBasedRlEnv) -> RelativeJointPositionAction:
        """Make the term."""
        return RelativeJointPositionAction(self, env)


class RelativeJointPositionAction(BaseAction):
    """Position targets measured from the current joint positions."""

    constant_between_substeps = False

    def _applied_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ways from one limit of each joint to the other."""
        if type(self).apply_actions is not RelativeJointPositionAction.apply_actions:
            return super()._applied_range()
        model, kind = self._env.sim.mj_model, self.cfg.transmission_type
        limits = position_limits(model, self._entity, kind, self._target_ids.tolist())
        way = torch.tensor([high - low for low, high in limits], device=self.device)
        return -way, way

    def apply_actions(self) -> None:
        """Write the position targets."""
        target = self._entity.data.joint_pos[:, self._index] + self._processed_actions
        self._entity.set_joint_position_target(target, joint_ids=self._index)


@dataclass(kw_only=True)
class JointVelocityActionCfg(BaseActionCfg):
    """Velocity targets for joints: default velocity + action * scale."""

    use_default_offset: bool = True
    """Measure from the default joint velocities, instead of from ``offset``."""

    def __post_init__(self) -> None:
        _refuse_second_offset(self)

    def build(self, env: ManagerBasedRlEnv) -> JointVelocityAction:
        """Make the term."""
        return JointVelocityAction(self, env)


class JointVelocityAction(BaseAction):
    """Velocity targets of joints."""

    command_field = "velocity"

    def __init__(self, cfg: JointVelocityActionCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg=cfg, env=env)
        if cfg.use_default_offset:
            self._offset = self._entity.data.default_joint_vel[:, self._target_ids].clone()

    def apply_actions(self) -> None:
        """Write the velocity targets."""
        self._entity.set_joint_velocity_target(self._processed_actions, joint_ids=self._index)


@dataclass(kw_only=True)
class JointEffortActionCfg(BaseActionCfg):
    """Forces or torques of joints."""

    def build(self, env: ManagerBasedRlEnv) -> JointEffortAction:
        """Make the term."""
        return JointEffortAction(self, env)


class JointEffortAction(BaseAction):
    """Forces or torques of joints."""

    command_field = "effort"

    def apply_actions(self) -> None:
        """Write the efforts."""
        self._entity.set_joint_effort_target(self._processed_actions, joint_ids=self._index)
