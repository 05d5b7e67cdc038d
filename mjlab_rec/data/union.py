"""Several recordings as one: the same channels, and the episodes of one after those of another."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.files import being_written, following_part
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.blocks import BlocksReader, JoinedBlocks
from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader
from mjlab_rec.data.formats.pieces import Pieces, Strips, ranges
from mjlab_rec.data.formats.segments import Table, joined_tables
from mjlab_rec.data.origins import FILE, FILE_NUMBER, ORIGIN
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo
from mjlab_rec.data.workers import Worker, read_worker

_LOG = logging.getLogger(__name__)

_MOST_OPEN = 4  # recordings in formats whose readers keep rows in memory


@dataclass(kw_only=True)
class _Member:
    """A recording of the union, which may be closed at the moment."""

    path: Path
    format: str
    origin: bytes | None  # its attached file ORIGIN
    finished: bool
    gaps: int
    info: RunInfo  # without attached files
    attached: dict[str, tuple[int, int]]  # size and checksum of the attached files
    ends: tuple[Path, Path] | None  # its last file and where a following one would be
    stamp: tuple[int, int, bool] | None  # of these, if it is finished


class UnionReader(Reader):
    """Reads recordings with the same channels as one.

    An episode keeps its environment, and its number is added to the numbers of the recordings
    before it, so that no two episodes of an environment have the same. Rows of the table are
    ordered by recording, and within one as its own reader orders them: a further recording at the
    end changes no number and no row. The columns "file" and "file_number" say where an episode
    comes from; so does "worker", the rank of the worker whose folder it is in, if there are any.

    HDF5 recordings in blocks are read as one: by threads, in pieces from all of them, with few
    open files. Of the other formats few recordings are open at a time; the others are opened when
    they are read.

    Args:
        paths: The recordings.
        opened: Opens one; returns its reader and the name of its format.
        check: Whether to compare checksums.
        folders: Folders of workers, also of those that have no recording yet.
        before: A reader of some of them, whose finished recordings are not opened again.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        opened: Callable[[Path], tuple[Reader, str]],
        check: bool,
        folders: Sequence[Path] = (),
        before: UnionReader | None = None,
    ) -> None:
        self.check = check
        self._opened = opened
        self._blocks: JoinedBlocks | None = None
        self._open: OrderedDict[int, Reader] = OrderedDict()
        self._members: list[_Member] = []
        self._numbers = {path: number for number, path in enumerate(paths)}
        self._contents: dict[tuple[str, int, int], bytes] = {}  # of attached files
        tables: list[Table | pl.DataFrame] = []
        kept: dict[str, bytes] = {}
        mine: list[Reader] = []
        try:
            for path in paths:
                known = before and before._still(path)
                reader, format = known or opened(path)
                if not known:
                    mine.append(reader)
                if not self._members:
                    kept = _attached_files(reader)
                self._add(path, format, reader)
                tables.append(reader.table if isinstance(reader, BlocksReader) else reader.episodes)
            self._first = np.cumsum([0, *map(len, tables)])
            self._of = np.repeat(np.arange(len(tables)), np.diff(self._first))
            self.info = self._joined_info(kept)
            self.workers = self._find_workers(folders)
            self.episodes = self._table(tables)
            readers = list(self._open.values())
            if len(readers) == len(tables) and JoinedBlocks.possible(readers):
                blocks: Any = readers
                self._blocks = JoinedBlocks(blocks, self.info, self.episodes, check)
        except BaseException:
            for reader in mine:  # Those of the reader before are still used.
                reader.close()
            raise
        self.gaps = sum(member.gaps for member in self._members)
        self.finished = all(member.finished for member in self._members)
        self._rows = self.episodes["rows"].to_numpy().astype(np.int64)

    @property
    def unfinished(self) -> list[Path]:
        """The recordings that were not closed."""
        return [member.path for member in self._members if not member.finished]

    @property
    def paths(self) -> list[Path]:
        """The recordings."""
        return [member.path for member in self._members]

    @property
    def formats(self) -> list[str]:
        """The formats of the recordings."""
        return [member.format for member in self._members]

    @property
    def members(self) -> list[tuple[Path | None, bytes | None]]:
        """The recordings, each with its attached file about the origin of its episodes."""
        return [(member.path, member.origin) for member in self._members]

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        if self._blocks is not None:
            return self._blocks.read(index, channels)
        which = int(self._of[index])
        return self._member(which).read(index - int(self._first[which]), channels)

    def read_many(self, indices: Sequence[int], channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        if self._blocks is not None:
            return self._blocks.read_many(indices, channels)
        chosen = np.asarray(indices, np.int64)
        of = self._of[chosen]
        members = np.unique(of)
        if len(members) == 1:
            which = int(members[0])
            return self._member(which).read_many((chosen - self._first[which]).tolist(), channels)
        sizes = self._rows[chosen]
        into = np.cumsum(sizes) - sizes
        kinds = self.info.kinds
        found = {
            name: np.empty((int(sizes.sum()), *kinds[name][1]), kinds[name][0]) for name in channels
        }
        for which in members.tolist():
            mine = np.flatnonzero(of == which)
            local = (chosen[mine] - self._first[which]).tolist()
            arrays = self._member(which).read_many(local, channels)
            lengths = sizes[mine]
            within = np.arange(int(lengths.sum()))
            at = within + np.repeat(into[mine] - (np.cumsum(lengths) - lengths), lengths)
            for name, out in found.items():
                out[at] = arrays[name]
        return found

    @property
    def concurrent(self) -> bool:
        return self._blocks is not None and self._blocks.concurrent

    @property
    def strips(self) -> Strips | None:
        return None if self._blocks is None else self._blocks.strips

    def grain(self, channels: Sequence[str]) -> int:
        return 1 if self._blocks is None else self._blocks.grain(channels)

    def chains(self, channels: Sequence[str]) -> dict[str, str]:
        return {} if self._blocks is None else self._blocks.chains(channels)

    def reading(
        self, pieces: Pieces, out: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> Iterator[Callable[[], None]]:
        if self._blocks is not None:
            yield from self._blocks.reading(pieces, out, after)
            return
        self.info.check_names(out)
        of, into = self._of[pieces.episode], pieces.into
        for which in np.unique(of).tolist():
            mine = np.flatnonzero(of == which)
            some = pieces[mine]
            some.episode = some.episode - self._first[which]
            counts = some.count
            if mine[-1] - mine[0] == len(mine) - 1:  # as a rule: they are read without a copy
                rows = slice(int(into[mine[0]]), int(into[mine[0]]) + some.rows)
                yield from self._member(which).reading(
                    some, {name: array[rows] for name, array in out.items()}, {}
                )
                continue
            found = {n: np.empty((some.rows, *a.shape[1:]), a.dtype) for n, a in out.items()}
            for task in self._member(which).reading(some, found, {}):
                task()
            at = np.repeat(into[mine], counts) + ranges(counts)
            for name, array in out.items():
                array[at] = found[name]

    def model(self, index: int) -> dict[str, np.ndarray]:
        which = int(self._of[index])
        return self._member(which).model(index - int(self._first[which]))

    def verify(self) -> list[str]:
        return [why for which in range(len(self._members)) for why in self._member(which).verify()]

    def close(self) -> None:
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    def _add(self, path: Path, format: str, reader: Reader) -> None:
        """Add a recording; raises if it does not fit to the first one."""
        info = reader.info
        if self._members:
            check_same_channels(self._members[0].info, info, self._members[0].path, path)
            if info.about == self._members[0].info.about:
                info.about = self._members[0].info.about  # It may be large.
        if isinstance(reader, Hdf5Reader):
            attached = reader.attached
        else:
            attached = {name: (len(c), crc32(c)) for name, c in info.attachments.items()}
        for name in info.attachments:  # They may be large, too, and as a rule are the same.
            key = name, *attached[name]
            info.attachments[name] = self._contents.setdefault(key, info.attachments[name])
        ends = None
        if reader.finished and isinstance(reader, Hdf5Reader):
            last = reader.last_path
            ends = last, following_part(path, last)
        self._members.append(
            _Member(
                path=path,
                format=format,
                origin=_attached_files(reader, [ORIGIN]).get(ORIGIN),
                finished=reader.finished,
                gaps=reader.gaps,
                info=replace(info, attachments={}) if info.attachments else info,
                attached=attached,
                ends=ends,
                stamp=_stamp(*ends) if ends else None,
            )
        )
        self._keep(len(self._members) - 1, reader)

    def _still(self, path: Path) -> tuple[Reader, str] | None:
        """The reader of a recording and its format, if it was finished and has not changed."""
        which = self._numbers.get(path)
        if which is None or which not in self._open:
            return None
        member = self._members[which]
        if member.ends is not None and member.stamp == _stamp(*member.ends):
            return self._open[which], member.format
        return None

    def _find_workers(self, folders: Sequence[Path]) -> list[Worker]:
        """The workers, with what they have recorded."""
        found: dict[Path, Worker | None] = {}
        for folder in dict.fromkeys([*folders, *(path.parent for path in self.paths)]):
            found[folder] = read_worker(folder)
        for member, count in zip(self._members, np.diff(self._first).tolist(), strict=True):
            worker = found[member.path.parent]
            if worker is not None:
                worker.recordings += 1
                worker.episodes += count
                if not member.finished:
                    state = "is being written" if being_written(member.path) else "was not closed"
                    worker.states.append(f"'{member.path.name}' {state}")
        return [worker for worker in found.values() if worker is not None]

    def _table(self, tables: Sequence[Table | pl.DataFrame]) -> pl.DataFrame:
        arrays = [table for table in tables if isinstance(table, Table)]
        if len(arrays) == len(tables):
            table = joined_tables(arrays).frame()
        else:
            frames = [each.frame() if isinstance(each, Table) else each for each in tables]
            table = pl.concat(frames, how="diagonal")
        table = _numbered(table, self._of, [str(member.path) for member in self._members])
        rank = {worker.folder: worker.rank for worker in self.workers}
        if not any(each is not None for each in rank.values()):
            return table
        ranks = [rank.get(member.path.parent) for member in self._members]
        return table.with_columns(pl.Series("worker", ranks, pl.Int32).gather(self._of))

    def _joined_info(self, attachments: dict[str, bytes]) -> RunInfo:
        """The description of all recordings, given the attached files of the first one."""
        infos = [member.info for member in self._members]
        attached = [member.attached for member in self._members]
        same = {
            name: content
            for name, content in attachments.items()
            if name != ORIGIN and all(a.get(name) == attached[0][name] for a in attached)
        }
        if different := sorted({n for a in attached for n in a} - {*same, ORIGIN}):
            _LOG.warning(
                "The attached files %s differ between the recordings, or are damaged. They are left"
                " out.",
                ", ".join(different),
            )
        return replace(
            infos[0],
            envs=tuple(sorted({env for info in infos for env in info.envs})),
            about=_common([info.about for info in infos]),
            attachments=same,
        )

    def _member(self, which: int) -> Reader:
        """The reader of a recording, opened if it is closed."""
        if which in self._open:
            self._open.move_to_end(which)
            return self._open[which]
        member = self._members[which]
        reader, _ = self._opened(member.path)
        now = reader.episodes
        mine = self.episodes.slice(self._first[which], self._first[which + 1] - self._first[which])
        known = mine.with_columns(pl.col(FILE_NUMBER).alias("number"))
        if set(now.columns) - set(known.columns) or not now.equals(known.select(now.columns)):
            reader.close()
            raise DataError(
                f"'{member.path}' was changed after it was opened, so its episodes have other"
                " numbers now. Open the recordings again."
            )
        self._keep(which, reader)
        return reader

    def _keep(self, which: int, reader: Reader) -> None:
        """Keep a reader open, and close others that keep rows in memory."""
        self._open[which] = reader
        if isinstance(reader, Hdf5Reader):
            # All stay open, because finding the blocks takes long, but they share few open files.
            reader.share(next(r for r in self._open.values() if isinstance(r, Hdf5Reader)))
            return
        others = [n for n, other in self._open.items() if not isinstance(other, Hdf5Reader)]
        for oldest in others[:-_MOST_OPEN]:
            self._open.pop(oldest).close()


def _attached_files(reader: Reader, names: Sequence[str] | None = None) -> dict[str, bytes]:
    """The attached files of a recording with these names, or all, without damaged ones."""
    if not isinstance(reader, Hdf5Reader):
        files = reader.info.attachments
        return {name: files[name] for name in files if names is None or name in names}
    found = {}
    for name in reader.attached:
        if names is None or name in names:
            try:
                found[name] = reader.attachment(name)
            except DataError as error:
                _LOG.warning("%s", error)
    return found


def _stamp(last: Path, following: Path) -> tuple[int, int, bool]:
    """Size and time of the last file of a recording, and whether there is a following one.

    They change when something is appended.
    """
    try:
        about = os.stat(last)
    except OSError:
        return -1, 0, False
    return about.st_size, about.st_mtime_ns, os.path.lexists(following)


def _numbered(table: pl.DataFrame, of: np.ndarray, files: Sequence[str]) -> pl.DataFrame:
    """The table of all episodes, whose numbers go on where those of the file before end.

    `of` is the number of each episode's file.
    """
    env, number = table["env"].to_numpy(), table["number"].to_numpy().astype(np.int64)
    order = np.lexsort((of, env))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(env[order]) != 0) | (np.diff(of[order]) != 0)
    at = np.flatnonzero(new)  # The episodes of an environment in a file.
    first = np.zeros(len(at), np.int64)
    if len(at):
        counts = np.maximum.reduceat(number[order], at) + 1
        before = np.cumsum(counts) - counts
        opening = np.ones(len(at), bool)
        opening[1:] = np.diff(env[order][at]) != 0
        first = before - before[np.flatnonzero(opening)][np.cumsum(opening) - 1]
    offset = np.empty(len(order), np.int64)
    offset[order] = np.repeat(first, np.diff(np.append(at, len(order))))
    return table.with_columns(
        pl.Series("number", number + offset).cast(pl.Int32),
        pl.Series(FILE, files, pl.String).gather(of),
        pl.col("number").alias(FILE_NUMBER),
    )


AS_STORED = ("next_of", "codec")
"""Fields of a channel that say how it is stored, which makes no difference to its values."""


def check_same_channels(old: RunInfo, new: RunInfo, before: Path, now: Path) -> None:
    """Raise if two recordings differ in what a row is; the message names the first difference."""

    def refuse(what: str) -> None:
        raise DataError(
            f"'{now}' cannot be read as one data set with '{before}': {what}. Open them"
            " separately, or give a list of those that fit."
        )

    if old.channels is new.channels and (old.step_dt, old.every) == (new.step_dt, new.every):
        return
    ours, theirs = ({spec.name: spec for spec in info.channels} for info in (old, new))
    for names, where in (([n for n in ours if n not in theirs], now),
                         ([n for n in theirs if n not in ours], before)):  # fmt: skip
        if names:
            refuse(f"'{where}' has no channel {', '.join(map(repr, names))}")
    for name, spec in ours.items():
        for field in fields(ChannelSpec):
            if field.name in AS_STORED:
                continue
            was, value = getattr(spec, field.name), getattr(theirs[name], field.name)
            if was != value:
                refuse(f"the {field.name} of channel '{name}' is {_said(value)}, not {_said(was)}")
    for field in ("step_dt", "every"):
        if getattr(old, field) != getattr(new, field):
            refuse(f"its {field} is {getattr(new, field)}, not {getattr(old, field)}")


def _said(value: Any) -> str:
    text = repr(list(value)) if isinstance(value, tuple) else repr(str(value))
    return text if len(text) < 200 else f"{text[:200]}..."


def _common(abouts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all descriptions say, at any depth."""
    found = {}
    for key, value in abouts[0].items():
        if not all(key in other for other in abouts):
            continue
        values = [other[key] for other in abouts]
        if all(each == value for each in values):
            found[key] = value
        elif all(isinstance(each, dict) for each in values):
            found[key] = _common(values)
    return found
