"""Action manager: splits the policy's output and passes each term its slice."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.managers.manager_base import ManagerBase, ManagerTermBase, find_term
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class ActionTermCfg(abc.ABC):
    """Configuration of an action term; ``build`` makes the term."""

    entity_name: str
    """Entity in the scene that the term acts on."""

    clip: dict[str, tuple] | None = None
    """Bounds of processed actions, by actuator name or regex: ``{".*": (-1.0, 1.0)}``."""

    @abc.abstractmethod
    def build(self, env: ManagerBasedRlEnv) -> ActionTerm:
        """Build the term that this config describes."""


class ActionTerm(ManagerTermBase):
    """Turns a slice of the policy's action into actuator targets."""

    constant_between_substeps = False
    """Whether ``apply_actions`` writes the same targets at every substep of a control step. If it
    does in all terms, the physics can run its substeps in one call."""

    def __init__(self, cfg: ActionTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        self._entity = env.scene[cfg.entity_name]

    @property
    @abc.abstractmethod
    def action_dim(self) -> int:
        """How many numbers the term takes from the policy's action."""

    @property
    @abc.abstractmethod
    def raw_action(self) -> torch.Tensor:
        """The term's slice of the policy's action. Shape (num_envs, action_dim)."""

    @property
    def action_bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds of the actions that make sense; each (action_dim,). Infinite here.

        The environment's action space has these bounds. ``step()`` still takes any action.
        """
        infinite = torch.full((self.action_dim,), float("inf"), device=self.device)
        return -infinite, infinite

    @abc.abstractmethod
    def process_actions(self, actions: torch.Tensor) -> None:
        """Take the policy's action; called once per control step."""

    @abc.abstractmethod
    def apply_actions(self) -> None:
        """Write the targets; called before every physics substep."""


class ActionManager(ManagerBase):
    """Keeps the last three actions and routes each slice to its term."""

    def __init__(self, cfg: dict[str, ActionTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        shape = (env.num_envs, self.total_action_dim)
        # Newest first. The three buffers rotate, so a step costs one copy.
        self._history = [torch.zeros(shape, device=env.device) for _ in range(3)]

    def __str__(self) -> str:
        rows = [(i, name, term.action_dim) for i, (name, term) in enumerate(self._terms.items())]
        title = f"Action terms (action shape: {self.total_action_dim})"
        return format_table(title, ("Index", "Name", "Dimension"), rows)

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms, in the order of their slices."""
        return list(self._terms)

    @property
    def action_term_dim(self) -> list[int]:
        """Width of each term's slice."""
        return list(self._dims)

    @property
    def total_action_dim(self) -> int:
        """Width of the policy's action."""
        return sum(self._dims)

    @property
    def action_bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The terms' bounds, concatenated; each (total_action_dim,)."""
        bounds = [term.action_bounds for term in self._terms.values()]
        empty = torch.zeros(0, device=self.device)
        return torch.cat([empty, *(b[0] for b in bounds)]), torch.cat(
            [empty, *(b[1] for b in bounds)]
        )

    @property
    def action(self) -> torch.Tensor:
        """The policy's action of this step, unscaled. Shape (num_envs, total_action_dim)."""
        return self._history[0]

    @property
    def prev_action(self) -> torch.Tensor:
        """The action of the previous step."""
        return self._history[1]

    @property
    def prev_prev_action(self) -> torch.Tensor:
        """The action of two steps ago."""
        return self._history[2]

    @property
    def constant_between_substeps(self) -> bool:
        """Whether applying the actions once per control step is enough."""
        return all(term.constant_between_substeps for term in self._terms.values())

    def get_term(self, name: str) -> ActionTerm:
        """The term of this name."""
        return find_term("action", name, self._terms)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, float]:
        """Clear the actions of these environments."""
        ids = slice(None) if env_ids is None else env_ids
        for buffer in self._history:
            buffer[ids] = 0.0
        for term in self._terms.values():
            term.reset(env_ids=env_ids)
        return {}

    def process_action(self, action: torch.Tensor) -> None:
        """Store the policy's action and give each term its slice; called once per step."""
        if action.shape != self._history[0].shape:
            raise ValueError(
                f"Action has shape {tuple(action.shape)}, expected"
                f" {tuple(self._history[0].shape)}: one row per environment and"
                f" {self._dims} values for the terms {self.active_terms}."
            )
        newest = self._history.pop()
        newest.copy_(action)
        self._history.insert(0, newest)
        # A single term takes all of it; to cut it out would cost as much as the copy.
        parts = [newest] if len(self._dims) == 1 else newest.split(self._dims, dim=1)
        for term, part in zip(self._terms.values(), parts, strict=True):
            term.process_actions(part)

    def apply_action(self) -> None:
        """Let each term write its targets; called before a physics substep."""
        for term in self._terms.values():
            term.apply_actions()

    def get_active_iterable_terms(self, env_idx: int) -> Sequence[tuple[str, Sequence[float]]]:
        """Each term's slice of the action of one environment."""
        parts = self._history[0][env_idx].cpu().split(self._dims)
        return [(name, part.tolist()) for name, part in zip(self._terms, parts, strict=True)]

    def get_visualizable_terms(self) -> list[tuple[str, Any]]:
        """Names and terms of those that can draw something."""
        return [(name, term) for name, term in self._terms.items() if hasattr(term, "debug_vis")]

    def _prepare_terms(self) -> None:
        self._terms: dict[str, ActionTerm] = {
            name: deepcopy(term_cfg).build(self._env)
            for name, term_cfg in self.cfg.items()
            if term_cfg is not None
        }
        self._dims = [term.action_dim for term in self._terms.values()]
