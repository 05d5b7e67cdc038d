"""Cfgs of the recorders of rows: what to record, when, and how to write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mjlab_rec.data.files import IfExists
from mjlab_rec.data.formats import format_named
from mjlab_rec.data.formats.base import Durability
from mjlab_rec.data.pipeline import Keep
from mjlab_rec.data.staging import Overflow
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.cfg_fields import env_ids, stride
from mjlab_rec.recorders.channels import DEFAULT_CHANNELS, Channel
from mjlab_rec.recorders.rollout import RolloutRecorder
from mjlab_rec.recorders.transitions import TransitionRecorder
from mjlab_rec.recorders.triggers import Trigger


@dataclass(kw_only=True)
class TransitionRecorderCfg(RecorderTermCfg):
    """Configuration of a recorder that gets rows: a subclass of ``TransitionRecorder``."""

    func: type = TransitionRecorder

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

    max_steps: int | None = None
    """Stop after this many recorded steps, each of all environments."""

    success: str | Callable[[Any], Any] | None = None
    """What a success is: the name of a termination term, or a function of the environment that
    returns (num_envs,) flags. None takes the termination term "success" if there is one."""

    dtype: str | None = None
    """Store floating-point channels in this type, such as "float16". The state stays exact."""

    overflow: Overflow = "block"
    """What to do when blocks cannot be written fast enough: "block" the simulation, "drop" whole
    blocks (counted and marked in the file), or raise an "error". With "drop", a block that cannot
    be written at all, because the disk is full, is dropped too."""

    block_steps: int | None = None
    """Steps per block, the most that a kill can lose. None fits them to ``memory_bytes``."""

    block_seconds: float = 30.0
    """Write a block after this many seconds even if it is not full: the most time of a slow
    simulation that a kill can lose."""

    num_blocks: int | None = None
    """Blocks in memory, at least 2. None means 6."""

    memory_bytes: int = 256 << 20
    """Memory for all blocks together."""

    autostart: bool = True
    """Record from the first reset on. Otherwise nothing is recorded before ``start()``."""

    def check(self) -> None:
        """Say what is wrong with the values, if anything is."""
        name = type(self).__name__
        for field, least in self.at_least().items():
            value = getattr(self, field)
            if value is not None and value < least:
                raise ValueError(f"{name}.{field} must be at least {least}, got {value}.")
        for field, known in self.choices().items():
            if getattr(self, field) not in known:
                listed = ", ".join(repr(k) for k in known)
                raise ValueError(f"{name}.{field} is {getattr(self, field)!r}. Possible: {listed}.")
        if self.hz is not None and (self.hz <= 0 or self.every != 1):
            raise ValueError(
                f"{name}: hz must be positive, and hz and every exclude each other;"
                f" got hz={self.hz}, every={self.every}."
            )
        if isinstance(self.channels, str):
            raise ValueError(f"{name}.channels is a text; write ({self.channels!r},) for one.")

    def at_least(self) -> dict[str, float]:
        """The smallest value of some fields."""
        least = dict.fromkeys(("every", "length", "max_steps", "block_steps", "memory_bytes"), 1)
        return {**least, "num_blocks": 2, "block_seconds": 0.0}

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The possible values of some fields."""
        return {
            "overflow": ("block", "drop", "error"),
            "dtype": (None, "float16", "float32", "float64"),
        }

    def stride(self, step_dt: float) -> int:
        """Steps from one row to the next."""
        return stride(self.every, self.hz, step_dt, type(self).__name__)

    def env_ids(self, num_envs: int) -> tuple[int, ...]:
        """The environments to record, of this many."""
        if self.envs is None:
            return tuple(range(num_envs))
        return env_ids(self.envs, num_envs, type(self).__name__)


TransitionRecorder.cfg_type = TransitionRecorderCfg


@dataclass(kw_only=True)
class RolloutRecorderCfg(TransitionRecorderCfg):
    """Configuration of a recorder that writes one row per environment and step."""

    func: type = RolloutRecorder
    """The recorder; each format has a cfg of its own that sets it."""

    path: str = ""
    """File to write; for NPZ and Parquet it may be a folder. ``~`` is the home folder."""

    format: str | None = None
    """Name of the file format, such as that of an installed package. None takes the recorder's."""

    max_episodes: int | None = None
    """Keep exactly this many episodes, the first to end, and stop."""

    max_bytes: int | None = None
    """Stop once this much was written; checked block by block."""

    keep: Keep = "all"
    """Which episodes to keep: "all", the "successful", the "failed", or both in "separate" files.
    An episode that was cut counts as failed unless it had succeeded."""

    compression: str | None = None
    """Compress with this method, where the format has it."""

    roll_over_bytes: int = 4 << 30
    """Size at which a file ends and its next part begins."""

    if_exists: IfExists = "error"
    """What to do if the path exists: "error", "overwrite", "append" to it, or add a "number"."""

    durability: Durability = "kill"
    """What the data survives once it is written: a "kill" of the process, or also a loss of
    "power", for which the writer waits for the disk."""

    def check(self) -> None:
        """Say what is wrong with the values, if anything is."""
        super().check()
        if self.format is not None:
            format_named(self.format)
        if not self.channels:
            name = type(self).__name__
            raise ValueError(f"{name}.channels is empty: there is nothing to record.")

    def at_least(self) -> dict[str, float]:
        """The smallest value of some fields."""
        more = dict.fromkeys(("max_episodes", "max_bytes", "roll_over_bytes"), 1)
        return {**super().at_least(), **more}

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The possible values of some fields."""
        return {
            **super().choices(),
            "keep": ("all", "successful", "failed", "separate"),
            "if_exists": ("error", "overwrite", "append", "number"),
            "durability": ("kill", "power"),
        }


RolloutRecorder.cfg_type = RolloutRecorderCfg
