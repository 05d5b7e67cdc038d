"""Stops training when rewards, observations or losses are no longer numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch


class NonFiniteError(ValueError):
    """Training cannot go on, because something became NaN or infinite."""


class FiniteCheck:
    """Collects what is wrong in each step, and reports it once per iteration.

    A GPU is made to wait only then.
    """

    def __init__(self) -> None:
        self._flags: dict[str, list[torch.Tensor]] = {}

    def add_step(self, obs: Any, rewards: torch.Tensor) -> None:
        """Look at what a step returned."""
        for name, value in obs.items():
            for key, tensor in _tensors(f"observation {name!r}", value):
                self._flags.setdefault(key, []).append(tensor.isnan().any())
        self._flags.setdefault("reward", []).append(~rewards.isfinite().all())

    def report(self, iteration: int) -> None:
        """Raise NonFiniteError if something was wrong since the last call."""
        names, flags = list(self._flags), [torch.stack(f).any() for f in self._flags.values()]
        self._flags = {}
        bad = [name for name, flag in zip(names, torch.stack(flags).tolist(), strict=True) if flag]
        if bad:
            raise NonFiniteError(
                f"Iteration {iteration}: NaN or infinity in {', '.join(bad)}, so training stops"
                " before the networks learn from it. Look for an unstable simulation (a smaller"
                " timestep, softer gains), or set nan_policy of the observation group to 'sanitize'"
                " and end such episodes with the termination mdp.nan_detection. A flight recorder"
                " (--record flight) writes the steps that led here."
            )


def check_losses(losses: Mapping[str, float], iteration: int) -> None:
    """Raise NonFiniteError if a loss is not a finite number."""
    bad = {name: loss for name, loss in losses.items() if not math.isfinite(loss)}
    if bad:
        said = ", ".join(f"{name} = {loss}" for name, loss in bad.items())
        raise NonFiniteError(
            f"Iteration {iteration}: a loss is not a finite number: {said}. The weights are lost,"
            " the last checkpoint is not. Try a lower learning_rate, a lower max_grad_norm,"
            " obs_normalization=True, or rewards of a smaller scale. A flight recorder (--record"
            " flight) writes the steps that led here."
        )


def _tensors(name: str, value: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name, value)] if value.is_floating_point() else []
    return [pair for key, part in value.items() for pair in _tensors(f"{name} {key!r}", part)]
