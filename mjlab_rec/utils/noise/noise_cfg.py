"""Configs of observation noise, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from mjlab_rec.utils.noise import noise_model
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.utils.random import RandomStreams

NoiseParam = float | tuple[float, ...]
"""One value for all elements, or one for each element of the last dimension."""

_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "scale": torch.mul,
    "abs": lambda data, noise: noise,
}


@dataclass(kw_only=True)
class NoiseCfg:
    """Base class of all noise configs.

    To write your own, override ``sample``, and ``sample_envs`` if it serves as a bias; or, as in
    mjlab, only ``apply(data)``.
    """

    operation: Literal["add", "scale", "abs"] = "add"
    """Add the noise to the data, multiply the data by it, or replace the data with it."""

    def __post_init__(self) -> None:
        if self.operation not in _OPERATIONS:
            raise ValueError(
                f"Unknown noise operation {self.operation!r}."
                f" {nearest(str(self.operation), list(_OPERATIONS))}"
            )

    def apply(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy data as a new tensor.

        Args:
            data: Values of the whole batch, (num_envs, ...).
            generator: Source of the draws; None means torch's global one.
        """
        noise = self.sample(
            torch.empty(data.shape, dtype=data.dtype, device=data.device), generator
        )
        return _OPERATIONS[self.operation](data, noise)

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fill `out` with noise and return it."""
        raise NotImplementedError(f"{type(self).__name__} defines neither sample() nor apply().")

    def sample_envs(self, out: Tensor, rng: RandomStreams, env_ids: Tensor | None = None) -> Tensor:
        """Return noise of the shape of `out`, each row drawn from its environment's own stream.

        Args:
            out: A tensor with the wanted shape and type; may be overwritten.
            rng: The environments' streams.
            env_ids: The environment of each row; None means all in order.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define sample_envs() to serve as a bias."
        )


@dataclass
class ConstantNoiseCfg(NoiseCfg):
    """A constant value."""

    bias: NoiseParam = 0.0
    """The value."""

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return out.copy_(_tensor(self.bias, out))

    def sample_envs(self, out: Tensor, rng: RandomStreams, env_ids: Tensor | None = None) -> Tensor:
        return self.sample(out)


@dataclass
class UniformNoiseCfg(NoiseCfg):
    """Uniformly distributed noise."""

    n_min: NoiseParam = -1.0
    """Lower bound, included."""

    n_max: NoiseParam = 1.0
    """Upper bound, excluded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Single elements may have no noise; no noise at all is a mistake.
        low, high = _values(self.n_min), _values(self.n_max)
        count = max(len(low), len(high))
        pairs = list(zip(low * (count // len(low)), high * (count // len(high)), strict=False))
        if any(a > b for a, b in pairs) or all(a == b for a, b in pairs):
            raise ValueError(f"n_min ({self.n_min}) must be less than n_max ({self.n_max}).")

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if isinstance(self.n_min, (int, float)) and isinstance(self.n_max, (int, float)):
            return out.uniform_(self.n_min, self.n_max, generator=generator)
        low, high = _tensor(self.n_min, out), _tensor(self.n_max, out)
        return out.uniform_(generator=generator).mul_(high - low).add_(low)

    def sample_envs(self, out: Tensor, rng: RandomStreams, env_ids: Tensor | None = None) -> Tensor:
        return rng.uniform(_tensor(self.n_min, out), _tensor(self.n_max, out), out.shape, env_ids)


@dataclass
class GaussianNoiseCfg(NoiseCfg):
    """Normally distributed noise."""

    mean: NoiseParam = 0.0
    """Its mean."""

    std: NoiseParam = 1.0
    """Its standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        std = _values(self.std)
        if min(std) < 0 or max(std) == 0:
            raise ValueError(f"std ({self.std}) must be positive.")

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if isinstance(self.mean, (int, float)) and isinstance(self.std, (int, float)):
            return out.normal_(self.mean, self.std, generator=generator)
        mean, std = _tensor(self.mean, out), _tensor(self.std, out)
        return out.normal_(generator=generator).mul_(std).add_(mean)

    def sample_envs(self, out: Tensor, rng: RandomStreams, env_ids: Tensor | None = None) -> Tensor:
        return rng.gaussian(_tensor(self.mean, out), _tensor(self.std, out), out.shape, env_ids)


@dataclass(kw_only=True)
class NoiseModelCfg:
    """Noise from a model that may keep state, with one instance per observation term."""

    noise_cfg: NoiseCfg
    """The noise that is redrawn at every step."""

    class_type: ClassVar[type[noise_model.NoiseModel]] = noise_model.NoiseModel

    def __init_subclass__(cls, class_type: type[noise_model.NoiseModel] | None = None) -> None:
        if class_type is not None:
            cls.class_type = class_type


@dataclass(kw_only=True)
class NoiseModelWithAdditiveBiasCfg(
    NoiseModelCfg, class_type=noise_model.NoiseModelWithAdditiveBias
):
    """Noise, and a bias that is drawn at each reset and stays for the episode."""

    bias_noise_cfg: NoiseCfg | None = None
    """The noise that the bias is drawn from; required."""

    sample_bias_per_component: bool = True
    """Draw a bias for each element of an observation rather than one for all of them."""

    def __post_init__(self) -> None:
        if self.bias_noise_cfg is None:
            raise ValueError(
                "NoiseModelWithAdditiveBiasCfg needs a bias_noise_cfg, for example"
                " bias_noise_cfg=UniformNoiseCfg(n_min=-0.1, n_max=0.1). For noise without a bias"
                " use NoiseModelCfg."
            )


def _values(param: NoiseParam) -> tuple[float, ...]:
    return (param,) if isinstance(param, (int, float)) else tuple(param)


def _tensor(param: NoiseParam, like: Tensor) -> Tensor:
    values = _values(param)
    if len(values) > 1 and len(values) != like.shape[-1]:
        raise ValueError(
            f"The noise has {len(values)} values per observation, {param}, but the observation has"
            f" {like.shape[-1]} elements. Give one value for all, or one each."
        )
    return _on_device(values, like.device, like.dtype)


@lru_cache(maxsize=512)
def _on_device(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    # Copying a few numbers to a GPU at every step would make the step wait for it.
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)
