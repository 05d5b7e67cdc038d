"""Policies by name: functions that map observations to actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.utils.lookup import look_up
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

Policy = Callable[[dict[str, Any]], torch.Tensor]
"""Takes the observation groups, returns the action of every environment."""


def zero_policy(env: ManagerBasedRlEnv) -> Policy:
    """Always returns 0."""
    action = torch.zeros_like(env.action_manager.action)
    return lambda obs: action


def random_policy(env: ManagerBasedRlEnv) -> Policy:
    """Draws actions uniformly from the action space, with its own random numbers.

    An action without a lower or an upper bound is drawn from [-1, 1], and kept within the other.
    """
    like = env.action_manager.action
    low, high = env.action_manager.action_bounds
    finite = low.isfinite() & high.isfinite()
    start = low.where(finite, -1.0)
    width = high.where(finite, 1.0) - start
    generator = torch.Generator(like.device).manual_seed(env.cfg.seed or 0)

    def policy(obs: dict[str, Any]) -> torch.Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=torch.float32, device=like.device)
        return torch.addcmul(start, drawn, width).clamp_(low, high)

    return policy


POLICIES: dict[str, Callable[[ManagerBasedRlEnv], Policy]] = {
    "zero": zero_policy,
    "random": random_policy,
}
"""Policies that need no training, by name."""


def policy_maker(name: str) -> Callable[[ManagerBasedRlEnv], Policy]:
    """Return the function that makes a policy for an environment.

    Args:
        name: "zero", "random", or "package.module:function" for your own function that takes
            the environment and returns the policy.
    """
    if name in POLICIES:
        return POLICIES[name]
    if ":" in name:
        maker = look_up(name)
        if callable(maker):
            return maker  # type: ignore[return-value]
        raise ValueError(f"{name!r} is not a function that takes an environment.")
    raise ValueError(
        f"Unknown agent {name!r}. {nearest(name, [*POLICIES, 'latest', 'best'])} Or give a file, a"
        " run's folder, or a function that takes the environment and returns a policy, as"
        " 'package.module:function'."
    )
