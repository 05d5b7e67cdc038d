"""The base of readers of block-structured recordings: episodes from blocks."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.block_pictures import decoding
from mjlab_rec.data.formats.block_pieces import Wanted, reading, split
from mjlab_rec.data.formats.block_strips import BlockStrips
from mjlab_rec.data.formats.pieces import Pieces
from mjlab_rec.data.formats.segments import Index, Segments, joined_tables
from mjlab_rec.data.pictures.encoding import ENTRY_DTYPE
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

SEGMENT_DTYPE = np.dtype(
    [(name, np.int64) for name in ("index", "block", "env_index", "start", "stop", "row", "began")]
)
"""A piece of an episode in a block: its row in the table of episodes, and the rows from "start" to
before "stop" of the block, the first of which is the row "row" of the episode, which began after
"began" control steps."""


class BlockRun(abc.ABC):
    """A run whose channels are stored in blocks."""

    info: RunInfo
    index: Index
    encodes: bool = True
    """Whether channels with a codec are encoded."""
    has_models: bool = True
    """Whether an episode may have model fields of its own."""

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether a channel has an array."""

    @abc.abstractmethod
    def rows(self, name: str, block: int, env_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of some environments: an array (n, rows, ...), and the place of each one in it."""

    def strip(self, name: str, block: int, first: int, last: int) -> tuple[np.ndarray, int]:
        """Rows of the environments from `first` to before `last`, and maybe of more around them.

        Returns:
            A contiguous array (n, rows, *shape), and its first environment.
        """
        values, at = self.rows(name, block, np.arange(first, last))
        return values[at], first

    def grain(self, names: Sequence[str]) -> int:
        """Environments that should be read together."""
        return 1

    @abc.abstractmethod
    def tails(self, name: str, block: int, env_indices: np.ndarray) -> np.ndarray:
        """Values of a chained channel after a block's last row."""

    @abc.abstractmethod
    def finals(self, name: str, ends: np.ndarray) -> np.ndarray:
        """Values of a chained channel when episodes ended, all in the same block."""

    def decode(
        self, spec: ChannelSpec, entries: np.ndarray, blocks: np.ndarray, out: np.ndarray
    ) -> None:
        """Write the pictures that entries of these blocks refer to.

        For runs where the columns of channels with a codec hold entries (`pictures.encoding`).
        """
        raise NotImplementedError

    @abc.abstractmethod
    def model(self, env_index: int, key: int) -> dict[str, np.ndarray]:
        """Model fields of an episode."""


class BlocksReader(Reader):
    """Reads one or more runs of blocks that were recorded to one path, the later ones appended.

    Each run continues the numbering of episodes from the highest number before it.

    Args:
        runs: The runs.
        check: Raise when an episode with lost rows is read.
    """

    def __init__(self, runs: Sequence[BlockRun], check: bool = True) -> None:
        segments = [Segments(run.index, run.info.every) for run in runs]
        tables, first = [], 0
        for run, some in zip(runs, segments, strict=True):
            table = some.table(run.index, run.info, first)
            tables.append(table)
            first = max(first, 1 + int(table.columns["number"].max(initial=-1)))
        self.table = table = joined_tables(tables)
        """The table of episodes, as arrays."""
        of = np.repeat(np.arange(len(tables)), [len(each) for each in tables])
        at = np.concatenate([np.arange(len(each)) for each in tables])
        order = np.lexsort((of, table.columns["number"], table.columns["env"]))
        if (np.diff(order) != 1).any():
            self.table, of, at = table[order], of[order], at[order]
        rows = self.table.columns["rows"]
        self._set(runs[0].info, runs, segments, rows, of, at, check)

    @functools.cached_property
    def episodes(self) -> pl.DataFrame:
        return self.table.frame()

    def _set(
        self,
        info: RunInfo,
        runs: Sequence[BlockRun],
        segments: Sequence[Segments],
        rows: np.ndarray,
        run: np.ndarray,
        at: np.ndarray,
        check: bool,
    ) -> None:
        """Set the runs, their segments, and of each episode its rows, its run and its number in
        it.
        """
        self.info, self.check = info, check
        self.refuse_lost = check
        """Whether reading an episode with lost rows raises; otherwise its other rows are read."""
        self._runs, self._segments = runs, segments
        self._run, self._at = run, at
        self._kinds = info.kinds
        self._rows = rows
        known: dict[Any, dict[str, ChannelSpec]] = {}
        self._specs = [
            known.setdefault(run.info.channels, {s.name: s for s in run.info.channels})
            for run in runs
        ]
        # Runs of which something cannot be read: rows are lost, or channels differ.
        self._suspects = [
            number
            for number, specs in enumerate(self._specs)
            if segments[number].broken or not _same_kinds(self._specs[0], specs)
        ]
        self._strips: BlockStrips | None = None
        # Decoding has its own threads.
        self.concurrent = not any(r.encodes and s.codec for r in runs for s in r.info.channels)
        self.has_models = any(run.has_models for run in runs)
        self._pieces: dict[int, np.ndarray] = {}
        self.gaps = sum(int(run.index.gap.sum()) for run in runs)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        return self.read_many([index], channels)

    def read_many(self, indices: Sequence[int], channels: Sequence[str]) -> dict[str, np.ndarray]:
        chosen = np.asarray(indices, np.int64)
        size = self._rows[chosen].astype(np.int64)
        into = np.cumsum(size) - size
        self.info.check_names(channels)
        kinds = ((name, *self._kinds[name]) for name in channels)
        found = {name: np.empty((size.sum(), *shape), dtype) for name, dtype, shape in kinds}
        of = self._run[chosen]
        for number in np.unique(of).tolist() if len(self._runs) > 1 else [0]:
            mine = of == number
            self._refuse(number, chosen[mine], channels)
            selection = _Selection(self._segments[number], self._at[chosen[mine]], into[mine])
            self._copy_run(found, number, selection)
        return found

    @property
    def strips(self) -> BlockStrips:
        if self._strips is None:
            self._strips = BlockStrips(self._runs, self._segments, self._run, self._at)
        return self._strips

    def grain(self, channels: Sequence[str]) -> int:
        return max((run.grain(channels) for run in self._runs), default=1)

    def chains(self, channels: Sequence[str]) -> dict[str, str]:
        specs = self._specs[0]
        return {
            name: specs[name].next_of
            for name in channels
            if name in specs
            and specs[name].next_of
            and not any(run.has(name) for run in self._runs)
        }

    def reading(
        self, pieces: Pieces, out: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> Iterator[Callable[[], None]]:
        self.info.check_names(out)
        for number in self._suspects:
            mine = self._run[pieces.episode] == number
            self._refuse(number, np.unique(pieces.episode[mine]), list(out))
        strips = self.strips
        wanted = Wanted(self._runs, self._specs, strips, split(strips, pieces), out, after)
        encoded = {name: array for name, array in out.items() if self._encoded(0, name)}
        if encoded:
            yield from decoding(replace(wanted, out=encoded))
        plain = {name: array for name, array in out.items() if name not in encoded}
        if plain:
            yield from reading(replace(wanted, out=plain))

    def lost_rows(self, index: int) -> str:
        """A sentence about an episode of which rows are in blocks that are lost, else ""."""
        why = self._segments[int(self._run[index])].broken.get(int(self._at[index]))
        if why is None:
            return ""
        env, number = self.episodes["env"][index], self.episodes["number"][index]
        return f"Rows of episode {number} of environment {env} are lost. {why}"

    def _encoded(self, number: int, name: str) -> bool:
        """Whether the columns of a channel hold entries in a run."""
        spec = self._specs[number].get(name)
        return spec is not None and bool(spec.codec) and self._runs[number].encodes

    def _copy_run(self, found: dict[str, np.ndarray], number: int, selection: _Selection) -> None:
        """Copy the selected rows of a run into the result."""
        run, specs = self._runs[number], self._specs[number]
        encoded = [name for name in found if self._encoded(number, name)]
        entries = {name: np.zeros(len(found[name]), ENTRY_DTYPE) for name in encoded}
        targets = {**found, **entries}
        rows, blocks = [], []
        for group in selection.groups():
            for name, out in targets.items():
                _copy(out, run, specs.get(name), group)
            if encoded:
                _, _, into = group.rows(0)
                mine = np.arange(into.start, into.stop) if isinstance(into, slice) else into
                rows.append(mine)
                blocks.append(np.full(len(mine), group.block))
        if not rows:
            return
        of, at = np.concatenate(blocks), np.concatenate(rows)
        for name in encoded:
            out = found[name]
            values = out if len(at) == len(out) else np.empty((len(at), *out.shape[1:]), out.dtype)
            order = np.argsort(at) if values is out else np.arange(len(at))
            run.decode(specs[name], entries[name][at[order]], of[order], values)
            if values is not out:
                out[at] = values

    def _refuse(self, number: int, indices: np.ndarray, channels: Sequence[str]) -> None:
        """Raise if rows of episodes are lost, or their channels differ from the first run's."""
        if number not in self._suspects:
            return
        if self.refuse_lost and self._segments[number].broken:
            for index in indices.tolist():
                if why := self.lost_rows(index):
                    raise DataError(why)
        for name in channels if len(indices) and number else ():
            ours, first = self._specs[number].get(name), self._specs[0].get(name)
            if first is not None and (
                ours is None or (ours.dtype, ours.shape) != (first.dtype, first.shape)
            ):
                raise DataError(
                    f"The channel '{name}' is missing, or has another type or shape, in run"
                    f" {number}, which was appended to the recording."
                )

    def segments_in(self, run: int, block: int) -> np.ndarray:
        """The pieces of episodes in a block of a run, as an array of SEGMENT_DTYPE."""
        if run not in self._pieces:
            segments = self._segments[run]
            counts = np.diff(segments.offsets)
            of = np.repeat(np.arange(len(segments)), counts)
            size = segments.stop - segments.start
            before = np.cumsum(size) - size
            found = np.zeros(len(of), SEGMENT_DTYPE)
            found["index"] = self._rows_of(run)[of]
            found["block"], found["env_index"] = segments.block, segments.env_index[of]
            found["start"], found["stop"] = segments.start, segments.stop
            found["began"] = segments.began[of]
            found["row"] = before - before[segments.offsets[:-1]][of]
            self._pieces[run] = found[np.argsort(found["block"], kind="stable")]
        pieces = self._pieces[run]
        first, after = np.searchsorted(pieces["block"], (block, block + 1))
        return pieces[first:after]

    def ended_in(self, run: int, block: int) -> np.ndarray:
        """Rows in the table of the episodes that ended in a block, in that order; -1: not there."""
        segments, ends = self._segments[run], self._runs[run].index.ends
        first, after = np.searchsorted(ends["block"], (block, block + 1))
        found = np.full(int(after - first), -1)
        mine = np.flatnonzero((segments.end >= first) & (segments.end < after))
        found[segments.end[mine] - first] = self._rows_of(run)[mine]
        return found

    def _rows_of(self, run: int) -> np.ndarray:
        """The row in the table of each episode of a run."""
        here = np.flatnonzero(self._run == run)
        index = np.full(len(self._segments[run]), -1)
        index[self._at[here]] = here
        return index

    def model(self, index: int) -> dict[str, np.ndarray]:
        number, at = int(self._run[index]), int(self._at[index])
        segments = self._segments[number]
        return self._runs[number].model(int(segments.env_index[at]), int(segments.key[at]))


class JoinedBlocks(BlocksReader):
    """Reads the blocks of several recordings as those of one.

    Args:
        readers: Their readers.
        info: The description of all of them.
        table: Their episodes, in the order of the readers.
    """

    def __init__(
        self, readers: Sequence[BlocksReader], info: RunInfo, table: pl.DataFrame, check: bool
    ) -> None:
        runs = [run for reader in readers for run in reader._runs]
        segments = [each for reader in readers for each in reader._segments]
        before = np.cumsum([0, *(len(reader._runs) for reader in readers)])
        run = np.concatenate([r._run + n for r, n in zip(readers, before)])  # noqa: B905
        at = np.concatenate([reader._at for reader in readers])
        self.episodes = table
        self._set(info, runs, segments, table["rows"].to_numpy(), run, at, check)

    @staticmethod
    def possible(readers: Sequence[Reader]) -> bool:
        """Whether these readers can be joined: all read blocks, and encode the same pictures."""
        blocks = [reader for reader in readers if isinstance(reader, BlocksReader)]
        encoded = {
            tuple(n for n in specs if reader._encoded(number, n))
            for reader in blocks
            for number, specs in enumerate(reader._specs)
        }
        return len(blocks) == len(readers) and len(encoded) == 1


def _same_kinds(wanted: Mapping[str, ChannelSpec], specs: Mapping[str, ChannelSpec]) -> bool:
    """Whether a run has all of these channels with the same types and shapes."""
    return specs is wanted or all(
        name in specs and (specs[name].dtype, specs[name].shape) == (spec.dtype, spec.shape)
        for name, spec in wanted.items()
    )


@dataclass(kw_only=True)
class _Group:
    """Segments of n episodes in the same block."""

    block: int
    env_index: np.ndarray  # (n,)
    start: np.ndarray  # (n,), first row in the block
    size: np.ndarray  # (n,), rows
    into: np.ndarray  # (n,), row of the result for the first one
    end: np.ndarray  # (n,), the episode's end; -1: it has none
    began: np.ndarray  # (n,), control step of the episode's start

    def rows(self, first: int, less: int = 0) -> tuple[Any, Any, Any]:
        """Number of the segment, row in the block and row of the result, for all rows.

        `first` is added to rows in the block; `less` rows at each segment's end are skipped.
        """
        if len(self.env_index) == 1:
            start, into, size = int(self.start[0]), int(self.into[0]), int(self.size[0]) - less
            return 0, slice(start + first, start + first + size), slice(into, into + size)
        size = self.size - less
        number = np.repeat(np.arange(len(size)), size)
        within = np.arange(len(number)) - np.repeat(np.cumsum(size) - size, size)
        return number, self.start[number] + first + within, self.into[number] + within


class _Selection:
    """The segments of some episodes, and the place of their rows in the result."""

    def __init__(self, segments: Segments, episodes: np.ndarray, into: np.ndarray) -> None:
        first = segments.offsets[episodes]
        counts = segments.offsets[episodes + 1] - first
        which = np.repeat(np.arange(len(episodes)), counts)
        ahead = np.cumsum(counts) - counts
        at = np.arange(len(which)) - ahead[which] + first[which]
        self._block, self._start = segments.block[at], segments.start[at]
        self._size = segments.stop[at] - self._start
        before = np.cumsum(self._size) - self._size
        self._into = before - before[ahead[which]] + into[which]
        of = episodes[which]
        self._env_index, self._end, self._began = (
            segments.env_index[of],
            segments.end[of],
            segments.began[of],
        )

    def groups(self) -> Iterator[_Group]:
        """Segments in the same block, block by block."""
        order = np.argsort(self._block, kind="stable")
        block = self._block[order]
        bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            if last > first:
                at = order[first:last]
                yield _Group(
                    block=int(block[first]),
                    env_index=self._env_index[at],
                    start=self._start[at],
                    size=self._size[at],
                    into=self._into[at],
                    end=self._end[at],
                    began=self._began[at],
                )


def _copy(out: np.ndarray, run: BlockRun, spec: ChannelSpec | None, group: _Group) -> None:
    """Copy a channel's rows into the result; without a channel, the steps."""
    block = group.block
    if spec is None:
        number, row, into = group.rows(0)
        out[into] = run.index.step[block, row] - group.began[number]
        return
    if run.has(spec.name):
        values, at = run.rows(spec.name, block, group.env_index)
        number, row, into = group.rows(0)
        out[into] = values[at[number], row]
        return
    source = spec.next_of
    values, at = run.rows(source, block, group.env_index)
    number, row, into = group.rows(1, less=1)
    out[into] = values[at[number], row]
    last, ends = group.into + group.size - 1, run.index.ends
    over = group.end >= 0
    if over.any():
        mine = ends[group.end]
        over &= (mine["block"] == block) & (mine["row"] == group.start + group.size - 1)
        if over.any():
            out[last[over]] = run.finals(source, group.end[over])
    if not over.all():
        out[last[~over]] = run.tails(source, block, group.env_index[~over])
