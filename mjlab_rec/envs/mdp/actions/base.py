"""Action terms that scale the policy's numbers into actuator targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.actuator import TransmissionType
from mjlab_rec.actuator.actuator import CommandField
from mjlab_rec.envs.mdp.actions.ranges import target_ranges
from mjlab_rec.managers.action_manager import ActionTerm, ActionTermCfg
from mjlab_rec.managers.scene_entity_config import as_index
from mjlab_rec.utils.string import resolve_matching_names, resolve_matching_names_values

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class BaseActionCfg(ActionTermCfg):
    """Base config of the stock action terms: target = clip(action * scale + offset).

    ``scale``, ``offset`` and ``clip`` may be given per target by name or regex; targets that no
    pattern matches keep scale 1, offset 0 and no clip.
    """

    transmission_type: TransmissionType = TransmissionType.JOINT
    """What the actuators drive."""

    actuator_names: tuple[str, ...] | list[str]
    """Names or regexes of the actuated joints (tendons, sites) that the action controls."""

    scale: float | dict[str, float] = 1.0
    """Factor of the action."""

    offset: float | dict[str, float] = 0.0
    """Added to the scaled action."""

    preserve_order: bool = False
    """Order the action by ``actuator_names`` instead of by the model."""


class BaseAction(ActionTerm):
    """Scales, offsets and clips the action; subclasses write the result to the targets."""

    cfg: BaseActionCfg
    _entity: Entity

    constant_between_substeps = True

    command_field: CommandField | None = None
    """Target that ``apply_actions`` sets to the processed action; None if it sets none.
    """

    def __init__(self, cfg: BaseActionCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg=cfg, env=env)
        ids, self._target_names = _find_targets(self._entity, cfg)
        self._target_ids = torch.tensor(ids, dtype=torch.long, device=self.device)
        self._index = as_index(ids, self.device)
        self._raw_actions = torch.zeros(self.num_envs, len(ids), device=self.device)
        self._processed_actions = torch.zeros_like(self._raw_actions)
        self._scale = self._per_target("scale", cfg.scale, default=1.0)
        self._offset = self._per_target("offset", cfg.offset, default=0.0)
        self._clip: tuple[torch.Tensor, torch.Tensor] | None = None
        if cfg.clip is not None:
            low = {name: float(pair[0]) for name, pair in cfg.clip.items()}
            high = {name: float(pair[1]) for name, pair in cfg.clip.items()}
            self._clip = (
                self._per_target("clip", low, default=-float("inf")),
                self._per_target("clip", high, default=float("inf")),
            )

    def _per_target(self, field: str, value: Any, default: float) -> torch.Tensor:
        """Resolve a number or a dict of numbers by target name into (num_envs, action_dim)."""
        row = torch.full((self.action_dim,), default)
        if isinstance(value, Mapping):
            try:
                ids, _, values = resolve_matching_names_values(dict(value), self._target_names)
            except ValueError as error:
                raise ValueError(f"{type(self.cfg).__name__}.{field}: {error}") from None
            row[ids] = torch.tensor(values, dtype=row.dtype)
        elif isinstance(value, (int, float)):
            row.fill_(float(value))
        else:
            raise TypeError(
                f"{type(self.cfg).__name__}.{field} must be a number or a dict from target names to"
                f" numbers, got {value!r}."
            )
        return row.to(self.device).repeat(self.num_envs, 1)

    @property
    def scale(self) -> torch.Tensor:
        """Factor of the action. Shape (num_envs, action_dim)."""
        return self._scale

    @property
    def offset(self) -> torch.Tensor:
        """Offset added to the scaled action. Shape (num_envs, action_dim)."""
        return self._offset

    @property
    def action_dim(self) -> int:
        """One number per target."""
        return len(self._target_names)

    @property
    def raw_action(self) -> torch.Tensor:
        """The term's slice of the policy's action; zero after a reset."""
        return self._raw_actions

    @property
    def processed_actions(self) -> torch.Tensor:
        """The scaled, offset and clipped action of this step. Shape (num_envs, action_dim)."""
        return self._processed_actions

    @property
    def target_ids(self) -> torch.Tensor:
        """Entity-local ids of the controlled joints (tendons, sites)."""
        return self._target_ids

    @property
    def target_names(self) -> list[str]:
        """Names of the controlled joints (tendons, sites)."""
        return self._target_names

    @property
    def action_bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds of the actions that make sense; each (action_dim,).

        They are what the tighter of these means before scale and offset: ``clip``; and the
        actuator's ``ctrlrange``, or without one the joint's limits for positions and the actuator's
        ``effort_limit`` for efforts. Infinite where nothing bounds the target, where the scale is
        zero, and in subclasses that process or apply actions in their own way. They follow from the
        config and the compiled model: randomized encoder biases or ranges do not move them.
        """
        if type(self).process_actions is not BaseAction.process_actions:
            return super().action_bounds
        low, high = self._applied_range()
        if self._clip is not None:
            low, high = torch.maximum(low, self._clip[0]), torch.minimum(high, self._clip[1])
        ends = torch.stack(
            [(low - self._offset) / self._scale, (high - self._offset) / self._scale]
        )
        fixed = (low > high) | (self._scale == 0.0)
        least = ends.amin(dim=0).masked_fill(fixed, -float("inf"))
        most = ends.amax(dim=0).masked_fill(fixed, float("inf"))
        return least.amin(dim=0), most.amax(dim=0)

    def _applied_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the least and greatest processed actions that make sense."""
        owner = next(cls for cls in type(self).__mro__ if "command_field" in vars(cls))
        if self.command_field is None or type(self).apply_actions is not owner.apply_actions:
            infinite = torch.full((self.action_dim,), float("inf"), device=self.device)
            return -infinite, infinite
        model, kind = self._env.sim.mj_model, self.cfg.transmission_type
        ids = self._target_ids.tolist()
        low, high = target_ranges(model, self._entity, kind, self.command_field, ids)
        return low.to(self.device), high.to(self.device)

    def process_actions(self, actions: torch.Tensor) -> None:
        """Scale, offset and clip the policy's action."""
        self._raw_actions.copy_(actions)
        torch.addcmul(self._offset, actions, self._scale, out=self._processed_actions)
        if self._clip is not None:
            torch.clamp(self._processed_actions, *self._clip, out=self._processed_actions)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Forget the last action of these environments."""
        self._raw_actions[slice(None) if env_ids is None else env_ids] = 0.0


def _find_targets(entity: Entity, cfg: BaseActionCfg) -> tuple[list[int], list[str]]:
    names, keep = cfg.actuator_names, cfg.preserve_order
    if cfg.transmission_type is TransmissionType.TENDON:
        return entity.find_tendons(names, preserve_order=keep)
    if cfg.transmission_type is TransmissionType.SITE:
        return entity.find_sites(names, preserve_order=keep)
    ids, found = entity.find_joints_by_actuator_names(names)
    if keep:
        order, found = resolve_matching_names(names, found, preserve_order=True)
        ids = [ids[i] for i in order]
    return ids, found
