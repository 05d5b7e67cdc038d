"""Several recordings as one: the same channels, and the episodes of one after those of another."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.files import parts
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.pieces import Pieces, ranges
from mjlab_rec.data.origins import FILE, FILE_NUMBER, ORIGIN
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

_LOG = logging.getLogger(__name__)

_MOST_OPEN = 64  # files; readers that keep data in memory count as several
_IN_MEMORY = 16


@dataclass(kw_only=True)
class _Member:
    """A recording of the union, which may be closed at the moment."""

    path: Path
    format: str
    table: pl.DataFrame
    origin: bytes | None  # its attached file ORIGIN

    @property
    def weight(self) -> int:
        """How many files it counts as while it is open."""
        return max(1, len(parts(self.path))) if self.format == "hdf5" else _IN_MEMORY


class UnionReader(Reader):
    """Reads recordings with the same channels as one.

    An episode keeps its environment, and its number is added to the numbers of the recordings
    before it, so that no two episodes of an environment have the same. Rows of the table are
    ordered by recording, and within one as its own reader orders them: a further recording at the
    end changes no number and no row. The columns "file" and "file_number" say where an episode
    comes from.

    Few recordings are open at a time; the others are opened when they are read.

    Args:
        paths: The recordings.
        opened: Opens one; returns its reader and the name of its format.
        check: Whether to compare checksums.
    """

    def __init__(
        self, paths: Sequence[Path], opened: Callable[[Path], tuple[Reader, str]], check: bool
    ) -> None:
        self.check = check
        self._opened = opened
        self._open: OrderedDict[int, Reader] = OrderedDict()
        self._members: list[_Member] = []
        self.gaps, self.finished = 0, True
        infos: list[RunInfo] = []
        kept: dict[str, bytes] = {}
        attached: list[dict[str, tuple[int, int]]] = []
        try:
            for path in paths:
                reader, format = opened(path)
                info = reader.info
                if infos:
                    check_same_channels(infos[0], info, paths[0], path)
                else:
                    kept = dict(info.attachments)
                attached.append({n: (len(c), crc32(c)) for n, c in info.attachments.items()})
                infos.append(replace(info, attachments={}))
                self.gaps += reader.gaps
                self.finished &= reader.finished
                origin = info.attachments.get(ORIGIN)
                member = _Member(path=path, format=format, table=reader.episodes, origin=origin)
                self._members.append(member)
                self._keep(len(self._members) - 1, reader)
        except BaseException:
            self.close()
            raise
        same = {n: c for n, c in kept.items() if all(a.get(n) == attached[0][n] for a in attached)}
        same.pop(ORIGIN, None)
        if different := sorted({n for a in attached for n in a} - {*same, ORIGIN}):
            _LOG.warning(
                "The attached files %s differ between the recordings, and are left out.",
                ", ".join(different),
            )
        self.info = replace(
            infos[0],
            envs=tuple(sorted({env for info in infos for env in info.envs})),
            about=_common([info.about for info in infos]),
            attachments=same,
        )
        self.episodes = self._table()
        counts = [len(member.table) for member in self._members]
        self._first = np.cumsum([0, *counts])
        self._of = np.repeat(np.arange(len(counts)), counts)
        self._rows = self.episodes["rows"].to_numpy().astype(np.int64)

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
        which = int(self._of[index])
        return self._member(which).read(index - int(self._first[which]), channels)

    def read_many(self, indices: Sequence[int], channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
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

    def reading(
        self, pieces: Pieces, out: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> Iterator[Callable[[], None]]:
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

    def _member(self, which: int) -> Reader:
        """The reader of a recording, opened if it is closed."""
        if which in self._open:
            self._open.move_to_end(which)
            return self._open[which]
        member = self._members[which]
        reader, _ = self._opened(member.path)
        if not reader.episodes.equals(member.table):
            reader.close()
            raise DataError(
                f"'{member.path}' was changed after it was opened, so its episodes have other"
                " numbers now. Open the recordings again."
            )
        self._keep(which, reader)
        return reader

    def _keep(self, which: int, reader: Reader) -> None:
        """Keep a reader open, and close the ones that were not used for the longest time."""
        self._open[which] = reader
        while len(self._open) > 1:
            if sum(self._members[other].weight for other in self._open) <= _MOST_OPEN:
                break
            _, oldest = self._open.popitem(last=False)
            oldest.close()

    def _table(self) -> pl.DataFrame:
        tables = []
        first = pl.DataFrame(schema={"env": pl.Int32, "first": pl.Int32})
        for member in self._members:
            table = member.table
            numbered = table.join(first, on="env", how="left", maintain_order="left")
            number = pl.col("number") + pl.col("first").fill_null(0)
            table = numbered.with_columns(
                number.alias("number"),
                pl.lit(str(member.path)).alias(FILE),
                pl.col("number").alias(FILE_NUMBER),
            ).drop("first")
            tables.append(table)
            after = table.group_by("env").agg((pl.col("number").max() + 1).alias("first"))
            first = pl.concat([first, after]).group_by("env").agg(pl.col("first").max())
        return pl.concat(tables, how="diagonal")


AS_STORED = ("next_of", "codec")
"""Fields of a channel that say how it is stored, which makes no difference to its values."""


def check_same_channels(old: RunInfo, new: RunInfo, before: Path, now: Path) -> None:
    """Raise if two recordings differ in what a row is; the message names the first difference."""

    def refuse(what: str) -> None:
        raise DataError(
            f"'{now}' cannot be read as one data set with '{before}': {what}. Open them"
            " separately, or give a list of those that fit."
        )

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
    """What all descriptions say."""
    first, *others = abouts
    missing = object()
    return {k: v for k, v in first.items() if all(o.get(k, missing) == v for o in others)}
