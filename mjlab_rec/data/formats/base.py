"""The base classes of all writers and readers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mjlab_rec.data.files import IfExists
from mjlab_rec.data.formats.pieces import Pieces, Strips
from mjlab_rec.data.formats.registry import check_path
from mjlab_rec.data.schema import Block, DataError, Episode, RunInfo

if TYPE_CHECKING:
    import polars as pl

    from mjlab_rec.data.workers import Worker

Durability = Literal["kill", "power"]


@dataclass(kw_only=True)
class WriterOptions:
    """Options of writers of any format."""

    path: str = ""
    """Path of the file or folder. Formats without files ignore it."""

    if_exists: IfExists = "error"
    """What to do if the path exists: raise, replace it, append to it, or use the next free name
    such as rollout_1.h5."""

    compression: str | None = None
    """One of the format's compressions; None: uncompressed."""

    roll_over_bytes: int = 4 << 30
    """Size at which the next part of a recording begins."""

    block_rows: int = 1
    """Rows of a full block."""

    blocks: int = 0
    """How many blocks will be written, if that is known. Then fewer files suffice."""

    durability: Durability = "kill"
    """What written data survives: a "kill" of the process, or also a loss of "power", for which
    writing each block or episode waits for the disk."""

    safe: bool = True
    """Whether data survives before the recording is closed. Without it HDF5 with many short
    episodes is written faster, for copies of other recordings."""


class Writer(abc.ABC):
    """Writes a recording. All methods are called from one thread, in the order of time.

    The constructor locks the path and writes everything that is known in advance, so that a bad
    path or option raises before the simulation begins. Data survives a kill of the process once the
    call that wrote it has returned, unless the format says otherwise.
    """

    by_episode: ClassVar[bool] = False
    """Whether the format can only write whole episodes."""

    compressions: ClassVar[Sequence[str]] = ()
    """Possible values of `compression`."""

    codecs: ClassVar[Sequence[str]] = ()
    """Codecs that the format has. It stores pictures with other codecs as arrays."""

    encodes_floats: ClassVar[bool] = False
    """Whether these codecs also store floats."""

    gaps: int = 0
    """Rows lost before they reached a writer of episodes; set before it is closed."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        self.info = info
        self.options = options
        if options.compression is not None and options.compression not in self.compressions:
            known = ", ".join(self.compressions) or "none"
            raise ValueError(
                f"Unknown compression '{options.compression}' for {type(self).__name__}."
                f" Possible: {known}."
            )
        check_path(type(self), options.path)

    @property
    @abc.abstractmethod
    def files(self) -> list[Path]:
        """Files written so far, in order; for formats with a folder, the folder."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes written so far."""

    def write(self, block: Block) -> None:
        """Write a block. Its arrays are reused after the call."""
        raise DataError(f"{type(self).__name__} writes whole episodes only.")

    @abc.abstractmethod
    def write_episode(self, episode: Episode) -> None:
        """Write a whole episode. A recording has blocks or episodes, never both."""

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        """Write whole episodes; a writer may write many at once, which is faster."""
        for episode in episodes:
            self.write_episode(episode)

    @abc.abstractmethod
    def close(self) -> None:
        """Close the files. Called once, also after a failed write."""


class Reader(abc.ABC):
    """Reads a recording, also one that is being written or whose process was killed.

    The constructor takes a path, and `check`: whether to compare everything with its checksum.
    """

    check: bool = True
    """Whether reading a damaged block or episode raises DataError."""

    finished: bool = True
    """Whether the recording was closed; False while it is written and after a kill."""

    gaps: int = 0
    """Rows that were dropped because the disk was too slow."""

    damages: Sequence[str] = ()
    """A sentence for each damage found when it was opened."""

    workers: Sequence[Worker] = ()
    """The workers of a collection that wrote it."""

    info: RunInfo

    episodes: pl.DataFrame
    """One row per episode that has rows, ordered by environment and number: the columns of
    ``EPISODE_COLUMNS``."""

    @abc.abstractmethod
    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        """Channels of the episode in row `index` of the table, each (rows, *shape).

        "step" is possible too: the steps of the episode before each row.
        """

    def read_many(self, indices: Sequence[int], channels: Sequence[str]) -> dict[str, np.ndarray]:
        """Channels of one or more episodes, the rows of one after those of another."""
        found = [self.read(index, channels) for index in indices]
        return {name: np.concatenate([arrays[name] for arrays in found]) for name in channels}

    has_models: bool = True
    """Whether an episode may have model fields of its own."""

    def model(self, index: int) -> dict[str, np.ndarray]:
        """Model fields that differ between worlds, as they were in this episode."""
        return {}

    # -- for fast reading of many rows -------------------------------------------------------------

    concurrent: bool = False
    """Whether other threads may read while one does."""

    @property
    def strips(self) -> Strips | None:
        """Where an episode's rows may be cut for reading; None if an episode is read as a whole."""
        return None

    def grain(self, channels: Sequence[str]) -> int:
        """Lanes of ``strips`` that should be read together: those that share a checksum."""
        return 1

    def chains(self, channels: Sequence[str]) -> dict[str, str]:
        """Those of these channels that are not stored, and the one whose next value each one is.

        Within a piece the value in a row is the other channel's value in the following row.
        """
        return {}

    def reading(
        self, pieces: Pieces, out: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> Iterator[Callable[[], None]]:
        """Tasks that together read pieces of episodes. If ``concurrent``, threads may share them.

        Args:
            pieces: What to read.
            out: For each wanted channel an array (rows of all pieces, *shape) that is filled.
            after: For each channel in `out` that is another one's source in ``chains`` an array
                (pieces, *shape) that is filled with the value after the last row of each piece.
        """
        self.info.check_names(out)
        into, order = pieces.into, np.argsort(pieces.episode, kind="stable")
        cuts = np.flatnonzero(np.diff(pieces.episode[order], prepend=-1, append=-1))

        def read(which: np.ndarray) -> None:
            found = self.read(int(pieces.episode[which[0]]), list(out))
            for number in which.tolist():
                first, count = int(pieces.first[number]), int(pieces.count[number])
                for name, array in out.items():
                    to = int(into[number])
                    array[to : to + count] = found[name][first : first + count]

        for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            yield partial(read, order[first:last])

    def verify(self) -> list[str]:
        """Read everything and compare checksums; returns a sentence per damage."""
        return []

    def close(self) -> None:  # noqa: B027 - most formats keep nothing open
        """Close the files. May be called twice."""


EPISODE_COLUMNS = {
    "env": "Int32",  # index of the environment
    "number": "Int32",  # of the episode, counted per environment
    "start": "Int64",  # control steps of the environment before the first recorded row
    "length": "Int32",  # control steps, recorded or not
    "rows": "Int32",  # recorded rows
    "return": "Float64",  # sum of rewards over all these steps; null if unknown
    "recorded_return": "Float64",  # sum of the recorded rows' rewards; null if unknown
    "terminated": "Boolean",
    "truncated": "Boolean",
    "cut": "Boolean",  # by a reset, or by the end of the recording
    "success": "Boolean",  # null if unknown
    "partial": "Boolean",  # whether a row is missing that `every` would have recorded
}
