"""What recorders ask of an environment besides its buffers, for environments without managers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mjlab_rec.utils.string import nearest

GROUP = "actor"
"""The group of observations: what the policy sees."""


class Observations:
    """Stands for an observation manager with one group.

    Args:
        shapes: Shape of each observation by name; a single one that has no name is the group.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        whole = "" in shapes
        names = [] if whole else list(shapes)
        self.active_terms = {GROUP: names}
        self.group_obs_term_dim = {GROUP: [shapes[name] for name in names]}
        self.group_obs_concatenate = {GROUP: whole}


class Actions:
    """Stands for an action manager: the last actions, as a tensor or by name."""

    active_terms: Sequence[str] = ()
    action_term_dim: Sequence[int] = ()

    def __init__(self, action: torch.Tensor | Mapping[str, torch.Tensor]) -> None:
        self.action = action
        """(num_envs, ...), or a dict of them for actions of several parts."""


class NoRewardTerms:
    """Stands for a reward manager: the reward is not the sum of known terms."""

    active_terms: Sequence[str] = ()

    def __init__(self, num_envs: int, device: str) -> None:
        self.step_reward = torch.zeros(num_envs, 0, device=device)


class Terminations:
    """Stands for a termination manager.

    Args:
        terms: For each term a function that returns which environments it is true for.
    """

    def __init__(self, terms: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        self._terms = dict(terms)

    @property
    def active_terms(self) -> list[str]:
        """Names of the terms."""
        return list(self._terms)

    def get_term(self, name: str) -> torch.Tensor:
        """Which environments a term is true for (num_envs,)."""
        if name not in self._terms:
            raise ValueError(
                f"There is no termination term '{name}'. {nearest(name, self.active_terms)}"
            )
        return self._terms[name]()


class NoScene:
    """Stands for a scene of which nothing is known."""

    terrain = None

    def __init__(self, num_envs: int, device: str) -> None:
        self.sensors: dict[str, Any] = {}
        self.entities: dict[str, Any] = {}
        self.env_origins = torch.zeros(num_envs, 3, device=device)


class NoSim:
    """Stands for a simulation that cannot be reached, such as one inside other environments."""

    def __init__(self, engine_name: str) -> None:
        self.engine_name = engine_name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sim.{name} is not there: the wrapped environment does not show its simulation. What"
            " needs the physics, such as Rerun's scene and the channels state and ctrl, can be"
            " recorded from this package's, mjlab's and Isaac Lab's environments."
        )
