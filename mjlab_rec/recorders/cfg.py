"""What a rollout recorder can be told: what to record, when, and how to write it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any, TypeVar

from mjlab_rec.data.files import IfExists
from mjlab_rec.data.formats import format_named
from mjlab_rec.data.pipeline import Keep
from mjlab_rec.data.staging import Overflow
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.channels import DEFAULT_CHANNELS, Channel
from mjlab_rec.recorders.triggers import Trigger
from mjlab_rec.utils.string import nearest

Cfg = TypeVar("Cfg", bound=RecorderTermCfg)

logger = logging.getLogger(__name__)


def _rollout_recorder() -> type:
    from mjlab_rec.recorders.rollout import RolloutRecorder

    return RolloutRecorder


@dataclass(kw_only=True)
class RolloutRecorderCfg(RecorderTermCfg):
    """Configuration of a recorder that writes one row per environment and step."""

    func: Any = field(default_factory=_rollout_recorder)
    """The recorder; each format has a cfg of its own that sets it."""

    path: str = ""
    """File to write; for NPZ and Parquet it may be a folder. ``~`` is the home folder."""

    format: str | None = None
    """Name of the file format, such as that of an installed package. None takes the recorder's."""

    channels: tuple[str | Channel, ...] = DEFAULT_CHANNELS
    """What to record. A name such as "obs" stands for everything below it."""

    envs: int | tuple[int, ...] | None = None
    """Which environments: the first so many, or these. None means all."""

    every: int = 1
    """Record every so many steps."""

    hz: float | None = None
    """Rows per second of simulated time, instead of ``every``; rounded to whole steps."""

    trigger: Trigger | Mapping[str, Any] | str | None = None
    """When to record; None means always. A trigger of episodes picks whole episodes, one of steps
    begins a stretch of ``length`` steps."""

    length: int | None = None
    """Steps to record from when the trigger fires. None means until the episode ends."""

    max_episodes: int | None = None
    """Stop with the step in which this many episodes were recorded."""

    max_steps: int | None = None
    """Stop after this many recorded steps, each of all environments."""

    max_bytes: int | None = None
    """Stop once this much was written; checked block by block."""

    keep: Keep = "all"
    """Which episodes to keep: "all", the "successful", the "failed", or both in "separate" files.
    Episodes that were cut count as failed."""

    success: str | Callable[[Any], Any] | None = None
    """What a success is: the name of a termination term, or a function of the environment that
    returns (num_envs,) flags. None takes the termination term "success" if there is one."""

    dtype: str | None = None
    """Store floating-point channels in this type, such as "float16". The state stays exact."""

    compression: str | None = None
    """Compress with this method, where the format has it."""

    roll_over_bytes: int = 4 << 30
    """Size at which a file ends and its next part begins."""

    if_exists: IfExists = "error"
    """What to do if the path exists: "error", "overwrite", "append" to it, or add a "number"."""

    overflow: Overflow = "block"
    """What to do when the disk cannot keep up: "block" the simulation, "drop" whole blocks (counted
    and marked in the file), or raise an "error"."""

    block_steps: int | None = None
    """Steps per block, the most that a kill can lose. None fits them to ``memory_bytes``."""

    num_blocks: int | None = None
    """Blocks in memory, at least 2. None means 3."""

    memory_bytes: int = 256 << 20
    """Memory for all blocks together."""

    autostart: bool = True
    """Record from the first reset on. Otherwise nothing is recorded before ``start()``."""

    def check(self) -> None:
        """Say what is wrong with the values, if anything is."""
        at_least = {
            "every": 1,
            "length": 1,
            "max_episodes": 1,
            "max_steps": 1,
            "max_bytes": 1,
            "block_steps": 1,
            "num_blocks": 2,
            "memory_bytes": 1,
            "roll_over_bytes": 1,
        }
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(
                    f"{type(self).__name__}.{name} must be at least {least}, got {value}."
                )
        if self.format is not None:
            format_named(self.format)
        choices = {
            "keep": ("all", "successful", "failed", "separate"),
            "overflow": ("block", "drop", "error"),
            "if_exists": ("error", "overwrite", "append", "number"),
            "dtype": (None, "float16", "float32", "float64"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                listed = ", ".join(repr(k) for k in known)
                raise ValueError(
                    f"{type(self).__name__}.{name} is {getattr(self, name)!r}. Possible: {listed}."
                )
        if self.hz is not None and (self.hz <= 0 or self.every != 1):
            raise ValueError(
                f"{type(self).__name__}: hz must be positive, and hz and every exclude each other;"
                f" got hz={self.hz}, every={self.every}."
            )
        if not self.channels:
            raise ValueError(
                f"{type(self).__name__}.channels is empty: there is nothing to record."
            )
        if isinstance(self.channels, str):
            raise ValueError(
                f"{type(self).__name__}.channels is a text; write ({self.channels!r},) for one."
            )

    def stride(self, step_dt: float) -> int:
        """Steps from one row to the next."""
        return stride(self.every, self.hz, step_dt, type(self).__name__)

    def env_ids(self, num_envs: int) -> tuple[int, ...]:
        """The environments to record, of this many."""
        if self.envs is None:
            return tuple(range(num_envs))
        return env_ids(self.envs, num_envs, type(self).__name__)


def env_ids(envs: int | Iterable[int], num_envs: int, owner: str) -> tuple[int, ...]:
    """The environments that a cfg's field ``envs`` names, of this many.

    Args:
        envs: The first so many, or these.
        num_envs: How many there are.
        owner: The cfg's name, for the message if there are no such environments.
    """
    if isinstance(envs, Iterable):
        ids = tuple(envs)
    else:
        ids = tuple(range(envs)) if isinstance(envs, Integral) else ()
    wrong = [i for i in ids if not isinstance(i, Integral) or not 0 <= i < num_envs]
    if not ids or wrong or len(set(ids)) < len(ids):
        raise ValueError(
            f"{owner}.envs is {envs!r}: it must name different environments from 0 to"
            f" {num_envs - 1}, or be a count from 1 to {num_envs}."
        )
    return ids


def stride(every: int, hz: float | None, step_dt: float, owner: str) -> int:
    """Steps from one row to the next, given so many or how many a simulated second should have.

    Args:
        every: Steps, if ``hz`` is None.
        hz: Rows per second.
        step_dt: Seconds of a step.
        owner: The cfg's name, for the warning if that is no whole number of steps.
    """
    if hz is None:
        return every
    every = max(1, round(1.0 / (hz * step_dt)))
    if abs(every * hz * step_dt - 1.0) > 1e-6:
        logger.warning(
            "%s: %g Hz is not a whole number of steps of %g s; recording every %d steps, at %g Hz.",
            *(owner, hz, step_dt, every, 1.0 / (every * step_dt)),
        )
    return every


def typed(cfg: RecorderTermCfg, cfg_type: type[Cfg]) -> Cfg:
    """A cfg of the recorder's own type; ``params`` of a plain RecorderTermCfg are its fields."""
    if isinstance(cfg, cfg_type):
        return cfg
    known = [field.name for field in fields(cfg_type)]
    for name in cfg.params:
        if name not in known:
            raise ValueError(f"{cfg_type.__name__} has no field '{name}'. {nearest(name, known)}")
    return cfg_type(**{"func": cfg.func, "on_error": cfg.on_error, **cfg.params})
