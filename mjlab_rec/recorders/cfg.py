"""Cfgs of the recorders of rows: what to record, when, and how to write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mjlab_rec.data.formats import format_named
from mjlab_rec.data.formats.base import Durability
from mjlab_rec.data.pipeline import Keep
from mjlab_rec.data.staging import Overflow
from mjlab_rec.recorders.cfg_fields import (
    Bounds,
    Count,
    EnvsCfg,
    FileCfg,
    PaceCfg,
    StartCfg,
)
from mjlab_rec.recorders.channels import DEFAULT_CHANNELS, Channel
from mjlab_rec.recorders.rollout import RolloutRecorder
from mjlab_rec.recorders.transitions import TransitionRecorder
from mjlab_rec.recorders.triggers import Trigger


@dataclass(kw_only=True)
class TransitionRecorderCfg(StartCfg, PaceCfg, EnvsCfg):
    """Configuration of a recorder that gets rows: a subclass of ``TransitionRecorder``."""

    func: type = TransitionRecorder

    channels: tuple[str | Channel, ...] = DEFAULT_CHANNELS
    """What to record. A name such as "obs" stands for everything below it."""

    trigger: Trigger | Mapping[str, Any] | str | None = None
    """When to record; None means always. A trigger of episodes picks whole episodes, one of steps
    begins a stretch of ``length`` steps."""

    length: Count | None = None
    """Steps to record from when the trigger fires. None means until the episode ends."""

    max_steps: Count | None = None
    """Stop after this many recorded steps, each of all environments."""

    success: str | Callable[[Any], Any] | None = None
    """What a success is: the name of a termination term, or a function of the environment that
    returns (num_envs,) flags. None takes the termination term "success" if there is one."""

    dtype: Literal["float16", "float32", "float64"] | None = None
    """Store floating-point channels in this type, such as "float16". The state stays exact."""

    overflow: Overflow = "block"
    """What to do when blocks cannot be written fast enough: "block" the simulation, "drop" whole
    blocks (counted and marked in the file), or raise an "error". With "drop", a block that cannot
    be written at all, because the disk is full, is dropped too."""

    block_steps: Count | None = None
    """Steps per block, the most that a kill can lose unless blocks are waiting to be written; a
    block of more than 8 MB is written while the next one fills. None fits the steps to
    ``memory_bytes``."""

    block_seconds: Annotated[float, Bounds(0)] = 30.0
    """Write a block after this many seconds even if it is not full, so that a kill cannot lose more
    of a slow simulation."""

    num_blocks: Annotated[int, Bounds(2)] | None = None
    """Blocks in memory, at least 2. None means 3, or 6 where ``memory_bytes`` limits their size."""

    memory_bytes: Count = 256 << 20
    """Memory for all blocks together."""


TransitionRecorder.cfg_type = TransitionRecorderCfg


@dataclass(kw_only=True)
class RolloutRecorderCfg(TransitionRecorderCfg, FileCfg):
    """Configuration of a recorder that writes one row per environment and step."""

    func: type = RolloutRecorder
    """The recorder; each format has a cfg of its own that sets it."""

    format: str | None = None
    """Name of the file format, such as that of an installed package. None takes the recorder's."""

    max_episodes: Count | None = None
    """Keep exactly this many episodes, the first to end, and stop."""

    max_bytes: Count | None = None
    """Stop once this much was written; checked block by block."""

    keep: Keep = "all"
    """Which episodes to keep: "all", the "successful", the "failed", or both in "separate" files.
    An episode that was cut counts as failed unless it had succeeded."""

    compression: str | None = None
    """Compress with this method, where the format has it."""

    roll_over_bytes: Count = 4 << 30
    """Size at which a file ends and its next part begins."""

    durability: Durability = "kill"
    """What the data survives once it is written: a "kill" of the process, or also a loss of
    "power", for which the writer waits for the disk."""

    def check(self) -> None:
        """Raise ValueError for the first value that does not fit its field."""
        super().check()
        if self.format is not None:
            format_named(self.format)
        if not self.channels:
            raise self.error("channels", "is empty: there is nothing to record.")


RolloutRecorder.cfg_type = RolloutRecorderCfg
