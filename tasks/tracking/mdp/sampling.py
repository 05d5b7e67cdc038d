"""Where episodes start: more often in those seconds of a motion in which robots fail."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class FailureBins:
    """A running mean of failures in each second of a motion, and starts drawn from it.

    Args:
        frames: Frames of the motion.
        step_dt: Seconds from one frame to the next.
        kernel_size: Number of seconds up to a failure that are drawn more often.
        decay: Weight of each of them, relative to the one after it.
        uniform_ratio: Failures that are added, spread evenly.
        alpha: Weight of each step in the running mean.
        device: Where the counts are.
    """

    def __init__(
        self,
        frames: int,
        step_dt: float,
        *,
        kernel_size: int,
        decay: float,
        uniform_ratio: float,
        alpha: float,
        device: str | torch.device,
    ) -> None:
        if kernel_size < 1 or uniform_ratio <= 0.0:
            raise ValueError(
                "Adaptive sampling needs adaptive_kernel_size >= 1 and adaptive_uniform_ratio > 0,"
                f" got {kernel_size} and {uniform_ratio}."
            )
        self._frames = frames
        self._floor = uniform_ratio
        self._alpha = alpha
        bins = int(frames * step_dt + 1e-9) + 1
        self.failed = torch.zeros(bins, device=device)
        """Mean number of failures per step, by second of the motion."""
        kernel = decay ** torch.arange(kernel_size, dtype=torch.float32, device=device)
        self._kernel = kernel / kernel.sum()

    def count(self, frames: Tensor, failed: Tensor) -> None:
        """Take a step's failures into the running mean.

        Args:
            frames: The frame of each environment (num_envs,).
            failed: Whether it failed there (num_envs,).
        """
        bins = frames * len(self.failed) // self._frames
        now = torch.zeros_like(self.failed).index_add_(0, bins, failed.float())
        self.failed.lerp_(now, self._alpha)

    def probabilities(self) -> Tensor:
        """How likely an episode starts in each second (bins,)."""
        weight = self.failed + self._floor / len(self.failed)
        more = weight[-1:].expand(len(self._kernel) - 1)
        weight = torch.cat((weight, more)).unfold(0, len(self._kernel), 1) @ self._kernel
        return weight / weight.sum()

    def entropy(self, probabilities: Tensor) -> Tensor:
        """How even starts are: 1 if all seconds are equally likely, 0 if there is only one."""
        most = math.log(len(probabilities)) if len(probabilities) > 1 else 1.0
        return torch.special.entr(probabilities).sum() / most

    def draw(self, uniform: Tensor) -> Tensor:
        """Turn uniform numbers in [0, 1) into places in the motion, from 0 to 1."""
        share = self.probabilities()
        end = share.cumsum(0)
        # Scaled to the sum, which rounding makes differ from 1.
        place = uniform * end[-1]
        bins = torch.searchsorted(end, place, right=True).clamp_(max=len(share) - 1)
        within = 1.0 - (end[bins] - place) / share[bins]
        return (bins + within.clamp(0.0, 1.0)) / len(share)
