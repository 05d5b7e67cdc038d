"""How long physics, managers and learner take in each iteration, without making a GPU wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_PHYSICS = ("step", "forward", "sense")


@dataclass(frozen=True)
class Shares:
    """Seconds of an iteration."""

    total: float
    """All of it."""
    env: float
    """Steps of the environment."""
    physics: float
    """The physics in these steps, with its forward passes."""

    @property
    def parts(self) -> dict[str, float]:
        """Fractions of the iteration: physics, managers and learner."""
        total = max(self.total, 1e-9)
        env = min(self.env, total)
        physics = min(self.physics, env)
        return {
            "physics": physics / total,
            "managers": (env - physics) / total,
            "learner": (total - env) / total,
        }


class IterationClock:
    """Measures what an iteration consists of.

    On a GPU, the time between the work before and after a call, as the GPU itself notes it; this
    is read when the iteration is over.

    Args:
        env: The environment.
    """

    def __init__(self, env: Any) -> None:
        self._sim = env.sim
        self._env = _Stopwatch(env.device)
        self._physics = _Stopwatch(env.device)
        self._since = time.perf_counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure the physics of all steps inside."""
        for name in _PHYSICS:
            setattr(self._sim, name, self._physics.timed(getattr(self._sim, name)))
        try:
            yield
        finally:
            for name in _PHYSICS:
                delattr(self._sim, name)

    def start(self) -> None:
        """An iteration begins."""
        self._since = time.perf_counter()

    def step(self, step: Any, action: torch.Tensor) -> Any:
        """Take a step of the environment, measured."""
        started = self._env.start()
        try:
            return step(action)
        finally:
            self._env.stop(started)

    def read(self) -> Shares:
        """The iteration is over, and the GPU has finished it."""
        total = time.perf_counter() - self._since
        return Shares(total=total, env=self._env.read(), physics=self._physics.read())


class _Stopwatch:
    """Adds up times, of the host or of a GPU."""

    def __init__(self, device: str) -> None:
        self._device = device if device.startswith("cuda") else None
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    def start(self) -> Any:
        if self._device is None:
            return time.perf_counter()
        return self._event()

    def stop(self, started: Any) -> None:
        if self._device is None:
            self._seconds += time.perf_counter() - started
        else:
            self._events.append((started, self._event()))

    def timed(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = self.start()
            try:
                return method(*args, **kwargs)
            finally:
                self.stop(started)

        return call

    def read(self) -> float:
        """Seconds since the last call."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds = sum(a.elapsed_time(b) for a, b in self._events) / 1000.0
        seconds, self._seconds, self._events = self._seconds, 0.0, []
        return seconds

    def _event(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
