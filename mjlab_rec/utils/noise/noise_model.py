"""Noise models, which may keep state between steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mjlab_rec.utils.noise.noise_cfg import (
        NoiseModelCfg,
        NoiseModelWithAdditiveBiasCfg,
    )
    from mjlab_rec.utils.random import RandomStreams


class NoiseModel:
    """Noise as configured, redrawn at every call."""

    def __init__(self, noise_model_cfg: NoiseModelCfg, num_envs: int, device: str) -> None:
        if getattr(noise_model_cfg, "noise_cfg", None) is None:
            raise ValueError(
                f"{type(noise_model_cfg).__name__} needs a noise_cfg, for example"
                " noise_cfg=UniformNoiseCfg(n_min=-0.1, n_max=0.1)."
            )
        self._noise_model_cfg = noise_model_cfg
        self._num_envs = num_envs
        self._device = device

    def reset(
        self, env_ids: Tensor | slice | None = None, rng: RandomStreams | None = None
    ) -> None:
        """Begin an episode in some environments.

        Args:
            env_ids: Their numbers, a slice, or None for all.
            rng: The environments' own streams to draw from; None means torch's global generator.
        """

    @contextmanager
    def rollback(self) -> Iterator[None]:
        """Undo, at the end of a `with` block, all that happened to the model inside it."""
        yield

    def __call__(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy data, (num_envs, ...), as a new tensor."""
        return self._noise_model_cfg.noise_cfg.apply(data, generator)


class NoiseModelWithAdditiveBias(NoiseModel):
    """Noise, and a bias that is drawn at each reset and stays for the episode."""

    def __init__(
        self, noise_model_cfg: NoiseModelWithAdditiveBiasCfg, num_envs: int, device: str
    ) -> None:
        super().__init__(noise_model_cfg, num_envs, device)
        if noise_model_cfg.bias_noise_cfg is None:
            raise ValueError(f"{type(noise_model_cfg).__name__} needs a bias_noise_cfg.")
        self._bias_cfg = noise_model_cfg.bias_noise_cfg
        self._per_component = noise_model_cfg.sample_bias_per_component
        # Its shape is known only when the first data arrive. Resets also take effect at the next
        # call, so that the first episode draws at the same point of its streams as all others.
        self._bias: Tensor | None = None
        self._resets: list[tuple[Tensor | slice | None, RandomStreams | None]] = []

    def reset(
        self, env_ids: Tensor | slice | None = None, rng: RandomStreams | None = None
    ) -> None:
        """Schedule a new bias, independent of the old one, for some environments."""
        if env_ids is None:
            self._resets.clear()
        if isinstance(env_ids, Tensor):
            # The caller may reuse the tensor before the next call.
            env_ids = env_ids.clone()
        self._resets.append((env_ids, rng))

    @contextmanager
    def rollback(self) -> Iterator[None]:
        """Undo, at the end of a `with` block, all that happened to the model inside it."""
        if self._bias is not None and not self._resets:
            yield  # Nothing will change: only resets draw a bias.
            return
        bias, resets = self._bias, list(self._resets)
        if bias is not None:
            with torch.inference_mode(False):
                self._bias = bias.clone()
        try:
            yield
        finally:
            self._bias, self._resets = bias, resets

    def __call__(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the data with noise and bias, (num_envs, ...), as a new tensor."""
        if self._bias is None:
            size = data.shape[-1] if self._per_component else 1
            # One bias per environment, shared along all dimensions but the last.
            shape = (len(data), *[1] * (data.ndim - 2), size)[: data.ndim]
            # If created in inference mode, it could not be written to outside it.
            with torch.inference_mode(False):
                self._bias = torch.empty(shape, dtype=data.dtype, device=data.device)
            rng = self._resets.pop(0)[1] if self._resets else None
            self._draw(self._bias, None, rng, generator)
        for env_ids, rng in self._resets:
            self._draw(self._bias, env_ids, rng, generator)
        self._resets.clear()
        return super().__call__(data, generator) + self._bias

    def _draw(
        self,
        bias: Tensor,
        env_ids: Tensor | slice | None,
        rng: RandomStreams | None,
        generator: torch.Generator | None,
    ) -> None:
        ids = torch.arange(len(bias), device=bias.device)
        if env_ids is not None:
            ids = ids[env_ids]
        if rng is None:
            # For the whole batch, so that the generator always advances by the same amount.
            drawn = self._bias_cfg.sample(torch.empty_like(bias), generator)
            bias[ids] = drawn[ids]
        else:
            bias[ids] = self._bias_cfg.sample_envs(bias[ids], rng, ids)
