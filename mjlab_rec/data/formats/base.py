"""What every format's writer and reader do."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mjlab_rec.data.files import IfExists
from mjlab_rec.data.formats.registry import check_path
from mjlab_rec.data.schema import Block, DataError, Episode, RunInfo

if TYPE_CHECKING:
    import polars as pl


Durability = Literal["kill", "power"]


@dataclass(kw_only=True)
class WriterOptions:
    """How to write, whatever the format."""

    path: str = ""
    """File, or folder for formats of many files. Formats without files ignore it."""

    if_exists: IfExists = "error"
    """What to do if the path exists: refuse, replace it, go on after it, or take the next free
    name such as rollout_1.h5."""

    compression: str | None = None
    """Name of a compression that the format knows; None writes plain data."""

    roll_over_bytes: int = 4 << 30
    """Size at which a file is finished and its next part begins."""

    block_rows: int = 1
    """Rows that a full block has."""

    durability: Durability = "kill"
    """What the data survives once it is written: a "kill" of the process, or also a loss of
    "power", for which each block or episode waits for the disk."""


class Writer(abc.ABC):
    """Writes a run. All methods are called from one thread, in the order of time.

    The constructor locks the path and writes what is known in advance, so that a bad path or
    option is refused before anything is simulated. What is written by a call survives a kill of the
    process once the call has returned, unless the format says otherwise.
    """

    by_episode: ClassVar[bool] = False
    """Whether the format can only write whole episodes."""

    compressions: ClassVar[Sequence[str]] = ()
    """Compressions that the format knows."""

    gaps: int = 0
    """Rows lost on the way to a writer of episodes; set before it is closed."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        self.info = info
        self.options = options
        if options.compression is not None and options.compression not in self.compressions:
            known = ", ".join(self.compressions) or "none"
            raise ValueError(
                f"{type(self).__name__} does not know the compression '{options.compression}'."
                f" Known: {known}."
            )
        check_path(type(self), options.path)

    @property
    @abc.abstractmethod
    def files(self) -> list[Path]:
        """What was written so far, in order; for formats of many files the folder."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes written so far."""

    def write(self, block: Block) -> None:
        """Write a block. Its arrays are used again afterwards."""
        raise DataError(f"{type(self).__name__} writes whole episodes only.")

    @abc.abstractmethod
    def write_episode(self, episode: Episode) -> None:
        """Write a whole episode. A run is written by blocks or by episodes, never by both."""

    @abc.abstractmethod
    def close(self) -> None:
        """Finish the files. Called once, also after a failed write."""


class Reader(abc.ABC):
    """Reads a run, also one that is still being written or was left by a killed process.

    It is made with a path, and with `check`: whether all that is read is compared with its stored
    checksum.
    """

    check: bool = True
    """Whether a damaged block or episode raises DataError when it is read."""

    finished: bool = True
    """Whether the recording was closed; else it is being written, or was left by a kill."""

    gaps: int = 0
    """Rows that were dropped because the disk was too slow."""

    info: RunInfo

    episodes: pl.DataFrame
    """One row per episode that has rows, ordered by environment and number: the columns of
    ``EPISODE_COLUMNS``."""

    @abc.abstractmethod
    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        """Channels of the episode in row `index` of the table, each (rows, *shape).

        "step", the steps taken in the episode before each row, may be asked for as well.
        """

    def read_many(self, indices: Sequence[int], channels: Sequence[str]) -> dict[str, np.ndarray]:
        """Channels of several episodes, the rows of one after those of another; at least one."""
        found = [self.read(index, channels) for index in indices]
        return {name: np.concatenate([arrays[name] for arrays in found]) for name in channels}

    def model(self, index: int) -> dict[str, np.ndarray]:
        """Model fields that differ from world to world, as they were in this episode."""
        return {}

    def verify(self) -> list[str]:
        """Read everything and compare checksums; a sentence for each damage that is found."""
        return []

    def close(self) -> None:  # noqa: B027 - most formats keep nothing open
        """Release the files. May be called twice."""


EPISODE_COLUMNS = {
    "env": "Int32",  # index of the environment
    "number": "Int32",  # of the episode, counted per environment
    "start": "Int64",  # control steps of the environment before the first recorded row
    "length": "Int32",  # control steps, recorded or not
    "rows": "Int32",  # recorded rows
    "return": "Float64",  # sum of rewards over all these steps; null where it is not known
    "recorded_return": "Float64",  # sum of the recorded rows' rewards; null where it is not known
    "terminated": "Boolean",
    "truncated": "Boolean",
    "cut": "Boolean",  # ended by neither: reset from outside, or still running when recording ended
    "success": "Boolean",  # null where it is not known
    "partial": "Boolean",  # whether a row is missing that `every` would have recorded
}
