"""Random numbers that do not disturb those of the process, from which an environment draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class GlobalRandom:
    """Keeps the global generators of torch, numpy and Python as an environment expects them.

    Args:
        device: The environment's device; its generator counts too.
        seed: What the separate streams depend on.
    """

    def __init__(self, device: str | torch.device, seed: int) -> None:
        device = torch.device(device)
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        self._seed = seed
        self._own: Any = None  # State of the stream of ``suspended``.

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside, random numbers come from a separate stream, which goes on each time."""
        outside = self._get()
        if self._own is None:
            self._restart(self._seed)
        else:
            self._set(self._own)
        try:
            yield
        finally:
            self._own = self._get()
            self._set(outside)

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Undo all random draws made inside, so that later draws give the same numbers."""
        outside = self._get()
        try:
            yield
        finally:
            self._set(outside)

    @contextmanager
    def seeded(self, number: int) -> Iterator[None]:
        """Inside, random numbers depend on the seed and this number only."""
        with self.rewound():
            self._restart(self._seed * 1_000_003 + number)
            yield

    def _restart(self, seed: int) -> None:
        seed %= 1 << 63
        for generator in self._generators:
            generator.manual_seed(seed)
        np.random.seed(seed % (1 << 32))
        random.seed(seed)

    def _get(self) -> Any:
        states = [generator.get_state() for generator in self._generators]
        return states, np.random.get_state(), random.getstate()

    def _set(self, state: Any) -> None:
        for generator, mine in zip(self._generators, state[0], strict=True):
            generator.set_state(mine)
        np.random.set_state(state[1])
        random.setstate(state[2])
