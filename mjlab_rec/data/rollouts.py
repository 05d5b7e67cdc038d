"""Recorded rollouts: open them by path, whatever their format, and read episodes or batches."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.channel_table import Channels
from mjlab_rec.data.discovery import Source, find, format_of
from mjlab_rec.data.files import being_written, local_path
from mjlab_rec.data.formats.registry import recognise
from mjlab_rec.data.planned import Collection, incomplete, progress, read_collections
from mjlab_rec.data.remote import Mirror, is_url
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo
from mjlab_rec.data.workers import WORKER, table
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    import polars as pl

    from mjlab_rec.data.batches import Batches
    from mjlab_rec.data.dataset import RolloutDataset
    from mjlab_rec.data.formats.base import Reader
    from mjlab_rec.data.torchrl_storage import RolloutStorage

MEMORY_BYTES = 1 << 30

_WRITTEN = "being written"
_KILLED = "not finished: its process was killed, or it was copied while being written"
_MOST_TOLD = 5
_SHOWN = ("env", "number", "length", "return", "terminated", "truncated", "cut")


def open_rollouts(source: Source | Sequence[Source], check: bool = True) -> Rollouts:
    """Open a recording by its path, whatever its format and number of parts; or several as one.

    It may still be written, or its process may have been killed: what was written so far is read.

    Several recordings must have the same channels. Their episodes follow each other, those of an
    environment are numbered on, and the column "file" of ``episodes`` says where one comes from.

    Args:
        source: A file or a folder; for a recording in several parts, the path of the first one.
            Or several recordings: a folder with recordings in it, at any depth, a pattern such as
            "runs/*.h5", or a list of any of these. ``~`` is the home folder. A URL of a file
            system that fsspec knows, such as "s3://bucket/run", is downloaded to a temporary
            folder, which ``close`` removes.
        check: Compare everything that is read with its stored checksum, and raise DataError if it
            is damaged. Without it reading is a little faster.
    """
    if isinstance(source, str) and is_url(source):
        mirror = Mirror(source)
        try:
            if not mirror.update():
                raise DataError(f"There is no recording at '{source}'.")
            rollouts = _opened(mirror.path, check, None)
        except BaseException:
            mirror.close()
            raise
        rollouts._mirror = mirror
        return rollouts
    return _opened(source, check, None)


def _opened(source: Source | Sequence[Source], check: bool, before: Reader | None) -> Rollouts:
    """Open a source; `before` is its reader from an earlier moment."""
    path = local_path(source) if isinstance(source, str | Path) else None
    try:
        found = find(source)
    except OSError as error:
        where = path or error.filename
        raise DataError(f"Cannot open '{where}': {error.strerror or error}.") from error
    if path is not None and found.one:
        reader, format = open_recording(path, check)
        return Rollouts(reader, path, format)
    if not found.paths:
        if found.collections:
            planned = progress([], read_collections(found.collections))
            raise DataError(f"'{path}' has nothing to read yet: {planned} are there.")
        if not found.workers:
            raise DataError("There is nothing to open: the list of recordings is empty.")
        raise DataError(
            f"No worker in '{path}' has a recording yet: there are {len(found.workers)} folders"
            f" with a {WORKER}, and no recording in them."
        )
    from mjlab_rec.data.union import UnionReader

    together = UnionReader(
        found.paths,
        lambda path: open_recording(path, check, quick=True),
        check,
        folders=list(found.workers),
        before=before if isinstance(before, UnionReader) else None,
    )
    formats = ", ".join(dict.fromkeys(together.formats))
    source = source if path is not None else list(source)  # type: ignore[arg-type]
    rollouts = Rollouts(together, path, formats, tuple(found.paths), source)
    rollouts._collections = read_collections(found.collections)
    return rollouts


def open_recording(path: Path, check: bool, quick: bool = False) -> tuple[Reader, str]:
    """A reader of the recording at a path, and the name of its format.

    With `quick`, a recording of many parts is described by the index next to it, if it has one.
    """
    try:
        # Quickly: by the first of maybe many files.
        format = (quick and path.is_file() and recognise([path])) or format_of(path)
        if quick and format.name == "hdf5":
            from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader

            return Hdf5Reader(path, check, quick=True), format.name
        return format.open(path, check), format.name
    except (DataError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            message = f"Cannot open '{path}': {error.strerror or error}."
        if being_written(path):
            message = (
                f"'{path}' is being written, and nothing in it can be read yet. Wait until its"
                f" recorder has written something, or call the recorder's flush(). ({message})"
            )
        raise DataError(message) from error


class Rollouts:
    """A recording as a sequence of episodes, each a dictionary of arrays.

    An array has a row for each recorded step. The array "step" holds the number of steps of the
    episode before each row. Use it as a context manager, or call ``close``.
    """

    def __init__(
        self,
        reader: Reader,
        path: Path | None = None,
        format: str = "memory",
        paths: tuple[Path, ...] | None = None,
        asked: Source | Sequence[Source] | None = None,
    ) -> None:
        self._reader = reader
        self._collections: list[Collection] = []
        self._mirror: Mirror | None = None  # the copy of what is at a URL
        self._asked = path if asked is None else asked  # what `refresh` opens again
        self.path = path
        """Where it was opened; None for a list of recordings, or if it is in memory only."""
        self.paths = ((path,) if path else ()) if paths is None else paths
        """The recordings that were opened."""
        self.format = format
        """Name of its format, such as "hdf5"."""

    @property
    def reader(self) -> Reader:
        """What reads its format."""
        return self._reader

    @property
    def source(self) -> Path | list[Path] | None:
        """What ``open_rollouts`` opens as the same again; None if it is in memory only."""
        if not self.paths:
            return None
        return self.path if self.paths == (self.path,) else list(self.paths)

    @property
    def info(self) -> RunInfo:
        """Description of the recording."""
        return self._reader.info

    @property
    def episodes(self) -> pl.DataFrame:
        """A row per episode: env, number, start, length, rows, return, terminated, ...

        Unknown values are null.
        """
        return self._reader.episodes

    @property
    def origins(self) -> pl.DataFrame:
        """Where each episode was recorded: its file, and its environment and number there.

        That is known also after ``merge``, ``split``, ``keep_where`` and ``repair``.
        """
        from mjlab_rec.data.origins import ORIGIN, origins
        from mjlab_rec.data.union import UnionReader

        if isinstance(self._reader, UnionReader):
            return origins(self.episodes, self._reader.members)
        return origins(self.episodes, [(self.path, self.attachments.get(ORIGIN))])

    @property
    def channels(self) -> dict[str, ChannelSpec]:
        """The channels of a row, by name. Printed, they are a table."""
        return Channels({spec.name: spec for spec in self.info.channels})

    @property
    def attachments(self) -> dict[str, bytes]:
        """Whole files that belong to the recording, such as "model.mjb"."""
        return self.info.attachments

    @property
    def gaps(self) -> int:
        """Rows that were dropped because the disk was too slow."""
        return self._reader.gaps

    @property
    def finished(self) -> bool:
        """Whether it was closed, and nothing is missing; see ``state`` and ``incomplete``."""
        return self._reader.finished and not self.incomplete

    @property
    def state(self) -> str:
        """Whether the recording is complete, in words."""
        if self.finished:
            return "complete"
        if not self._reader.finished:
            return _WRITTEN if any(map(being_written, self.paths)) else _KILLED
        if sum(each.missing(self.paths) for each in self._collections):
            return f"incomplete: {progress(self._reader.workers, self._collections)}"
        lacking = self.incomplete
        more = f" And {len(lacking) - 1} more." if len(lacking) > 1 else ""
        return f"incomplete: {lacking[0]}{more}"

    @property
    def workers(self) -> pl.DataFrame:
        """A row per worker of a collection, which has a worker.json in its folder.

        It says who recorded what there, and what is missing.
        """
        return table(self._reader.workers)

    @property
    def incomplete(self) -> list[str]:
        """A sentence for each worker, or recording without one, that is not complete.

        A worker is complete if it has finished, and all of its recordings are closed and contain
        the planned number of episodes.
        """
        reader = self._reader
        unfinished = {} if reader.finished else self._unfinished()
        alone = [
            f"'{path}' is {state}."
            for path, state in unfinished.items()
            if not any(path.parent == worker.folder for worker in reader.workers)
        ]
        asked = self._asked
        sources = [asked] if isinstance(asked, str | Path) else asked or []
        paths = [local_path(source) for source in sources]
        return [*incomplete(reader.workers, self._collections, paths), *alone]

    @property
    def checked(self) -> bool:
        """Whether everything that is read is compared with its checksum."""
        return self._reader.check

    @property
    def rows(self) -> int:
        """Recorded rows of all episodes."""
        return int(self.episodes["rows"].sum())

    def __repr__(self) -> str:
        shown = self.episodes.select(_SHOWN).head(_MOST_TOLD)
        title = f"Episodes{f' (the first {len(shown)} of {len(self)})' * (len(self) > len(shown))}"
        rows = [["-" if value is None else value for value in row] for row in shown.rows()]
        return f"{self.summary()}\n\n{format_table(title, shown.columns, rows)}"

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.read(index)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Read an episode by its row in ``episodes``, all or some of its channels."""
        return self._reader.read(self._index(index), self.names(channels))

    def read_many(
        self, indices: Sequence[int], channels: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Read one or more episodes into joint arrays: the rows of one after those of another."""
        chosen = [self._index(index) for index in indices]
        return self._reader.read_many(chosen, self.names(channels))

    def arrays(self, channel: str) -> np.ndarray:
        """A channel's rows of all episodes, one episode after another."""
        if len(self):
            return self.read_many(range(len(self)), [channel])[channel]
        self.names([channel])
        dtype, shape = self.info.kinds[channel]
        return np.empty((0, *shape), dtype)

    def model(self, index: int) -> dict[str, np.ndarray]:
        """Model fields that differ between worlds, as they were in an episode."""
        return self._reader.model(self._index(index))

    def names(self, channels: Sequence[str] | None) -> list[str]:
        """Check names of channels. None: all of them and "step"."""
        if channels is None:
            return list(self.info.kinds)
        if isinstance(channels, str):
            raise TypeError(
                f"channels is the string '{channels}', but it must be a list: ['{channels}']."
            )
        self.info.check_names(channels)
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
        workers: int | None = None,
    ) -> Batches:
        """Batches of rows as torch tensors: each row once per pass, in a new order in each pass.

        Args:
            batch_size: Rows per batch; the last batch may have fewer.
            channels: Names of channels, by default all of them and "step".
            shuffle: Random order; otherwise episode by episode.
            seed: Makes the order repeatable.
            drop_last: Leave out a last batch that is not full.
            device: Where the tensors are.
            memory_bytes: Memory for rows. If all of them fit, they are read once and kept on the
                device. Otherwise small pieces from all over the recording, in a random order, are
                read ahead into one half of it, while batches come from the other half: rows are in
                a random order among those of hundreds of pieces.
            episodes: Rows of the table ``episodes`` to use, all by default.
            workers: Threads that read; 0: none, so that nothing is read ahead. By default up to
                four. Formats other than HDF5 need the caller's thread.
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
            workers=workers,
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
        workers: int | None = None,
    ) -> Batches:
        """Batches of windows of `length` consecutive rows, (batch_size, length, ...).

        A window never crosses the end of its episode or a gap in its rows.
        `stride` is the number of rows from one window to the next. The other
        arguments are those of ``transitions``.
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
            workers=workers,
        )

    def dataset(
        self,
        length: int | None = None,
        channels: Sequence[str] | None = None,
        *,
        stride: int = 1,
        memory_bytes: int = MEMORY_BYTES,
    ) -> RolloutDataset:
        """A ``torch.utils.data.Dataset`` of rows, or of windows of `length` rows.

        For code that needs a data loader; ``transitions`` and ``windows`` are faster. If all rows
        fit into `memory_bytes`, each process reads them once; otherwise it reads those of a batch.
        """
        from mjlab_rec.data.dataset import RolloutDataset

        return RolloutDataset(self, length, channels, stride, memory_bytes)

    def torchrl_storage(
        self,
        channels: Sequence[str] | None = None,
        *,
        observation: str | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> RolloutStorage:
        """The rows as the storage of a replay buffer of TorchRL, which must be installed.

        A row is a TensorDict with "observation", "action", and under "next" what followed.
        `observation` is the channel that is the observation, by default that of the policy.
        """
        from mjlab_rec.data.torchrl_storage import RolloutStorage

        return RolloutStorage(self, channels, observation, memory_bytes)

    def refresh(self) -> int:
        """Read what was written since it was opened; returns the number of new rows.

        New recordings in a folder, or of a pattern, are found, too. Episodes keep their ids (see
        the README), but may be in other rows of the table. Batches that were made before go on with
        what they had.
        """
        if self._asked is None:
            return 0
        if self._mirror is not None:
            self._mirror.update()
        before, now = self.rows, _opened(self._asked, self.checked, self._reader)
        self._reader, self.paths, self.format = now.reader, now.paths, now.format
        self._collections = now._collections
        return self.rows - before

    def verify(self) -> list[str]:
        """Read everything and compare it with its checksums; returns a sentence per damage."""
        return self._reader.verify()

    def summary(self) -> str:
        """What was recorded, as text."""
        from mjlab_rec.data.description import summary

        return summary(self)

    def _unfinished(self) -> dict[Path, str]:
        """The state of each recording that was not closed."""
        paths = getattr(self._reader, "unfinished", self.paths)
        return {path: _WRITTEN if being_written(path) else _KILLED for path in paths}

    def close(self) -> None:
        """Close the files. May be called twice."""
        self._reader.close()
        if self._mirror is not None:
            self._mirror.close()

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _index(self, index: int) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(f"An episode is chosen by its number, got {index!r}.") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no episode {number}: the recording has {len(self)}.")
        return number % len(self)
