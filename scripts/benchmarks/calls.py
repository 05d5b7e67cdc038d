"""How many torch operations a step makes, by part: what managers cost on a GPU or with few envs."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.parts import wrapped
from benchmarks.side import random_action
from mjlab_rec.envs import ManagerBasedRlEnv

_METHODS = {
    "actions": {
        "action_manager": ("process_action", "apply_action"),
        "scene": ("write_data_to_sim",),
    },
    "physics": {"sim": ("step", "forward", "sense"), "scene": ("update",)},
    "terminations": {"termination_manager": ("compute",)},
    "rewards": {"reward_manager": ("compute",)},
    "metrics": {"metrics_manager": ("compute", "compute_substep")},
    "events": {"event_manager": ("apply", "advance_intervals", "apply_intervals")},
    "commands": {"command_manager": ("advance", "update")},
    "observations": {"observation_manager": ("compute", "preview")},
    "resets": {"": ("_reset_idx",)},
}
PARTS = (*_METHODS, "rest")

# They only look at memory in another way, which costs the host little and a GPU nothing.
_FREE = {"detach", "alias", "view", "_unsafe_view", "select", "slice", "unsqueeze", "squeeze", "t"}
_FREE |= {"expand", "transpose", "unbind", "split", "split_with_sizes", "permute", "as_strided"}
_FREE |= {"_reshape_alias", "lift_fresh"}


def calls(env: ManagerBasedRlEnv, steps: int) -> dict[str, float]:
    """Return the torch operations per step, by part, without those that only make views."""
    counter = Counter()
    action = random_action(env)
    with torch.no_grad(), wrapped(env, _METHODS, counter.attributing), counter:
        for _ in range(steps):
            env.step(action)
    return {part: counter.found[part] / steps for part in PARTS}


class Counter(TorchDispatchMode):
    """Counts operations for the part that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.found: collections.Counter[str] = collections.Counter()
        self._running = ["rest"]

    def attributing(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method, whose operations count for this part."""

        def attributed(*args: Any, **kwargs: Any) -> Any:
            self._running.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                self._running.pop()

        return attributed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] not in _FREE:
            self.found[self._running[-1]] += 1
        return func(*args, **(kwargs or {}))
