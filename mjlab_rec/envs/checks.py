"""Checks of the actions that callers pass to an environment."""

from __future__ import annotations

import math

import torch

_FINE = torch.zeros(1, dtype=torch.bool)


def checked_action(action: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the action on the device, and a mask (1,) that says whether it is bad.

    On a CPU the action is checked now. On a GPU that would wait for the device, so the caller reads
    the mask with the rest of the step, and calls ``check_finite`` if it is set.
    """
    if not isinstance(action, torch.Tensor):
        raise TypeError(
            f"step() takes a torch.Tensor, got {type(action).__name__}. Convert it with"
            " torch.as_tensor, or wrap the environment in mjlab_rec.rl.NumpyVectorEnv."
        )
    if not action.is_floating_point():
        raise TypeError(
            f"The action has dtype {action.dtype}, expected floating point (torch.float32)."
        )
    action = action.to(device)
    # A sum detects NaN and infinities in one operation.
    total = action.sum()
    if device != "cpu":
        return action, (~total.isfinite()).view(1)
    if not math.isfinite(total.item()):
        check_finite(action)
    return action, _FINE


def check_finite(action: torch.Tensor) -> None:
    """Name the environments whose action is not finite. A sum of huge numbers may overflow."""
    rows = (~action.isfinite()).flatten(start_dim=1).any(dim=1).nonzero().flatten().tolist()
    if rows:
        raise ValueError(
            f"The action has NaN or infinite values for environments {rows[:10]}. Look for a"
            " diverging policy, or clean it with torch.nan_to_num before step()."
        )
