"""Reward manager: a weighted sum of terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    ManagerTermBaseCfg,
    find_term,
    resettable,
)
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class RewardTermCfg(ManagerTermBaseCfg):
    """One term of the reward."""

    weight: float
    """Factor of the term in the sum. Zero switches the term off without computing it."""


class RewardManager(ManagerBase):
    """Computes the reward of each step, and each term's sum over the episode.

    With ``scale_by_dt`` a term contributes value * weight * step_dt, so that returns do not depend
    on the control frequency; without it, value * weight. NaN and infinite contributions count as
    zero.
    """

    def __init__(
        self, cfg: dict[str, RewardTermCfg], env: ManagerBasedRlEnv, *, scale_by_dt: bool = True
    ) -> None:
        self.cfg = cfg
        self._scale_by_dt = scale_by_dt
        super().__init__(env)
        # One contiguous row per term: terms write rows, the reward is the sum over rows.
        shape = (len(self._terms), env.num_envs)
        self._rates = torch.zeros(shape, device=env.device)
        self._sums = torch.zeros(shape, device=env.device)
        self._zeros = torch.zeros(env.num_envs, device=env.device)
        # The weights on the device; refreshed when those of the configs, which are live, change.
        self._weights = torch.zeros(len(self._terms), 1, device=env.device)
        self._known_weights: list[float] = [0.0] * len(self._terms)

    def __str__(self) -> str:
        rows = [(i, name, cfg.weight) for i, (name, cfg) in enumerate(self._terms.items())]
        return format_table("Reward terms", ("Index", "Name", "Weight"), rows)

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms."""
        return list(self._terms)

    @property
    def step_reward(self) -> torch.Tensor:
        """Value * weight of each term in the last step. Shape (num_envs, num_terms)."""
        return self._rates.T

    @property
    def episode_sums(self) -> dict[str, torch.Tensor]:
        """What each term contributed to the current episode so far, by name. Each (num_envs,)."""
        return dict(zip(self._terms, self._sums, strict=True))

    def get_term_cfg(self, term_name: str) -> RewardTermCfg:
        """The live config of a term; changing its weight takes effect in the next step."""
        return find_term("reward", term_name, self._terms)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, torch.Tensor]:
        """Log the mean episode sums (per second of the longest episode), and restart them."""
        ids = slice(None) if env_ids is None else env_ids
        seconds = self._env.max_episode_length_s or 1.0
        means = (self._sums[:, ids].mean(dim=1) / seconds).unbind()
        self._sums[:, ids] = 0.0
        for reset in self._resets:
            reset(env_ids=env_ids)
        return {
            f"Episode_Reward/{name}": mean for name, mean in zip(self._terms, means, strict=True)
        }

    def compute(self, dt: float) -> torch.Tensor:
        """Compute the reward of the step that just ended. Shape (num_envs,), a new tensor."""
        values, weights = [], []
        for name, term in self._terms.items():
            weights.append(term.weight)
            if term.weight == 0.0:
                values.append(self._zeros)
                continue
            value = term.func(self._env, **term.params)
            self._check_term_shape(name, value)
            values.append(value)
        if not values:
            return torch.zeros_like(self._zeros)
        if weights != self._known_weights:
            self._refresh(weights)
        torch.stack(values, out=self._rates)
        self._rates.mul_(self._weights).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        reward = self._rates.sum(dim=0)
        if not self._scale_by_dt:
            self._sums.add_(self._rates)
            return reward
        self._sums.add_(self._rates, alpha=dt)
        return reward.mul_(dt)

    def _refresh(self, weights: list[float]) -> None:
        for row, (new, old) in enumerate(zip(weights, self._known_weights, strict=True)):
            if new != old:
                self._weights[row].fill_(new)
        self._known_weights = weights

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Value * weight of each term for one environment."""
        values = self._rates[:, env_idx].tolist()
        return [(name, [value]) for name, value in zip(self._terms, values, strict=True)]

    def _prepare_terms(self) -> None:
        self._terms = self._resolve(self.cfg)
        self._resets = resettable(self._terms)
