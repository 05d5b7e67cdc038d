"""Noise, clip and scale of a whole observation group at once, instead of term by term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from mjlab_rec.utils.noise import GaussianNoiseCfg, NoiseCfg, UniformNoiseCfg

_INF = float("inf")


class TailTerm(Protocol):
    """What is needed of a term: its config, which may change at any time, and its factor."""

    cfg: Any
    scale: torch.Tensor | None


class GroupTail:
    """The operations that follow on the terms' values, in place in the concatenated group.

    It costs a few operations however many terms there are. Only for terms of one axis without delay
    and history, whose noise, if any, is added and independent from step to step.
    """

    def __init__(
        self, terms: Sequence[TailTerm], widths: Sequence[int], num_envs: int, device: str
    ) -> None:
        self._terms = list(terms)
        self._num_envs = num_envs
        self._device = device
        starts = [sum(widths[:i]) for i in range(len(widths))]
        self._columns = [slice(a, a + width) for a, width in zip(starts, widths, strict=True)]
        self._size = sum(widths)
        # Of each term: its config, and the clip, noise and numbers of the noise that are in use.
        self._known: list[tuple[Any, Any, Any, dict[str, Any]]] = []
        self._noises: list[_Noise] = []
        self._limits: tuple[torch.Tensor, torch.Tensor] | None = None
        self._scale: torch.Tensor | None = None
        self._refresh()

    @staticmethod
    def suits(cfg: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether a term's noise, clip and scale can be applied in the group."""
        plain = cfg.delay_max_lag == 0 and cfg.history_length == 0
        if not plain or len(shape) != 1 or dtype != torch.float32 or not _is_added(cfg.noise):
            return False
        numbers = [] if cfg.scale is None else [cfg.scale]
        numbers += [] if cfg.noise is None else _parameters(cfg.noise)
        return all(torch.as_tensor(n).shape in ((), (1,), shape) for n in numbers)

    def apply(self, obs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Add noise to the group (num_envs, size), clip it and scale it, in place."""
        for cfg, clip, noise, numbers in self._known:
            if cfg.noise is not noise or cfg.clip != clip or (noise and noise.__dict__ != numbers):
                self._refresh()
                break
        for noise in self._noises:
            noise.add_to(obs, generator)
        if self._limits is not None:
            torch.clamp(obs, *self._limits, out=obs)
        if self._scale is not None:
            obs.mul_(self._scale)
        return obs

    def _refresh(self) -> None:
        """Read the settings again, after a curriculum or a user changed them."""
        for term in self._terms:
            if not _is_added(term.cfg.noise):
                raise ValueError(
                    f"The noise of an observation term was changed to {term.cfg.noise!r} after the"
                    " environment was built. Change its numbers, set it to None, or build the"
                    " environment with it."
                )
        self._known = [
            (term.cfg, term.cfg.clip, term.cfg.noise, dict(getattr(term.cfg.noise, "__dict__", {})))
            for term in self._terms
        ]
        kinds = (UniformNoiseCfg, GaussianNoiseCfg)
        self._noises = [noise for kind in kinds if (noise := self._noise(kind)) is not None]
        self._limits = self._scale = None
        if any(term.cfg.clip is not None for term in self._terms):
            low, high = self._row(-_INF), self._row(_INF)
            for term, columns in zip(self._terms, self._columns, strict=True):
                if term.cfg.clip is not None:
                    low[columns], high[columns] = term.cfg.clip
            self._limits = low.to(self._device), high.to(self._device)
        if any(term.scale is not None for term in self._terms):
            scale = self._row(1.0)
            for term, columns in zip(self._terms, self._columns, strict=True):
                if term.scale is not None:
                    scale[columns] = term.scale.cpu()
            self._scale = scale.to(self._device)

    def _noise(self, kind: type[NoiseCfg]) -> _Noise | None:
        noisy = [
            (term.cfg.noise, columns)
            for term, columns in zip(self._terms, self._columns, strict=True)
            if type(term.cfg.noise) is kind
        ]
        if not noisy:
            return None
        middle, reach = self._row(0.0), self._row(0.0)
        for cfg, columns in noisy:
            first, second = (torch.tensor(value) for value in _parameters(cfg))
            if kind is UniformNoiseCfg:
                first, second = (first + second) / 2, (second - first) / 2
            middle[columns], reach[columns] = first, second
        span = slice(noisy[0][1].start, noisy[-1][1].stop)
        return _Noise(kind, span, middle[span], reach[span], self._num_envs, self._device)

    def _row(self, value: float) -> torch.Tensor:
        return torch.full((self._size,), value)


class _Noise:
    """Independent noise of one kind for a range of columns."""

    def __init__(
        self,
        kind: type[NoiseCfg],
        columns: slice,
        middle: torch.Tensor,
        reach: torch.Tensor,
        num_envs: int,
        device: str,
    ) -> None:
        self._uniform = kind is UniformNoiseCfg
        self._columns = columns
        self._middle = middle.to(device) if middle.any() else None
        self._reach = reach.to(device)
        with torch.inference_mode(False):
            self._draws = torch.empty(num_envs, len(middle), device=device)

    def add_to(self, obs: torch.Tensor, generator: torch.Generator) -> None:
        """Draw, and add to the columns."""
        if self._uniform:
            self._draws.uniform_(-1.0, 1.0, generator=generator)
        else:
            self._draws.normal_(generator=generator)
        part = obs[:, self._columns]
        part.addcmul_(self._draws, self._reach)
        if self._middle is not None:
            part.add_(self._middle)


def _is_added(noise: Any) -> bool:
    if noise is None:
        return True
    # Exactly these classes: one derived from them may draw in its own way.
    return type(noise) in (UniformNoiseCfg, GaussianNoiseCfg) and noise.operation == "add"


def _parameters(noise: Any) -> list[Any]:
    uniform = isinstance(noise, UniformNoiseCfg)
    return [noise.n_min, noise.n_max] if uniform else [noise.mean, noise.std]
