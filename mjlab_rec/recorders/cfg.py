"""Configuration of the recorders that write rows: what to record, when and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from mjlab_rec.recorders.data_functions import data_channels
from mjlab_rec.recorders.pictures import codec_named
from mjlab_rec.recorders.rollout import RolloutRecorder
from mjlab_rec.recorders.transitions import TransitionRecorder
from mjlab_rec.recorders.triggers import TriggerLike


@dataclass(kw_only=True)
class TransitionRecorderCfg(StartCfg, PaceCfg, EnvsCfg):
    """Configuration of a subclass of ``TransitionRecorder``, which receives rows."""

    func: type = TransitionRecorder

    channels: tuple[str | Channel, ...] = DEFAULT_CHANNELS
    """What to record. A name such as "obs" includes everything below it."""

    trigger: TriggerLike | None = None
    """When to record; None means always. An episode trigger selects whole episodes of each
    environment, counted from 0; a step trigger starts a window of ``length`` steps. Such as
    every_n_episodes(10), or a function: ``lambda episode: episode % 10 == 0``. The name of its
    parameter says what it gets: step, episode or env."""

    length: Count | None = None
    """Steps to record each time the trigger fires. None records until the episode ends, or with
    at_start() until the recording is stopped."""

    max_steps: Count | None = None
    """Stop after recording this many steps. A step of all environments counts once."""

    success: str | Callable[[Any], Any] | None = None
    """What counts as success: the name of a termination term, or a function of the environment
    that returns (num_envs,) flags. None uses the termination term "success" if there is one."""

    dtype: Literal["float16", "float32", "float64"] | None = None
    """Store floating-point channels as this type, such as "float16". The state stays exact."""

    overflow: Overflow = "block"
    """What to do when blocks cannot be written fast enough: "block" the simulation, "drop" whole
    blocks (counted, and marked in the file), or raise an "error". "drop" also drops a block that
    cannot be written at all because the disk is full."""

    block_steps: Count | None = None
    """Steps per block, the most that a kill can lose unless blocks are waiting to be written. A
    block of more than 8 MB is written while the next one fills. None fits the number to
    ``memory_bytes``."""

    block_seconds: Annotated[float, Bounds(0)] = 30.0
    """Write a block after this many seconds even if it is not full. This limits what a slow
    simulation loses if the process is killed."""

    num_blocks: Annotated[int, Bounds(2)] | None = None
    """Number of blocks in memory, at least 2. None means 3, or 6 if ``memory_bytes`` limits their
    size."""

    memory_bytes: Count = 256 << 20
    """Total memory for all blocks."""

    def with_data(self, data: Any, env: Any) -> TransitionRecorderCfg:
        """Return a copy that records this, as given to ``start_recording``."""
        return replace(self, channels=data_channels(data, env))


TransitionRecorder.cfg_type = TransitionRecorderCfg


@dataclass(kw_only=True)
class RolloutRecorderCfg(TransitionRecorderCfg, FileCfg):
    """Configuration of a recorder that writes one row per environment and step."""

    func: type = RolloutRecorder
    """The recorder class; each format has its own cfg that sets it."""

    format: str | None = None
    """Name of the file format, built in or from a package. None uses the recorder's."""

    max_episodes: Count | None = None
    """Keep exactly this many episodes, the first to end, then stop."""

    max_bytes: Count | None = None
    """Stop once this many bytes are written; checked after each block."""

    keep: Keep = "all"
    """Which episodes to keep: "all", the "successful" ones, the "failed" ones, or both in
    "separate" files. An episode that is cut short counts as failed unless it has already
    succeeded."""

    compression: str | None = None
    """Compress with this method, if the format supports it."""

    pictures: str | dict[str, str] | None = None
    """How to store pictures, such as those of cameras: "raw" arrays, "png" (lossless), "jpeg" or
    "jpeg:90" (quality 1 to 100), "h264" or "h264:18" (crf 0 to 51, lower is better). By channel:
    {"sensor/wrist/rgb": "jpeg"}. None is "png" for uint8 and uint16 pictures if the format has
    it. Only "png" stores every value exactly, in HDF5 floats too."""

    roll_over_bytes: Count = 4 << 30
    """File size at which the next part begins."""

    durability: Durability = "kill"
    """What written data survives: a "kill" of the process, or also a loss of "power", for which the
    writer waits for the disk."""

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        if self.format is not None:
            format_named(self.format)
        texts = self.pictures or {}
        for text in [texts] if isinstance(texts, str) else texts.values():
            try:
                codec_named(text)
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}.{error}") from None
        if not self.channels:
            raise self.error("channels", "is empty: there is nothing to record.")


RolloutRecorder.cfg_type = RolloutRecorderCfg
