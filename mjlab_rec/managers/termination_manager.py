"""Termination manager: when an episode ends, and why."""

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


@dataclass
class TerminationTermCfg(ManagerTermBaseCfg):
    """One reason for an episode to end."""

    time_out: bool = False
    """Whether the end is a time limit (the episode is truncated) rather than an outcome (it is
    terminated)."""


class TerminationManager(ManagerBase):
    """Combines all reasons into the flags ``terminated`` and ``time_outs``."""

    def __init__(self, cfg: dict[str, TerminationTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        # One row per term: first outcomes, then time limits, so that each kind is a block.
        limits = [term.time_out for term in self._terms.values()]
        order = sorted(range(len(limits)), key=limits.__getitem__)
        self._num_outcomes = limits.count(False)
        self._row = {name: order.index(i) for i, name in enumerate(self._terms)}
        shape = (len(self._terms), env.num_envs)
        self._dones = torch.zeros(shape, dtype=torch.bool, device=env.device)
        self._never = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        self._terminated = self._time_outs = self._never

    def __str__(self) -> str:
        rows = [(i, name, cfg.time_out) for i, (name, cfg) in enumerate(self._terms.items())]
        return format_table("Termination terms", ("Index", "Name", "Time out"), rows)

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms."""
        return list(self._terms)

    @property
    def terminated(self) -> torch.Tensor:
        """Which episodes ended by an outcome in the last step. Shape (num_envs,)."""
        return self._terminated

    @property
    def time_outs(self) -> torch.Tensor:
        """Which episodes ended by a time limit in the last step. Shape (num_envs,)."""
        return self._time_outs

    @property
    def dones(self) -> torch.Tensor:
        """Which episodes ended in the last step. Shape (num_envs,)."""
        return self._terminated | self._time_outs

    def get_term(self, name: str) -> torch.Tensor:
        """Which environments this reason applied to in the last step. Shape (num_envs,)."""
        return self._dones[find_term("termination", name, self._row)]

    def get_term_cfg(self, term_name: str) -> TerminationTermCfg:
        """The live config of a term."""
        return find_term("termination", term_name, self._terms)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, torch.Tensor]:
        """Log how many of these episodes each reason ended."""
        ids = slice(None) if env_ids is None else env_ids
        counts = self._dones[:, ids].sum(dim=1).unbind()
        log = {f"Episode_Termination/{name}": counts[row] for name, row in self._row.items()}
        for reset in self._resets:
            reset(env_ids=env_ids)
        return log

    def compute(self) -> torch.Tensor:
        """Evaluate all reasons. Returns which episodes are over: (num_envs,), a new tensor."""
        values: list[torch.Tensor] = [self._never] * len(self._terms)
        for name, term in self._terms.items():
            value = term.func(self._env, **term.params)
            self._check_term_shape(name, value)
            if value.dtype is not torch.bool:
                raise TypeError(
                    f"TerminationManager term '{name}' returned {value.dtype}, expected torch.bool."
                    " Compare with a threshold in the term."
                )
            values[self._row[name]] = value
        if values:
            # A new tensor each step: the caller gets parts of it and may keep them.
            self._dones = torch.stack(values)
        self._terminated = self._any(0, self._num_outcomes)
        self._time_outs = self._any(self._num_outcomes, len(values))
        return self._terminated | self._time_outs

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Return whether each reason applied to one environment, as 0 or 1."""
        dones = self._dones[:, env_idx].tolist()
        return [(name, [float(dones[row])]) for name, row in self._row.items()]

    def _any(self, first: int, end: int) -> torch.Tensor:
        """Where any of these rows is true. A view where one is enough, or else a new tensor."""
        if end - first == 1:
            return self._dones[first]
        if end == first:
            return torch.zeros_like(self._never)
        return self._dones[first:end].any(dim=0)

    def _prepare_terms(self) -> None:
        self._terms = self._resolve(self.cfg)
        self._resets = resettable(self._terms)
