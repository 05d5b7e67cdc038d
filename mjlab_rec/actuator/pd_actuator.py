"""A PD law that is computed outside MuJoCo and applied by motors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import mujoco
import torch

from mjlab_rec.actuator.actuator import Actuator, ActuatorCfg, ActuatorCmd
from mjlab_rec.utils.spec import create_motor_actuator

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

IdealPdCfgT = TypeVar("IdealPdCfgT", bound="IdealPdActuatorCfg")


def pd_torque(stiffness: torch.Tensor, damping: torch.Tensor, cmd: ActuatorCmd) -> torch.Tensor:
    """Unlimited torque of a PD law with feed-forward effort."""
    torque = torch.addcmul(cmd.effort_target, stiffness, cmd.position_target - cmd.pos)
    return torque.addcmul_(damping, cmd.velocity_target - cmd.vel)


@dataclass(kw_only=True)
class IdealPdActuatorCfg(ActuatorCfg):
    """force = stiffness (target - q) + damping (target_v - v) + effort target, limited.

    The law is computed once every physics step, outside the integrator.
    """

    on_sites = False

    stiffness: float
    """Proportional gain."""

    damping: float
    """Derivative gain."""

    effort_limit: float = float("inf")
    """Greatest force or torque."""

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> IdealPdActuator:
        """Make the actuator."""
        return IdealPdActuator(self, entity, target_ids, target_names)


class IdealPdActuator(Actuator[IdealPdCfgT], Generic[IdealPdCfgT]):
    """A PD law whose gains and limits may differ between worlds.

    The entity computes all actuators of one type at once, by calling ``control_law`` with their
    parameters concatenated. A subclass may change the law and its ``param_names``; one that
    overrides ``compute`` is computed separately.
    """

    param_names = ("stiffness", "damping", "force_limit")

    stiffness: torch.Tensor
    """Proportional gains (num_envs, num_targets). Change them in place, or by ``set_gains``."""
    damping: torch.Tensor
    """Derivative gains (num_envs, num_targets)."""
    force_limit: torch.Tensor
    """Greatest forces (num_envs, num_targets)."""

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a <motor> per target."""
        limit = self.cfg.effort_limit
        self._add_each(spec, target_names, create_motor_actuator, effort_limit=limit)

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Give every world the configured gains."""
        super().initialize(mj_model, model, data, device)
        self._shape = (data.nworld, len(self._target_names))
        self.stiffness = self._full(self.cfg.stiffness, device)
        self.damping = self._full(self.cfg.damping, device)
        self.force_limit = self._full(self.cfg.effort_limit, device)
        self.default_stiffness = self.stiffness.clone()
        self.default_damping = self.damping.clone()
        self.default_force_limit = self.force_limit.clone()

    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        """Apply the law with this actuator's parameters."""
        params = {name: getattr(self, name) for name in self.param_names}
        return type(self).control_law(params, cmd)

    @staticmethod
    def control_law(params: dict[str, torch.Tensor], cmd: ActuatorCmd) -> torch.Tensor:
        """Compute forces from parameters and command, each (num_envs, num_targets).

        The command's tensors may be the simulator's own memory: read them, never write to them.
        """
        limit = params["force_limit"]
        return pd_torque(params["stiffness"], params["damping"], cmd).clamp_(-limit, limit)

    def set_gains(
        self,
        env_ids: torch.Tensor | slice,
        kp: torch.Tensor | None = None,
        kd: torch.Tensor | None = None,
    ) -> None:
        """Set gains of the given worlds, (num_envs,) or (num_envs, num_targets)."""
        if kp is not None:
            self.stiffness[env_ids] = _as_rows(kp)
        if kd is not None:
            self.damping[env_ids] = _as_rows(kd)

    def set_effort_limit(self, env_ids: torch.Tensor | slice, effort_limit: torch.Tensor) -> None:
        """Set force limits of the given worlds, (num_envs,) or (num_envs, num_targets)."""
        self.force_limit[env_ids] = _as_rows(effort_limit)

    def _full(self, value: float, device: str) -> torch.Tensor:
        return torch.full(self._shape, value, dtype=torch.float32, device=device)


def _as_rows(values: torch.Tensor) -> torch.Tensor:
    return values.unsqueeze(-1) if values.dim() == 1 else values
