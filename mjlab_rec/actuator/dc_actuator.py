"""A PD law on a motor whose torque falls with its speed."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import mujoco
import torch

from mjlab_rec.actuator.actuator import ActuatorCmd
from mjlab_rec.actuator.pd_actuator import IdealPdActuator, IdealPdActuatorCfg, pd_torque

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

logger = logging.getLogger(__name__)

DcMotorCfgT = TypeVar("DcMotorCfgT", bound="DcMotorActuatorCfg")


def dc_motor_clip(
    effort: torch.Tensor,
    saturation_effort: torch.Tensor,
    velocity_limit: torch.Tensor,
    force_limit: torch.Tensor,
    vel: torch.Tensor,
) -> torch.Tensor:
    """Limit effort to what a DC motor can produce at its speed.

    The torque falls linearly from ``saturation_effort`` at rest to zero at ``velocity_limit``, and
    is never more than ``force_limit``. Beyond the speed limit the motor can only brake.
    """
    slope = vel / velocity_limit
    high = torch.minimum(saturation_effort * (1.0 - slope), force_limit)
    low = torch.maximum(saturation_effort * (-1.0 - slope), -force_limit)
    # Far beyond the speed limit both bounds would lie outside the force limits, on the same side.
    high, low = torch.maximum(high, -force_limit), torch.minimum(low, force_limit)
    return torch.clamp(effort, low, high)


@dataclass(kw_only=True)
class DcMotorActuatorCfg(IdealPdActuatorCfg):
    """An ideal PD law limited to a DC motor's torque-speed curve.

    Set `effort_limit`, the continuous torque, too; it should not exceed `saturation_effort`.
    """

    saturation_effort: float
    """Torque at rest (stall torque)."""

    velocity_limit: float
    """Speed at which the torque is zero (no-load speed)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.saturation_effort > 0.0 and self.velocity_limit > 0.0):
            raise ValueError(
                "DcMotorActuatorCfg: saturation_effort and velocity_limit must be positive, got "
                f"{self.saturation_effort} and {self.velocity_limit}."
            )
        if math.isinf(self.effort_limit):
            logger.warning(
                "DcMotorActuatorCfg: effort_limit is infinite, so the motor could hold its stall "
                "torque forever. Set effort_limit to the motor's continuous torque."
            )
        elif self.effort_limit > self.saturation_effort:
            logger.warning(
                "DcMotorActuatorCfg: effort_limit (%g) exceeds saturation_effort (%g), so it "
                "has no effect at rest.",
                self.effort_limit,
                self.saturation_effort,
            )

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> DcMotorActuator:
        """Make the actuator."""
        return DcMotorActuator(self, entity, target_ids, target_names)


class DcMotorActuator(IdealPdActuator[DcMotorCfgT], Generic[DcMotorCfgT]):
    """A PD law limited to a DC motor's torque-speed curve."""

    param_names = (*IdealPdActuator.param_names, "saturation_effort", "velocity_limit_motor")

    saturation_effort: torch.Tensor
    """Stall torques (num_envs, num_targets)."""
    velocity_limit_motor: torch.Tensor
    """No-load speeds (num_envs, num_targets)."""

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Set up the configured motor in every world."""
        super().initialize(mj_model, model, data, device)
        self.saturation_effort = self._full(self.cfg.saturation_effort, device)
        self.velocity_limit_motor = self._full(self.cfg.velocity_limit, device)

    @staticmethod
    def control_law(params: dict[str, torch.Tensor], cmd: ActuatorCmd) -> torch.Tensor:
        """Compute the PD torque and limit it to the motor's curve."""
        return dc_motor_clip(
            pd_torque(params["stiffness"], params["damping"], cmd),
            params["saturation_effort"],
            params["velocity_limit_motor"],
            params["force_limit"],
            cmd.vel,
        )
