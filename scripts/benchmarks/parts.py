"""Time and memory that the parts of a step take, measured from outside the environment."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from timeit import timeit
from typing import Any

import torch

from benchmarks.side import random_action, step_time, synchronize, take_steps
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers.recorder_manager import NullRecorderManager

PARTS = ("physics", "managers", "reset", "rest")

# Methods of the environment's parts, by the share they count towards. Calls between them count only
# for the called one: a reset's physics is physics.
_METHODS = {
    "physics": {"sim": ("step", "forward", "sense")},
    "reset": {"": ("_reset_idx",)},
    "managers": {
        "scene": ("write_data_to_sim", "update"),
        "action_manager": ("process_action", "apply_action"),
        "termination_manager": ("compute",),
        "reward_manager": ("compute",),
        "metrics_manager": ("compute", "compute_substep"),
        "event_manager": ("apply", "advance_intervals"),
        "command_manager": ("advance", "update"),
        "observation_manager": ("compute", "preview"),
    },
}
_RECORDING = (
    "record_pre_step",
    "record_substep",
    "record_pre_reset",
    "record_post_reset",
    "record_post_step",
)


def shares(env: ManagerBasedRlEnv, steps: int) -> dict[str, float]:
    """Return the fractions of the step time by part."""
    clock = Clock(lambda: synchronize(env.device))
    with wrapped(env, _METHODS, clock.timing):
        total = take_steps(env, random_action(env), steps)
    found = {part: clock.seconds[part] / total for part in PARTS[:-1]}
    return found | {"rest": 1.0 - sum(found.values())}


def null_recording_share(env: ManagerBasedRlEnv, steps: int) -> float:
    """Return the share of the step time that recording hooks take without a recorder."""
    assert isinstance(env.recorder_manager, NullRecorderManager)
    calls: Counter[str] = Counter()

    def counting(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            calls[part] += 1
            return method(*args)

        return counted

    with wrapped(env, {"calls": {"recorder_manager": _RECORDING}}, counting):
        take_steps(env, random_action(env), steps)
    number = 100_000
    seconds = timeit("env.recorder_manager.record_pre_step()", globals={"env": env}, number=number)
    return calls["calls"] / steps * seconds / number / step_time(env, steps)


def new_engine_arrays(env: ManagerBasedRlEnv, steps: int) -> int:
    """Return how many arrays of the engine were allocated or moved in these steps."""
    warp = sys.modules.get("warp")
    made = 0

    def counting(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            return method(*args, **kwargs)

        return counted

    before = _addresses(env)
    sources = {"data and model": {"sim._engine": ("bind", "expand", "model_field", "recompute")}}
    if env.sim.engine_name == "warp":
        assert warp is not None
        original = warp.array.__init__
        warp.array.__init__ = counting("warp", original)
    try:
        with wrapped(env, sources, counting):
            take_steps(env, random_action(env), steps)
    finally:
        if env.sim.engine_name == "warp":
            warp.array.__init__ = original  # pyright: ignore
    after = _addresses(env)
    return made + sum(after[name] != address for name, address in before.items())


def memory_growth(env: ManagerBasedRlEnv, steps: int) -> int:
    """Return by how many bytes the peak memory of the process, or of torch on the GPU, grew."""

    def peak() -> int:
        if env.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated(env.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak()
    take_steps(env, random_action(env), steps)
    return peak() - before


def host_waits(env: ManagerBasedRlEnv, steps: int) -> float:
    """Return how often per step the host waits for the GPU, as counted by torch."""
    action = random_action(env)
    synchronize(env.device)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            for _ in range(steps):
                env.step(action)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) / steps


class Clock:
    """Adds up the seconds spent in each part, without those of parts called from it."""

    def __init__(
        self, synchronize: Callable[[], None], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._synchronize = synchronize
        self._now = now
        self._running: list[str] = []
        self._since = 0.0

    def timing(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._stop()
            self._running.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                self._stop()
                self._running.pop()

        return timed

    def _stop(self) -> None:
        self._synchronize()
        now = self._now()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextmanager
def wrapped(
    whole: Any,
    methods: dict[str, dict[str, tuple[str, ...]]],
    wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """Temporarily wrap methods of the parts of an environment, or of something else."""
    replaced = []
    for part, owners in methods.items():
        for path, names in owners.items():
            owner = whole
            for attribute in filter(None, path.split(".")):
                owner = getattr(owner, attribute)
            for name in names:
                setattr(owner, name, wrap(part, getattr(owner, name)))
                replaced.append((owner, name))
    try:
        yield
    finally:
        for owner, name in replaced:
            vars(owner).pop(name, None)  # A runner has removed it if it measures the same method.


def _addresses(env: ManagerBasedRlEnv) -> dict[str, int]:
    """Return the memory address of each field in use."""
    return {
        f"{view}.{name}": value.data_ptr()
        for view in ("data", "model")
        for name, value in vars(getattr(env.sim, view)).items()
        if isinstance(value, torch.Tensor)
    }
