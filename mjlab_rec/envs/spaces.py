"""The environment's observations and actions as Gymnasium spaces."""

from __future__ import annotations

import gymnasium
import numpy as np

from mjlab_rec.managers.action_manager import ActionManager
from mjlab_rec.managers.observation_manager import ObservationManager


def box(shape: tuple[int, ...]) -> gymnasium.spaces.Box:
    """Return the space of all float32 values of this shape."""
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, dtype=np.float32)


def action_space(manager: ActionManager) -> gymnasium.spaces.Box:
    """One environment's action, within the bounds that the terms report.

    The environment does not clip actions. One outside the bounds acts as the nearest one inside if
    a ``clip`` or ``ctrlrange`` bounds it; beyond a joint's limit it presses against the limit.
    """
    low, high = (bound.numpy(force=True).astype(np.float32) for bound in manager.action_bounds)
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


def observation_space(manager: ObservationManager) -> gymnasium.spaces.Dict:
    """One environment's observations: a dict of groups, and of terms if they are not joined."""
    groups: dict[str, gymnasium.Space] = {}
    names = manager.active_terms
    for name, shape in manager.group_obs_dim.items():
        if isinstance(shape, tuple):
            groups[name] = box(shape)
        else:
            terms = zip(names[name], shape, strict=True)
            groups[name] = gymnasium.spaces.Dict({term: box(dim) for term, dim in terms})
    return gymnasium.spaces.Dict(groups)
