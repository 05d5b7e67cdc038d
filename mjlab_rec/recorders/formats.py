"""The built-in file formats' recorders: a rollout recorder for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mjlab_rec.data.formats import writer_class
from mjlab_rec.recorders.cfg import RolloutRecorderCfg
from mjlab_rec.recorders.rollout import RolloutRecorder

if TYPE_CHECKING:
    from mjlab_rec.data.formats.memory import MemoryWriter
    from mjlab_rec.data.rollouts import Rollouts


class CsvRecorder(RolloutRecorder):
    """Records one CSV table with named columns, ordered by time."""

    format = "csv"


@dataclass(kw_only=True)
class CsvRecorderCfg(RolloutRecorderCfg):
    """Configuration of ``CsvRecorder``."""

    func: type = CsvRecorder


class Hdf5Recorder(RolloutRecorder):
    """Records an HDF5 file: the fastest format; a kill loses a few seconds at most."""

    cfg: Hdf5RecorderCfg

    def writer(self) -> Callable[..., Any]:
        """The writer of the chosen layout."""
        if self.cfg.format is None and self.cfg.layout == "episodes":
            return writer_class("robomimic")
        return super().writer()


@dataclass(kw_only=True)
class Hdf5RecorderCfg(RolloutRecorderCfg):
    """Configuration of ``Hdf5Recorder``."""

    func: type = Hdf5Recorder

    layout: Literal["blocks", "episodes"] = "blocks"
    """"blocks" is fast and survives a kill; "episodes" has one group per episode, as robomimic and
    Isaac Lab expect, written when the episode ends."""


Hdf5Recorder.cfg_type = Hdf5RecorderCfg


class NpzRecorder(RolloutRecorder):
    """Records a folder with an NPZ file per episode, or a single NPZ file written at the end."""

    format = "npz"


@dataclass(kw_only=True)
class NpzRecorderCfg(RolloutRecorderCfg):
    """Configuration of ``NpzRecorder``."""

    func: type = NpzRecorder


class ParquetRecorder(RolloutRecorder):
    """Records a folder of Parquet files: one row per step, each episode in one piece."""

    format = "parquet"


@dataclass(kw_only=True)
class ParquetRecorderCfg(RolloutRecorderCfg):
    """Configuration of ``ParquetRecorder``."""

    func: type = ParquetRecorder


class MemoryRecorder(RolloutRecorder):
    """Keeps rollouts in memory, for the same process to read."""

    format = "memory"

    @property
    def rollouts(self) -> Rollouts:
        """Everything recorded so far."""
        from mjlab_rec.data.formats.memory import MemoryReader
        from mjlab_rec.data.rollouts import Rollouts

        self.flush()
        if self._pipeline is not None:
            self._last: MemoryWriter = self._pipeline.writers[0]  # type: ignore[assignment]
        return Rollouts(MemoryReader(self._last))

    def end_recording(self) -> None:
        """Keep the recorded data."""
        if self._pipeline is not None:
            self._last = self._pipeline.writers[0]  # type: ignore[assignment]
        super().end_recording()


@dataclass(kw_only=True)
class MemoryRecorderCfg(RolloutRecorderCfg):
    """Configuration of ``MemoryRecorder``."""

    func: type = MemoryRecorder
