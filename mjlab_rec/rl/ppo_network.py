"""A network of PPO, computed with few torch calls: its inputs, and both passes of its MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_ATEN: Any = torch.ops.aten


def _elu(layer: Any, x: torch.Tensor) -> None:
    nn.functional.elu_(x, layer.alpha)


def _elu_backward(layer: Any, gradient: torch.Tensor, y: torch.Tensor) -> None:
    _ATEN.elu_backward.grad_input(gradient, layer.alpha, 1, 1, True, y, grad_input=gradient)


def _relu(layer: Any, x: torch.Tensor) -> None:
    x.relu_()


def _relu_backward(layer: Any, gradient: torch.Tensor, y: torch.Tensor) -> None:
    _ATEN.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient)


def _tanh(layer: Any, x: torch.Tensor) -> None:
    x.tanh_()


def _tanh_backward(layer: Any, gradient: torch.Tensor, y: torch.Tensor) -> None:
    _ATEN.tanh_backward.grad_input(gradient, y, grad_input=gradient)


Activation = tuple[
    Callable[[Any, torch.Tensor], None], Callable[[Any, torch.Tensor, torch.Tensor], None]
]
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ELU: (_elu, _elu_backward),
    nn.ReLU: (_relu, _relu_backward),
    nn.Tanh: (_tanh, _tanh_backward),
}
"""In place: x becomes y = f(x), and the gradient of y becomes that of x. Both need only y."""


class MlpPass:
    """Forward and backward passes of an MLP for batches of one size, without autograd.

    Layers write into buffers of their own and into the gradients of their parameters, so that no
    pass allocates memory.

    Args:
        mlp: Linear layers, with an activation of ACTIVATIONS between any two.
        batch_size: Rows of a batch.
    """

    def __init__(self, mlp: nn.Sequential, batch_size: int) -> None:
        layers: list[Any] = list(mlp)
        self._linear = layers[::2]
        self._activations = [(layer, *ACTIVATIONS[type(layer)]) for layer in layers[1::2]]
        device = layers[0].weight.device

        def buffers() -> list[torch.Tensor]:
            widths = [layer.out_features for layer in self._linear]
            return [torch.zeros(batch_size, width, device=device) for width in widths]

        self._outputs, self._gradients = buffers(), buffers()
        self._inputs: list[torch.Tensor] = []
        self.multiplications = batch_size * sum(layer.weight.numel() for layer in self._linear)
        """Scalar multiplications of a forward pass."""

    def forward(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the output, in ``out`` or in a buffer that the next pass overwrites."""
        self._inputs = [x]
        last = len(self._linear) - 1
        for i, (layer, y) in enumerate(zip(self._linear, self._outputs, strict=True)):
            if i == last and out is not None:
                y = out
            torch.addmm(layer.bias, self._inputs[i], layer.weight.t(), out=y)
            if i < last:
                module, forward, _ = self._activations[i]
                forward(module, y)
            self._inputs.append(y)
        return self._inputs[-1]

    def backward(self, gradient: torch.Tensor) -> None:
        """Write the gradients of the parameters from that of the last forward pass's output."""
        for i in reversed(range(len(self._linear))):
            layer, x = self._linear[i], self._inputs[i]
            torch.mm(gradient.t(), x, out=layer.weight.grad)
            torch.sum(gradient, 0, out=layer.bias.grad)
            if i > 0:
                gradient = torch.mm(gradient, layer.weight, out=self._gradients[i - 1])
                module, _, backward = self._activations[i - 1]
                backward(module, gradient, x)


class Network:
    """The actor or the critic: RSL-RL's MLPModel, whose parameters and statistics it uses.

    Args:
        model: The model.
        num_envs: Rows of a batch of observations in a rollout.
        batch_size: Rows of a mini-batch of an update.
        num_batches: Mini-batches of an update.
    """

    def __init__(self, model: Any, num_envs: int, batch_size: int, num_batches: int) -> None:
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        device = self.parameters[0].device
        self._groups: list[str] = list(model.obs_groups)
        self._normalizer: Any = model.obs_normalizer if model.obs_normalization else None
        self.gradient = torch.zeros(sum(p.numel() for p in self.parameters), device=device)
        """All gradients as one vector."""
        self._views = [
            part.view_as(parameter)
            for part, parameter in zip(
                self.gradient.split([p.numel() for p in self.parameters]),
                self.parameters,
                strict=True,
            )
        ]
        self._input = torch.zeros(num_envs, model.obs_dim, device=device)
        self._shuffled = torch.zeros(num_batches * batch_size, model.obs_dim, device=device)
        self._batches = self._shuffled.split(batch_size)
        self._rollout_pass = MlpPass(model.mlp, num_envs)
        self._update_pass = MlpPass(model.mlp, batch_size)
        self.rollout_multiplications = self._rollout_pass.multiplications
        """Scalar multiplications of ``infer``."""
        self.update_multiplications = self._update_pass.multiplications
        """Scalar multiplications of ``forward``."""

    def infer(self, obs: Any, out: torch.Tensor) -> torch.Tensor:
        """Compute the output for the observations of all environments, and write it to ``out``."""
        return self._rollout_pass.forward(self._normalize(self._join(obs), self._input), out)

    def shuffle(self, observations: Any, order: torch.Tensor) -> None:
        """Prepare an update: normalize the rollout's observations in this order of steps."""
        # A batch is the same in all epochs, so this is needed only once.
        x = [observations[group].flatten(0, 1) for group in self._groups]
        if len(x) == 1:
            torch.index_select(x[0], 0, order, out=self._shuffled)
        else:
            torch.cat([part[order] for part in x], dim=-1, out=self._shuffled)
        self._normalize(self._shuffled, self._shuffled)
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.grad = view

    def forward(self, batch: int) -> torch.Tensor:
        """Return the output for this mini-batch, (batch_size, n)."""
        return self._update_pass.forward(self._batches[batch])

    def backward(self, gradient: torch.Tensor) -> None:
        """Write the gradients of the MLP's parameters from that of the last forward's output."""
        self._update_pass.backward(gradient)

    def clip_gradient(self, max_norm: float) -> None:
        """Scale the gradient so that its norm is at most this."""
        scale = max_norm / (torch.linalg.vector_norm(self.gradient) + 1e-6)
        self.gradient.mul_(scale.clamp_(max=1.0))

    def _join(self, obs: Any) -> torch.Tensor:
        if len(self._groups) == 1:
            return obs[self._groups[0]]
        return torch.cat([obs[group] for group in self._groups], dim=-1)

    def _normalize(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        norm = self._normalizer
        if norm is None:
            return x
        return torch.sub(x, norm._mean, out=out).div_(norm._std + norm.eps)
