"""Metrics manager: numbers that are logged for each episode but not part of the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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

_REDUCTIONS = ("last", "max", "mean", "sum")


@dataclass(kw_only=True)
class MetricsTermCfg(ManagerTermBaseCfg):
    """One metric."""

    per_substep: bool = False
    """Evaluate at every physics substep and take the mean as the step's value. Inside the substeps
    only the integrated state (positions, velocities, activations) is current."""

    reduce: Literal["last", "max", "mean", "sum"] = "mean"
    """How step values are reduced to the value of the episode."""


class MetricsManager(ManagerBase):
    """Evaluates the metrics each step and reduces them over the episode."""

    def __init__(self, cfg: dict[str, MetricsTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        shape = (len(self._terms), env.num_envs)
        # One row per term; _episode holds the running sum or maximum.
        self._values = torch.zeros(shape, device=env.device)
        self._episode = torch.zeros(shape, device=env.device)
        self._last = torch.zeros(shape, device=env.device)
        self._steps = torch.zeros(env.num_envs, device=env.device)
        self._substeps = 0
        self._substep_sums = torch.zeros(shape, device=env.device)
        reductions = [term.reduce for term in self._terms.values()]
        self._all_add_up = "max" not in reductions
        self._rows = list(zip(reductions, self._values, self._episode, strict=True))
        # What resets need to know of all terms at once. Each (num_terms, 1).
        is_kind = [[how == kind for how in reductions] for kind in ("last", "mean", "max")]
        self._is_last, self._is_mean, is_max = torch.tensor(
            is_kind, dtype=torch.bool, device=env.device
        )[:, :, None]
        self._start = torch.where(is_max, -torch.inf, 0.0)
        self._episode.copy_(self._start.expand(shape))

    def __str__(self) -> str:
        rows = [(i, name, cfg.reduce) for i, (name, cfg) in enumerate(self._terms.items())]
        return format_table("Metrics terms", ("Index", "Name", "Reduce"), rows)

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms."""
        return list(self._terms)

    @property
    def last_episode(self) -> dict[str, torch.Tensor]:
        """Each metric's value of the last episode that ended, by name. Each (num_envs,)."""
        return dict(zip(self._terms, self._last, strict=True))

    @property
    def has_substep_terms(self) -> bool:
        """Whether any metric is evaluated at every substep."""
        return any(term.per_substep for term in self._terms.values())

    def get_term_cfg(self, term_name: str) -> MetricsTermCfg:
        """The live config of a term."""
        return find_term("metrics", term_name, self._terms)

    def compute_substep(self) -> None:
        """Add up the per-substep metrics; called after every physics substep."""
        for row, (name, term) in enumerate(self._terms.items()):
            if term.per_substep:
                if self._substeps == 0:
                    self._substep_sums[row].zero_()
                self._substep_sums[row] += self._evaluate(name, term)
        self._substeps += 1

    def compute(self) -> None:
        """Evaluate all metrics for the step that just ended."""
        self._steps += 1
        values = []
        for row, (name, term) in enumerate(self._terms.items()):
            if not term.per_substep:
                values.append(self._evaluate(name, term))
            elif self._substeps:
                values.append(self._substep_sums[row] / self._substeps)
            else:
                values.append(self._values[row].clone())
        torch.stack(values, out=self._values)
        self._substeps = 0
        if self._all_add_up:  # What "last" terms add is not used: _values has their last ones.
            self._episode.add_(self._values)
            return
        for reduce, value, episode in self._rows:
            if reduce == "max":
                torch.maximum(episode, value, out=episode)
            else:
                episode.add_(value)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, torch.Tensor]:
        """Log the mean over these environments of each metric's episode value."""
        ids = slice(None) if env_ids is None else env_ids
        steps = self._steps[ids]
        values = torch.where(self._is_last, self._values[:, ids], self._episode[:, ids])
        values /= torch.where(self._is_mean, steps.clamp(min=1.0), 1.0)
        # An environment that is reset before its first step has no maximum yet.
        values = torch.where(steps > 0, values, 0.0)
        self._last[:, ids] = values
        self._episode[:, ids] = self._start
        self._values[:, ids] = 0.0
        self._steps[ids] = 0
        for reset in self._resets:
            reset(env_ids=env_ids)
        means = values.mean(dim=1).unbind()
        return {
            f"Episode_Metrics/{name}": mean for name, mean in zip(self._terms, means, strict=True)
        }

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Last value of each metric for one environment."""
        values = self._values[:, env_idx].tolist()
        return [(name, [value]) for name, value in zip(self._terms, values, strict=True)]

    def _evaluate(self, name: str, term: MetricsTermCfg) -> torch.Tensor:
        value = term.func(self._env, **term.params)
        self._check_term_shape(name, value)
        return value

    def _prepare_terms(self) -> None:
        self._terms = self._resolve(self.cfg)
        for name, term in self._terms.items():
            if term.reduce not in _REDUCTIONS:
                raise ValueError(
                    f"MetricsManager term '{name}': unknown reduce '{term.reduce}'."
                    f" Known: {', '.join(_REDUCTIONS)}."
                )
        self._resets = resettable(self._terms)


class NullMetricsManager(MetricsManager):
    """Replaces the manager if there are no metrics: every operation returns at once."""

    def __init__(self) -> None:
        self.cfg = {}
        self._prepare_terms()

    @property
    def last_episode(self) -> dict[str, torch.Tensor]:
        """There are no metrics."""
        return {}

    def compute_substep(self) -> None:
        """Nothing to add up."""

    def compute(self) -> None:
        """Nothing to evaluate."""

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, torch.Tensor]:
        """Nothing to log."""
        return {}

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """There are no values."""
        return []
