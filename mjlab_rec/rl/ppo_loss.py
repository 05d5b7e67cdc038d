"""PPO's losses and their gradients by formula, for a Gaussian with one standard deviation.

They are those of RSL-RL. As formulas they need a third of the torch calls that autograd makes.
"""

from __future__ import annotations

import math
from typing import Any

import torch


class ActorLoss:
    """The clipped surrogate loss and the entropy bonus of a GaussianDistribution.

    Args:
        distribution: RSL-RL's GaussianDistribution, whose standard deviation is a parameter.
        batch_size: Steps in a mini-batch.
        num_batches: Mini-batches in an update.
        clip_param: Greatest change of the probability of an action, such as 0.2.
        entropy_coef: Weight of the entropy.
    """

    def __init__(
        self,
        distribution: Any,
        batch_size: int,
        num_batches: int,
        clip_param: float,
        entropy_coef: float,
    ) -> None:
        self._is_log = distribution.std_type == "log"
        self._parameter = distribution.log_std_param if self._is_log else distribution.std_param
        self._range = distribution.log_std_range if self._is_log else distribution.std_range
        self._clip, self._entropy_coef = clip_param, entropy_coef
        size, device = distribution.output_dim, self._parameter.device

        def buffer(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, device=device)

        steps = batch_size * num_batches
        self._actions, self._old_means = buffer(steps, size), buffer(steps, size)
        self._action_batches = self._actions.split(batch_size)
        self._old_mean_batches = self._old_means.split(batch_size)
        self._costs, self._old_surprise = buffer(steps), buffer(steps)
        self._cost_batches = self._costs.split(batch_size)
        self._old_surprise_batches = self._old_surprise.split(batch_size)
        self._old_std = buffer(size)
        self._z, self._z2, self._gradient = (buffer(batch_size, size) for _ in range(3))
        self._ratio, self._clipped, self._loss = (buffer(batch_size) for _ in range(3))
        self._batch_size = batch_size

    def std(self) -> torch.Tensor:
        """Return the standard deviation, (num_actions,)."""
        value = self._parameter.detach().clamp(*self._range)
        return value.exp_() if self._is_log else value

    def shuffle(
        self,
        actions: torch.Tensor,
        means: torch.Tensor,
        advantages: torch.Tensor,
        order: torch.Tensor,
        normalize_each: bool,
    ) -> None:
        """Prepare an update from a rollout of (steps, ...), taken in this order.

        Args:
            actions: What was done.
            means: Means of the distribution that it was drawn from.
            advantages: Its advantages, (steps,).
            order: Steps by their mini-batch.
            normalize_each: Normalize the advantages within each mini-batch.
        """
        torch.index_select(actions, 0, order, out=self._actions)
        torch.index_select(means, 0, order, out=self._old_means)
        torch.index_select(advantages, 0, order, out=self._costs)
        if normalize_each:
            for part in self._cost_batches:
                part.sub_(part.mean()).div_(part.std() + 1e-8)
        self._costs.neg_()
        std = self._old_std.copy_(self.std())
        # Up to a constant, minus the log probability is log(std) + z^2 / 2, summed over actions.
        z = (self._actions - self._old_means).div_(std)
        torch.sum(z.square_(), 1, out=self._old_surprise)
        self._old_surprise.mul_(0.5).add_(std.log().sum())

    def kl(self, batch: int, mean: torch.Tensor) -> torch.Tensor:
        """Return the mean KL divergence from the rollout's distribution to this one, ()."""
        std = self.std()
        ratio = self._old_std / std
        shift = torch.sub(self._old_mean_batches[batch], mean, out=self._gradient).div_(std)
        shift = shift.view(-1)
        moved = torch.dot(shift, shift).div_(2 * self._batch_size)
        return moved.add_((0.5 * ratio.square() - ratio.log() - 0.5).sum())

    def backward(
        self, batch: int, mean: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Write the gradient of the standard deviation, and return that of the mean.

        Args:
            batch: Number of the mini-batch.
            mean: Mean of the distribution now, (batch_size, num_actions).

        Returns:
            The gradient of the mean, (batch_size, num_actions); the surrogate loss, (); and the
            entropy, ().
        """
        std = self.std()
        log_std = std.log().sum()
        cost = self._cost_batches[batch]
        z = torch.sub(self._action_batches[batch], mean, out=self._z).div_(std)
        z2 = torch.mul(z, z, out=self._z2)
        ratio = torch.sum(z2, 1, out=self._ratio).mul_(-0.5).sub_(log_std)
        ratio.add_(self._old_surprise_batches[batch]).exp_()

        clipped = torch.clamp(ratio, 1.0 - self._clip, 1.0 + self._clip, out=self._clipped)
        clipped.mul_(cost)
        surrogate = ratio.mul_(cost)
        loss = torch.maximum(surrogate, clipped, out=self._loss).mean()
        # Where the clipped one is greater, it is constant. The gradient of a ratio with respect to
        # the log probability is the ratio.
        by_log_prob = surrogate.mul_(surrogate >= clipped).div_(self._batch_size)

        if self._parameter.requires_grad:
            by_std = torch.mv(z2.t(), by_log_prob).sub_(by_log_prob.sum() + self._entropy_coef)
            inside = (self._parameter >= self._range[0]) & (self._parameter <= self._range[1])
            by_std.mul_(inside)
            # With respect to log(std), the factor 1 / std is not there.
            self._parameter.grad.copy_(by_std if self._is_log else by_std.div_(std))
        torch.mul(z, by_log_prob.unsqueeze(1), out=self._gradient).div_(std)
        entropy = log_std + len(std) * (0.5 + 0.5 * math.log(2.0 * math.pi))
        return self._gradient, loss, entropy


class CriticLoss:
    """The squared error of the critic, clipped or not.

    Args:
        batch_size: Steps in a mini-batch.
        num_batches: Mini-batches in an update.
        clip_param: Greatest change of a value that is rewarded; None does not clip.
        coef: Weight of the loss.
        device: Where the tensors are.
    """

    def __init__(
        self, batch_size: int, num_batches: int, clip_param: float | None, coef: float, device: Any
    ) -> None:
        self._clip, self._factor = clip_param, 2.0 * coef / batch_size
        self._returns, self._old_values = torch.zeros(2, batch_size * num_batches, 1, device=device)
        self._return_batches = self._returns.split(batch_size)
        self._old_value_batches = self._old_values.split(batch_size)
        self._error, self._change, self._clipped = torch.zeros(3, batch_size, 1, device=device)

    def shuffle(self, returns: torch.Tensor, values: torch.Tensor, order: torch.Tensor) -> None:
        """Prepare an update from the returns and values of a rollout, each (steps, 1)."""
        torch.index_select(returns, 0, order, out=self._returns)
        torch.index_select(values, 0, order, out=self._old_values)

    def backward(self, batch: int, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradient of the values of a mini-batch, (batch_size, 1), and the loss, ()."""
        target = self._return_batches[batch]
        error = torch.sub(values, target, out=self._error)
        if self._clip is None:
            return error.mul(self._factor), error.square_().mean()
        old = self._old_value_batches[batch]
        change = torch.sub(values, old, out=self._change)
        clipped = torch.clamp(change, -self._clip, self._clip, out=self._clipped)
        is_inside = clipped == change
        clipped.add_(old).sub_(target).square_()
        squared = error.square()
        loss = torch.maximum(squared, clipped).mean()
        # Where the clipped error is greater, it is constant, unless nothing was clipped.
        return error.mul_(is_inside.logical_or_(squared >= clipped)).mul_(self._factor), loss
