"""Random numbers of one environment instance, with a separate stream for each world."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

# Constants of splitmix64 (Steele et al.) and of murmur3's 64-bit finalizer, as signed integers
# because torch has no unsigned 64-bit arithmetic. Multiplication wraps, which is what we want.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_A = 0xFF51AFD7ED558CCD - (1 << 64)
_MIX_B = 0xC4CEB9FE1A85EC53 - (1 << 64)
_LOW_31_BITS = (1 << 31) - 1
_UNIT = 2.0**-24

Bound = float | torch.Tensor


class RandomStreams:
    """Every random number of one environment, reproducible from its seed.

    There are two kinds of draws, because they need different guarantees:

    - ``uniform``, ``gaussian``, ... serve resets, pushes and commands, which concern a few worlds
      at a time. Each world has its own counter-based stream that restarts with every episode, so
      episode k of world i does not depend on what happens in the other worlds.
    - ``observation`` and ``actuation`` are generators for noise drawn for all worlds every step.
      They are re-seeded from (seed, step), so a step's noise does not depend on earlier draws
      and computing an observation twice gives the same noise twice.

    ``isolated()`` also gives its own stream to code that calls ``torch.rand`` directly. The
    generators of numpy and of Python's ``random`` do not change.
    """

    def __init__(self, num_envs: int, device: str | torch.device, seed: int) -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self._on_cpu = self.device.type == "cpu"
        self.observation = torch.Generator(device=self.device)
        self.actuation = torch.Generator(device=self.device)
        self._env_index = torch.arange(num_envs, device=self.device)
        self._episode = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self._draws = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self._key = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self._offsets = torch.arange(16, device=self.device) * _GOLDEN
        self._outside: _GlobalState | None = None
        self.host = random.Random()
        """Generator for what all worlds share, such as a global timer."""
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart all streams from ``seed``."""
        self.current_seed = seed
        self.host.seed(seed)
        self._step = 0
        self._episode.zero_()
        self._draws.zero_()
        self._key.copy_(self._episode_key(self._env_index, self._episode))
        self._global_state = _global_state_from(seed, self.device)
        self._reseed(self.actuation, stream=1)
        self.restart_observation()

    def begin_step(self) -> None:
        """Advance the per-step generators; called once at the start of a control step."""
        self._step += 1
        self._reseed(self.actuation, stream=1)

    def restart_observation(self) -> None:
        """Rewind the observation generator to the start of this step's noise."""
        self._reseed(self.observation, stream=2)

    def begin_episode(self, env_ids: torch.Tensor) -> None:
        """Switch the worlds ``env_ids`` to the streams of their next episode."""
        self._episode[env_ids] += 1
        self._draws[env_ids] = 0
        self._key[env_ids] = self._episode_key(env_ids, self._episode[env_ids])

    def uniform(
        self,
        low: Bound,
        high: Bound,
        shape: Sequence[int],
        env_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Uniform in [low, high); ``shape[0]`` counts the worlds in ``env_ids`` (None: all)."""
        return self._unit(shape, env_ids).mul_(high - low).add_(low)

    def log_uniform(
        self,
        low: Bound,
        high: Bound,
        shape: Sequence[int],
        env_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Uniform in the logarithm between two positive bounds."""
        return self.uniform(_log(low), _log(high), shape, env_ids).exp_()

    def gaussian(
        self,
        mean: Bound,
        std: Bound,
        shape: Sequence[int],
        env_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Normally distributed with the given mean and standard deviation."""
        # Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
        radius = (1.0 - self._unit(shape, env_ids)).log_().mul_(-2.0).sqrt_()
        angle = self._unit(shape, env_ids).mul_(2.0 * math.pi)
        return radius.mul_(angle.cos_()).mul_(std).add_(mean)

    def integers(
        self,
        low: int,
        high: int,
        shape: Sequence[int],
        env_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Integers in [low, high), uniform for ranges far below 2**24."""
        # Shift as integers: adding a large low in float32 could round up to high.
        return self._unit(shape, env_ids).mul_(high - low).floor_().long().add_(low)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Give torch's global generator this environment's state while inside.

        User terms that call ``torch.rand`` are then reproducible from the environment's seed, and
        neither disturb the policy's random numbers nor another environment's.
        """
        self._outside = _get_global_state(self.device)
        _set_global_state(self._global_state, self.device)
        try:
            yield
        finally:
            self._global_state = _get_global_state(self.device)
            _set_global_state(self._outside, self.device)
            self._outside = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside ``isolated``, run code that must not affect the rollout, such as a recorder.

        Its random numbers come from torch's global generator as the caller left it.
        """
        if self._outside is None:
            yield
            return
        inside, draws = _get_global_state(self.device), self._draws.clone()
        _set_global_state(self._outside, self.device)
        try:
            yield
        finally:
            self._outside = _get_global_state(self.device)
            _set_global_state(inside, self.device)
            self._draws.copy_(draws)

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Undo all random draws made inside, so that later draws give the same numbers."""
        state, draws = _get_global_state(self.device), self._draws.clone()
        try:
            yield
        finally:
            _set_global_state(state, self.device)
            self._draws.copy_(draws)

    def _unit(self, shape: Sequence[int], env_ids: torch.Tensor | None) -> torch.Tensor:
        """Uniform float32 in [0, 1) from the streams of the given worlds."""
        count = math.prod(shape[1:])
        if count > len(self._offsets):
            self._offsets = torch.arange(count, device=self.device) * _GOLDEN
        if self._on_cpu:
            return self._unit_on_cpu(count, env_ids).view(tuple(shape))
        if env_ids is None:
            start = self._draws * _GOLDEN + self._key
            self._draws += count
        else:
            drawn = self._draws[env_ids]
            start = (drawn * _GOLDEN).add_(self._key[env_ids])
            self._draws[env_ids] = drawn + count
        bits = _mix(start[:, None] + self._offsets[:count])
        bits.bitwise_right_shift_(40).bitwise_and_((1 << 24) - 1)
        return bits.to(torch.float32).mul_(_UNIT).view(tuple(shape))

    def _unit_on_cpu(self, count: int, env_ids: torch.Tensor | None) -> torch.Tensor:
        """Return the same numbers with numpy, whose small operations are several times as fast."""
        draws, key, offsets = (_unsigned(t) for t in (self._draws, self._key, self._offsets))
        rows = slice(None) if env_ids is None else env_ids.numpy()
        drawn = draws[rows]
        start = drawn * np.uint64(_GOLDEN % (1 << 64)) + key[rows]
        draws[rows] = drawn + np.uint64(count)
        bits = _mix_on_cpu(start[:, None] + offsets[:count])
        values = (bits >> np.uint64(40)).astype(np.float32)
        return torch.from_numpy(values).mul_(_UNIT)

    def _episode_key(self, env_ids: torch.Tensor, episode: torch.Tensor) -> torch.Tensor:
        world = self._mixed(env_ids.long() * _GOLDEN + _scramble(self.current_seed))
        return self._mixed(world + episode * _GOLDEN)

    def _mixed(self, x: torch.Tensor) -> torch.Tensor:
        if not self._on_cpu:
            return _mix(x)
        _mix_on_cpu(_unsigned(x))
        return x

    def _reseed(self, generator: torch.Generator, stream: int) -> None:
        # Scramble before adding, or neighbouring seeds would share streams.
        generator.manual_seed(_scramble(_scramble(self.current_seed) + (self._step << 2) + stream))


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Scramble 64-bit integers in place (murmur3's finalizer)."""
    # torch's right shift keeps the sign, so the mask makes it a logical shift.
    x.bitwise_xor_((x >> 33).bitwise_and_(_LOW_31_BITS)).mul_(_MIX_A)
    x.bitwise_xor_((x >> 33).bitwise_and_(_LOW_31_BITS)).mul_(_MIX_B)
    return x.bitwise_xor_((x >> 33).bitwise_and_(_LOW_31_BITS))


def _mix_on_cpu(x: np.ndarray) -> np.ndarray:
    """Do the same in numpy."""
    for factor in (_MIX_A, _MIX_B):
        x ^= x >> np.uint64(33)
        x *= np.uint64(factor % (1 << 64))
    x ^= x >> np.uint64(33)
    return x


def _unsigned(x: torch.Tensor) -> np.ndarray:
    """Return the same memory as unsigned integers, for which torch has no arithmetic."""
    return x.numpy().view(np.uint64)


def _scramble(value: int) -> int:
    """Spread an integer over the non-negative 63-bit range (splitmix64's step)."""
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1


def _log(bound: Bound) -> Bound:
    return bound.log() if isinstance(bound, torch.Tensor) else math.log(bound)


_GlobalState = tuple[torch.Tensor, torch.Tensor | None]


def _get_global_state(device: torch.device) -> _GlobalState:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _set_global_state(state: _GlobalState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _global_state_from(seed: int, device: torch.device) -> _GlobalState:
    """Return the state torch's global generators would have after seeding, without seeding."""
    cpu = torch.Generator().manual_seed(_scramble(seed)).get_state()
    if device.type != "cuda":
        return cpu, None
    return cpu, torch.Generator(device=device).manual_seed(_scramble(seed)).get_state()
