"""Operations that combine drawn values with base values, and distributions to draw from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from mjlab_rec.utils.math import sample_gaussian, sample_log_uniform, sample_uniform
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(frozen=True)
class Operation:
    """How drawn values combine with base values: new = combine(base, drawn)."""

    name: str
    """Shown in error messages."""

    initialize: Callable[[torch.Tensor], torch.Tensor]
    """Makes the tensor, shaped like the base values, into which the drawn axes are written."""

    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Called with the base and the drawn values. Only the drawn axes of its result are used."""

    uses_defaults: bool
    """Whether the base is the compiled model, so that repeated calls do not accumulate, rather than
    the current value."""

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"


@dataclass(frozen=True)
class Distribution:
    """What random values are drawn from."""

    name: str
    """Shown in error messages."""

    sample: Callable[[torch.Tensor, torch.Tensor, tuple[int, ...], str], torch.Tensor]
    """Called with (lower, upper, shape, device); the bounds are the ends of a range."""

    stream: Literal["uniform", "log_uniform", "gaussian"] | None = None
    """Method of ``env.rng`` to draw with instead of ``sample``. It gives each environment its own
    stream. ``sample`` sees only a shape, so what an environment gets from it depends on the others
    in the call."""

    def __repr__(self) -> str:
        return f"Distribution({self.name!r})"


abs = Operation("abs", torch.clone, lambda base, drawn: drawn, uses_defaults=False)
scale = Operation("scale", torch.ones_like, torch.mul, uses_defaults=True)
add = Operation("add", torch.zeros_like, torch.add, uses_defaults=True)

uniform = Distribution("uniform", sample_uniform, stream="uniform")
log_uniform = Distribution("log_uniform", sample_log_uniform, stream="log_uniform")
gaussian = Distribution("gaussian", sample_gaussian, stream="gaussian")

_OPERATIONS = {op.name: op for op in (abs, scale, add)}
_DISTRIBUTIONS = {dist.name: dist for dist in (uniform, log_uniform, gaussian)}


def resolve_operation(op: Operation | str) -> Operation:
    """Look up a built-in operation by name; your own pass through."""
    if isinstance(op, Operation):
        return op
    if op not in _OPERATIONS:
        raise ValueError(f"Unknown operation {op!r}. {nearest(op, list(_OPERATIONS))}")
    return _OPERATIONS[op]


def resolve_distribution(dist: Distribution | str) -> Distribution:
    """Look up a built-in distribution by name; your own pass through."""
    if isinstance(dist, Distribution):
        return dist
    if dist not in _DISTRIBUTIONS:
        raise ValueError(f"Unknown distribution {dist!r}. {nearest(dist, list(_DISTRIBUTIONS))}")
    return _DISTRIBUTIONS[dist]


def draw(
    env: ManagerBasedRlEnv,
    distribution: Distribution | str,
    low: torch.Tensor,
    high: torch.Tensor,
    shape: tuple[int, ...],
    env_ids: torch.Tensor,
) -> torch.Tensor:
    """Draw values for these environments; the bounds broadcast to ``shape``."""
    dist = resolve_distribution(distribution)
    if dist.stream is not None:
        return getattr(env.rng, dist.stream)(low, high, shape, env_ids)
    return dist.sample(low, high, shape, str(env.device))
