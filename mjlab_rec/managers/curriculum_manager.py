"""Curriculum manager: changes the task as training progresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
class CurriculumTermCfg(ManagerTermBaseCfg):
    """One rule of the curriculum: ``func(env, env_ids, **params)``, called when episodes end.

    What it returns (a number, a dict of numbers or None) is logged.
    """


class CurriculumManager(ManagerBase):
    """Calls the rules for the environments whose episode ended, before they are reset."""

    _call_arguments = 2

    def __init__(self, cfg: dict[str, CurriculumTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        self._state: dict[str, Any] = dict.fromkeys(self._terms)

    def __str__(self) -> str:
        return format_table("Curriculum terms", ("Index", "Name"), enumerate(self._terms))

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms."""
        return list(self._terms)

    def get_term_cfg(self, term_name: str) -> CurriculumTermCfg:
        """The live config of a term."""
        return find_term("curriculum", term_name, self._terms)

    def compute(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Apply the rules, given the environments whose episode ended."""
        ids = slice(None) if env_ids is None else env_ids
        for name, term in self._terms.items():
            self._state[name] = term.func(self._env, ids, **term.params)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, Any]:
        """Log what the rules returned."""
        for reset in self._resets:
            reset(env_ids=env_ids)
        return {f"Curriculum/{key}": value for _, key, value in self._values()}

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Return the last value of each rule, the same for every environment."""
        terms: dict[str, list[float]] = {}
        for name, _, value in self._values():
            terms.setdefault(name, []).append(float(value))
        return list(terms.items())

    def _values(self) -> Iterator[tuple[str, str, Any]]:
        """Yield term name, log key and value of everything that the rules returned."""
        for name, state in self._state.items():
            if isinstance(state, dict):
                yield from ((name, f"{name}/{key}", value) for key, value in state.items())
            elif state is not None:
                yield name, name, state

    def _prepare_terms(self) -> None:
        self._terms = self._resolve(self.cfg)
        self._resets = resettable(self._terms)


class NullCurriculumManager(CurriculumManager):
    """Replaces the manager if there is no curriculum."""

    def __init__(self) -> None:
        self.cfg, self._state = {}, {}
        self._prepare_terms()
