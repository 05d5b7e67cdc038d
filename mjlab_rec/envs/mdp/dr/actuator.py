"""Randomization of actuators' gains and effort limits.

``asset_cfg.actuator_names`` selects single actuators, even within a group made by one config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.actuator import (
    BuiltinDcMotorActuator,
    BuiltinMotorActuator,
    BuiltinPdActuator,
    BuiltinPositionActuator,
    IdealPdActuator,
    TransmissionType,
    XmlActuator,
)
from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG, bounds, resolve_env_ids
from mjlab_rec.envs.mdp.dr._core import default_values
from mjlab_rec.envs.mdp.dr._types import Distribution, Operation, draw, resolve_operation
from mjlab_rec.managers.event_manager import requires_model_fields
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg

if TYPE_CHECKING:
    from mjlab_rec.actuator import Actuator
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv


@requires_model_fields("actuator_gainprm", "actuator_biasprm")
def pd_gains(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    kp_range: tuple[float, float],
    kd_range: tuple[float, float],
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    distribution: Distribution | str = "uniform",
    operation: Operation | str = "scale",
) -> None:
    """Randomize the gains of position and PD actuators, and of DC motors' controllers.

    Args:
        env: The environment.
        env_ids: Environments; None for all.
        kp_range: Range of the proportional gain, or of its factor.
        kd_range: Range of the derivative gain, or of its factor.
        asset_cfg: Entity and actuators.
        distribution: What the numbers are drawn from.
        operation: "scale" multiplies the gains as configured, "abs" sets them.
    """
    write = _Writer(env, env_ids, operation, "pd_gains")
    for group, chosen in _groups(env, asset_cfg):
        n = len(group.target_names)
        kp = write.draw(distribution, kp_range, n)
        kd = write.draw(distribution, kd_range, n)
        ids = group.global_ctrl_ids
        if isinstance(group, IdealPdActuator) or (
            isinstance(group, BuiltinDcMotorActuator) and group.has_gains
        ):
            group.set_gains(
                write.env_ids,
                kp=write.tensor(group.stiffness, group.default_stiffness, kp, chosen),
                kd=write.tensor(group.damping, group.default_damping, kd, chosen),
            )
        elif isinstance(group, BuiltinPdActuator):
            # Position servos come first, then velocity servos. Only the latter have damping.
            write.model("actuator_gainprm", ids[:n], 0, kp, chosen[:n])
            write.model("actuator_biasprm", ids[:n], 1, kp, chosen[:n], sign=-1)
            write.model("actuator_gainprm", ids[n:], 0, kd, chosen[n:])
            write.model("actuator_biasprm", ids[n:], 2, kd, chosen[n:], sign=-1)
        elif isinstance(group, BuiltinPositionActuator) or (
            isinstance(group, XmlActuator) and group.command_field == "position"
        ):
            write.model("actuator_gainprm", ids, 0, kp, chosen)
            write.model("actuator_biasprm", ids, 1, kp, chosen, sign=-1)
            write.model("actuator_biasprm", ids, 2, kd, chosen, sign=-1)
        elif bool(chosen.any()):
            if isinstance(group, BuiltinDcMotorActuator):
                group.require_gains()
            raise TypeError(
                f"pd_gains randomizes position and PD actuators, but '{asset_cfg.name}' has"
                f" {type(group).__name__}s on {group.target_names}. Exclude them with"
                " actuator_names."
            )


@requires_model_fields(
    "actuator_forcerange", "actuator_ctrlrange", "jnt_actfrcrange", "tendon_actfrcrange"
)
def effort_limits(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    effort_limit_range: tuple[float, float],
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    distribution: Distribution | str = "uniform",
    operation: Operation | str = "scale",
) -> None:
    """Randomize the greatest force or torque of actuators, the same in both directions.

    Args:
        env: The environment.
        env_ids: Environments; None for all.
        effort_limit_range: Range of the limit, or of its factor.
        asset_cfg: Entity and actuators. They have a limit.
        distribution: What the numbers are drawn from.
        operation: "scale" multiplies the limits as configured, "abs" sets them.
    """
    write = _Writer(env, env_ids, operation, "effort_limits")
    for group, chosen in _groups(env, asset_cfg):
        limit = write.draw(distribution, effort_limit_range, len(group.target_names))
        if isinstance(group, BuiltinPdActuator):
            # Two actuators share each target, so the limit is the target's.
            joints = group.transmission_type == TransmissionType.JOINT
            indexing = env.scene[asset_cfg.name].indexing
            table = indexing.joint_ids if joints else indexing.tendon_ids
            kind = "jnt" if joints else "tendon"
            write.check_limited(group, chosen, f"{kind}_actfrclimited", table[group.target_ids])
            one_each = chosen[: len(group.target_names)]
            write.limit(f"{kind}_actfrcrange", table[group.target_ids], limit, one_each)
            continue
        ids = group.global_ctrl_ids
        if isinstance(group, IdealPdActuator):
            new = write.tensor(group.force_limit, group.default_force_limit, limit, chosen)
            group.set_effort_limit(write.env_ids, new)
        else:
            write.check_limited(group, chosen, "actuator_forcelimited", ids)
        write.limit("actuator_forcerange", ids, limit, chosen)
        if isinstance(group, (IdealPdActuator, BuiltinMotorActuator)):
            # Motors clip their ctrl, which is a force, to the configured limit as well.
            write.limit("actuator_ctrlrange", ids, limit, chosen)


def _groups(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg
) -> Iterator[tuple[Actuator, torch.Tensor]]:
    """Yield each group of actuators and a mask (num_controls,) of its selected controls."""
    asset: Entity = env.scene[asset_cfg.name]
    selected = torch.zeros(len(asset.indexing.ctrl_ids), dtype=torch.bool, device=env.device)
    selected[asset_cfg.index("actuator", env.scene)] = True
    for group in asset.actuators:
        yield group, selected[group.ctrl_ids]


class _Writer:
    """Combines drawn numbers with defaults and writes them for the selected controls only."""

    def __init__(
        self,
        env: ManagerBasedRlEnv,
        env_ids: torch.Tensor | None,
        operation: Operation | str,
        event: str,
    ) -> None:
        op = resolve_operation(operation)
        if op.name not in ("scale", "abs"):
            raise ValueError(f"{event} takes the operations 'scale' and 'abs', got {op.name!r}.")
        self.env = env
        self.env_ids = resolve_env_ids(env, env_ids)
        self._event = event
        self._scales = op.name == "scale"

    def draw(
        self, distribution: Distribution | str, range_: tuple[float, float], n: int
    ) -> torch.Tensor:
        """One number per environment and target."""
        shape = (len(self.env_ids), n)
        return draw(self.env, distribution, *bounds([range_], self.env.device), shape, self.env_ids)

    def tensor(
        self,
        current: torch.Tensor,
        default: torch.Tensor,
        drawn: torch.Tensor,
        chosen: torch.Tensor,
    ) -> torch.Tensor:
        """New rows of an actuator's own parameter."""
        new = default[self.env_ids] * drawn if self._scales else drawn
        return torch.where(chosen, new, current[self.env_ids])

    def model(
        self,
        field: str,
        ids: torch.Tensor,
        axis: int,
        drawn: torch.Tensor,
        chosen: torch.Tensor,
        sign: int = 1,
    ) -> None:
        """Write one component of a model field; ``sign`` is the number's sign in that field."""
        values = getattr(self.env.sim.model, field)
        default = default_values(self.env, field, ids, self.env_ids)[..., axis]
        new = default * drawn if self._scales else sign * drawn
        cells = (self.env_ids[:, None], ids, axis)
        values[cells] = torch.where(chosen, new, values[cells])

    def limit(
        self, field: str, ids: torch.Tensor, drawn: torch.Tensor, chosen: torch.Tensor
    ) -> None:
        """Write a range that is symmetric about zero."""
        self.model(field, ids, 0, drawn, chosen, sign=-1)
        self.model(field, ids, 1, drawn, chosen)

    def check_limited(
        self, group: Actuator[Any], chosen: torch.Tensor, flag: str, ids: torch.Tensor
    ) -> None:
        """Raise where the range would have no effect because there is no limit."""
        limited = getattr(self.env.sim.mj_model, flag)
        if not limited.all() and not limited[ids[chosen[: len(ids)]].cpu().numpy()].all():
            raise ValueError(
                f"{self._event}: the actuators of {group.target_names} have no effort limit to"
                " randomize. Set effort_limit in the actuator's config (forcerange in XML)."
            )
