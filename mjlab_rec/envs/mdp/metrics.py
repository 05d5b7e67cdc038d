"""Stock metrics. Each returns (num_envs,), which is only logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["mean_action_acc"]


def mean_action_acc(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Mean absolute second difference of the policy's action; small means smooth."""
    actions = env.action_manager
    acc = torch.sub(actions.action, actions.prev_action, alpha=2)
    return acc.add_(actions.prev_prev_action).abs_().mean(dim=1)
