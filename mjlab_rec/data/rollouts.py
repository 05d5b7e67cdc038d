"""Recorded rollouts, whatever their format: open them by path, and take out what was recorded."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mjlab_rec.data.files import META, parts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo
from mjlab_rec.utils.string import nearest
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    import polars as pl

    from mjlab_rec.data.batches import Batches, RolloutDataset
    from mjlab_rec.data.formats.base import Reader

MEMORY_BYTES = 1 << 30

# Loaded on first use: h5py and polars take a while to import.
_READERS = {
    "csv": "csv:CsvReader",
    "hdf5": "hdf5:Hdf5Reader",
    "npz": "npz:NpzReader",
    "parquet": "parquet:ParquetReader",
    "robomimic": "robomimic:RobomimicReader",
}
_SUFFIXES = {".csv": "csv", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
_POSSIBLE = (
    "A recording is a .h5 (also in robomimic's or Isaac Lab's layout), .csv or .npz file, or a"
    " folder that a recorder wrote as npz or parquet."
)


def open_rollouts(path: str | Path) -> Rollouts:
    """Open a recording by its path, whatever its format and number of parts.

    It may still be in the making, or left by a process that was killed: what is there is read.
    """
    path = Path(path)
    module, _, name = _READERS[_format(path)].partition(":")
    reader = getattr(importlib.import_module(f"mjlab_rec.data.formats.{module}"), name)
    return Rollouts(reader(path), path)


class Rollouts:
    """What was recorded, as a sequence of episodes, each a dictionary of arrays.

    An array has a row for each recorded step. Besides the channels there is "step", the number of
    steps taken in the episode before each row. Use it as a context manager, or call ``close``.
    """

    def __init__(self, reader: Reader, path: Path | None = None) -> None:
        self._reader = reader
        self.path = path
        """Where it was opened; None if it is in memory only."""

    @property
    def info(self) -> RunInfo:
        """What the recording says about itself."""
        return self._reader.info

    @property
    def episodes(self) -> pl.DataFrame:
        """A row per episode: env, number, start, length, rows, return, terminated, ...

        What is not known is null.
        """
        return self._reader.episodes

    @property
    def channels(self) -> dict[str, ChannelSpec]:
        """What there is in a row, by name."""
        return {spec.name: spec for spec in self.info.channels}

    @property
    def attachments(self) -> dict[str, bytes]:
        """Whole files that belong to the recording, such as "model.mjb"."""
        return self.info.attachments

    @property
    def gaps(self) -> int:
        """Rows that were dropped because the disk was too slow."""
        return self._reader.gaps

    @property
    def rows(self) -> int:
        """Recorded rows of all episodes."""
        return int(self.episodes["rows"].sum())

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.read(index)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """An episode by its row in ``episodes``, or only some channels of it."""
        return self._reader.read(self._index(index), self.names(channels))

    def read_many(
        self, indices: Sequence[int], channels: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Several episodes, at least one: the rows of one after those of another."""
        chosen = [self._index(index) for index in indices]
        return self._reader.read_many(chosen, self.names(channels))

    def arrays(self, channel: str) -> np.ndarray:
        """A channel's rows of all episodes, one episode after another."""
        (name,) = self.names([channel])
        if len(self):
            return self.read_many(range(len(self)), [name])[name]
        spec = self.channels.get(name)
        return np.empty((0, *spec.shape), spec.dtype) if spec else np.empty(0, np.int32)

    def model(self, index: int) -> dict[str, np.ndarray]:
        """Model fields that differ from world to world, as they were in an episode."""
        return self._reader.model(self._index(index))

    def names(self, channels: Sequence[str] | None) -> list[str]:
        """Names of channels that exist; all and "step" for None."""
        known = [*self.channels, "step"]
        if channels is None:
            return known
        if isinstance(channels, str):
            raise TypeError(f"Give channels as a list, such as ['{channels}'].")
        for name in channels:
            if name not in known:
                raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")
        return list(channels)

    def transitions(
        self,
        batch_size: int,
        channels: Sequence[str] | None = None,
        *,
        shuffle: bool = True,
        seed: int | None = None,
        drop_last: bool = False,
        device: str = "cpu",
        memory_bytes: int = MEMORY_BYTES,
        episodes: Sequence[int] | None = None,
    ) -> Batches:
        """Batches of rows as torch tensors: each row once per pass, in a new order each pass.

        Args:
            batch_size: Rows per batch; the last batch may have fewer.
            channels: Names of what is wanted, all and "step" by default.
            shuffle: Whether the order is random; else episode by episode.
            seed: Makes the order repeatable.
            drop_last: Leave out a last batch that is not full.
            device: Where the tensors are.
            memory_bytes: If all that is wanted fits, it is loaded once and kept on the device. Else
                random groups of episodes of this size are loaded one after another, and rows
                are mixed within a group only.
            episodes: Rows of the table ``episodes`` to use, all by default.
        """
        from mjlab_rec.data.batches import Batches

        return Batches(
            self,
            batch_size,
            channels,
            length=None,
            stride=1,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            device=device,
            memory_bytes=memory_bytes,
            episodes=episodes,
        )

    def windows(
        self,
        length: int,
        batch_size: int,
        channels: Sequence[str] | None = None,
        *,
        stride: int = 1,
        shuffle: bool = True,
        seed: int | None = None,
        drop_last: bool = False,
        device: str = "cpu",
        memory_bytes: int = MEMORY_BYTES,
        episodes: Sequence[int] | None = None,
    ) -> Batches:
        """Batches of `length` rows in a row, (batch_size, length, ...).

        A window never reaches over the end of its episode, nor over rows that were not recorded.
        `stride` is the number of rows from one window to the next. The rest is as in
        ``transitions``.
        """
        from mjlab_rec.data.batches import Batches

        return Batches(
            self,
            batch_size,
            channels,
            length=length,
            stride=stride,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            device=device,
            memory_bytes=memory_bytes,
            episodes=episodes,
        )

    def dataset(
        self, length: int | None = None, channels: Sequence[str] | None = None, *, stride: int = 1
    ) -> RolloutDataset:
        """A ``torch.utils.data.Dataset`` of rows, or of windows of `length` rows.

        For code that needs a data loader; ``transitions`` and ``windows`` are faster.
        """
        from mjlab_rec.data.batches import RolloutDataset

        return RolloutDataset(self, length, channels, stride)

    def summary(self) -> str:
        """A text for people that tells what was recorded."""
        about, table = self.info.about, self.episodes
        outcomes = {
            "terminated": table["terminated"].sum(),
            "truncated": table["truncated"].sum(),
            "cut": table["cut"].sum(),
            "success": table["success"].sum(),
            "failure": (~table["success"]).sum(),
        }
        told = ", ".join(f"{count} {name}" for name, count in outcomes.items() if count)
        rows: list[tuple[str, Any]] = [
            ("recording", self.path or "in memory"),
            *([("parts", len(parts(self.path)))] if self.path and self.path.is_file() else []),
            *((name, about[name]) for name in ("task", "engine", "seed") if name in about),
            ("environments", len(self.info.envs)),
            ("rows", self.rows),
            ("rows lost", self.gaps),
            ("step", f"{self.info.step_dt:g} s" + f", every {self.info.every}th recorded"
             * (self.info.every > 1)),
            ("episodes", f"{len(self)}" + f" ({told})" * bool(told)),
            ("return", _spread(table["return"])),
            ("length", _spread(table["length"])),
        ]  # fmt: skip
        channels = [
            (spec.name, spec.dtype, "x".join(map(str, spec.shape)) or "-", spec.units or "-")
            for spec in self.info.channels
        ]
        return "\n\n".join(
            [
                format_table("Rollouts", ("what", "value"), rows),
                format_table("Channels", ("name", "type", "shape", "units"), channels),
            ]
        )

    def close(self) -> None:
        """Release the files. May be called twice."""
        self._reader.close()

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _index(self, index: int) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(f"An episode is chosen by its number, not by {index!r}.") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no episode {number}: there are {len(self)}.")
        return number % len(self)


def _spread(values: pl.Series) -> str:
    """Mean, least and greatest of what is known."""
    known = values.drop_nulls()
    if not len(known):
        return "unknown"
    return f"mean {known.mean():g}, min {known.min():g}, max {known.max():g}"


def _format(path: Path) -> str:
    """The format of what is at a path."""
    if path.is_dir():
        from mjlab_rec.data.formats.parquet import HEAD

        for name, mark in (("parquet", HEAD), ("npz", META)):
            if (path / mark).is_file():
                return name
        raise DataError(f"The folder '{path}' is not a recording. {_there(path)} {_POSSIBLE}")
    files = parts(path)
    if not files:
        raise DataError(f"There is no recording at '{path}'. {_there(path.parent, path)}")
    for file in files:  # a damaged part must not cost the others
        if name := _by_content(file):
            return name
    expected = _SUFFIXES.get(path.suffix.lower())
    if expected:
        raise DataError(
            f"'{path}' is not a {expected} file, though it is called so, or it was left before"
            f" anything was written. {_POSSIBLE}"
        )
    raise DataError(f"'{path}' is not a recording. {_POSSIBLE}")


def _by_content(file: Path) -> str | None:
    from mjlab_rec.data.formats import hdf5_head

    with open(file, "rb") as stream:
        start = stream.read(hdf5_head.END)
    if hdf5_head.is_ours(start):
        return "hdf5"
    magic = start[:8]
    if magic == b"\x89HDF\r\n\x1a\n":
        import h5py

        try:
            with h5py.File(file, "r", locking=False) as opened:
                return "robomimic" if "data" in opened else "hdf5"
        except OSError:
            return None
    if magic[:4] == b"PK\x03\x04":
        return "npz"
    return "csv" if file.suffix.lower() == ".csv" else None


def _there(folder: Path, wanted: Path | None = None) -> str:
    """What recordings there are in a folder."""
    if not folder.is_dir():
        return f"There is no folder '{folder}' either."
    found = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.suffix in _SUFFIXES or (entry.is_dir() and (entry / META).is_file())
    )
    if not found:
        return f"There are no recordings in '{folder}'."
    return nearest(wanted.name, found) if wanted else f"Recordings in it: {', '.join(found)}."
