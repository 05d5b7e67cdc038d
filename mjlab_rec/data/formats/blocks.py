"""Episodes out of blocks: what every reader of block-structured recordings shares."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Reader
from mjlab_rec.data.schema import ChannelSpec, DataError, Ends, RunInfo, is_partial
from mjlab_rec.utils.string import nearest

# An episode that ended. Its key numbers it within its lane; in a packed recording, where episodes
# of all environments follow each other in one lane, that is not its number in its environment.
END_DTYPE = np.dtype(
    [
        ("block", "<i4"),
        ("lane", "<i4"),
        ("row", "<i4"),
        ("key", "<i4"),
        ("env", "<i4"),
        ("number", "<i4"),
        ("at", "<i8"),
        ("length", "<i4"),
        ("total", "<f8"),
        ("rows", "<i4"),
        ("recorded", "<f8"),
        ("terminated", "?"),
        ("truncated", "?"),
        ("success", "i1"),
    ]
)


@dataclass(kw_only=True)
class Index:
    """What is known about all blocks of a run without looking at a channel: B blocks, L lanes."""

    rows: np.ndarray  # (B,)
    gap: np.ndarray  # (B,)
    step: np.ndarray  # (B, K), control steps of the environment before each row
    first_episode: np.ndarray  # (B, L), key of the first row's episode
    first_step: np.ndarray  # (B, L)
    total: np.ndarray  # (B, L), return of the running episode after the last row
    recorded: np.ndarray  # (B, L), the part of it that rows were recorded of
    ends: np.ndarray  # (n,) of END_DTYPE
    values: dict[str, np.ndarray] = field(default_factory=dict)  # what a recorder added, (n,)
    packed: bool = False  # whole episodes one after another, and nothing but whole episodes
    holes: dict[int, str] = field(default_factory=dict)  # number of the block before which others
    # are lost, and a sentence about them


class BlockRun(abc.ABC):
    """A run whose channels are stored in blocks."""

    info: RunInfo
    index: Index

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether a channel has an array of its own."""

    @abc.abstractmethod
    def rows(self, name: str, block: int, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of some lanes, as an array of (lane, row, ...) and the place of each one in it."""

    @abc.abstractmethod
    def tails(self, name: str, block: int, lanes: np.ndarray) -> np.ndarray:
        """Values of a chained channel after a block's last row."""

    @abc.abstractmethod
    def finals(self, name: str, ends: np.ndarray) -> np.ndarray:
        """Values of a chained channel when episodes ended, all in the same block."""

    @abc.abstractmethod
    def model(self, lane: int, key: int) -> dict[str, np.ndarray]:
        """Model fields of an episode."""


class Segments:
    """Which rows of which blocks each episode of a run is made of: S segments, E episodes."""

    def __init__(self, index: Index, every: int) -> None:
        block, lane, start, stop, key, began = _segments(index)
        if index.packed:  # an episode without its end was never written to its end
            kept = np.isin(key, index.ends["key"])
            block, lane, start, stop, key, began = (
                column[kept] for column in (block, lane, start, stop, key, began)
            )
        first = np.ones(len(block), bool)
        first[1:] = (lane[1:] != lane[:-1]) | (key[1:] != key[:-1])
        opening = np.flatnonzero(first)
        self.block, self.start, self.stop = block, start, stop
        self.offsets = np.append(opening, len(block))  # (E + 1,)
        self.lane, self.key, self.began = lane[opening], key[opening], began[opening]  # (E,)
        self.end = _find(index.ends, self.lane, self.key)  # (E,), -1: it has no end
        self.broken: dict[int, str] = {}  # episodes that have rows in lost blocks
        for hole, why in index.holes.items():
            self._break(index, lane, hole, why, every)

    def __len__(self) -> int:
        return len(self.lane)

    def _break(self, index: Index, lane: np.ndarray, hole: int, why: str, every: int) -> None:
        """Note which episodes have rows in the blocks that are lost before a block."""
        of = np.repeat(np.arange(len(self)), np.diff(self.offsets))  # episode of each segment
        if index.packed:
            rows = np.bincount(of, self.stop - self.start, len(self))
            found = np.flatnonzero(rows != index.ends["rows"][self.end])
            self.broken.update((int(episode), why) for episode in found)
            return
        width = len(index.rows) + 1
        lanes = np.arange(index.first_episode.shape[1])
        after = np.searchsorted(lane * width + self.block, lanes * width + hole)
        for lane_number, at in zip(lanes, after, strict=True):
            if at > 0 and lane[at - 1] == lane_number:
                end = self.end[of[at - 1]]
                if end < 0 or index.ends["block"][end] >= hole:
                    self.broken[int(of[at - 1])] = why
            if at < len(of) and lane[at] == lane_number:
                step = index.step[self.block[at], self.start[at]]
                if step - self.began[of[at]] >= every:
                    self.broken[int(of[at])] = why

    def table(self, index: Index, info: RunInfo) -> pl.DataFrame:
        """The episodes as a table, in the order of the segments."""
        opening, closing = self.offsets[:-1], self.offsets[1:] - 1
        ended = self.end >= 0
        ends = index.ends[self.end] if len(index.ends) else np.zeros(len(self), END_DTYPE)
        last_block, last_row = self.block[closing], self.stop[closing] - 1
        rows = np.add.reduceat(self.stop - self.start, opening) if len(self) else opening
        total = np.where(ended, ends["total"], index.total[last_block, self.lane])
        recorded = np.where(ended, ends["recorded"], index.recorded[last_block, self.lane])
        start = index.step[self.block[opening], self.start[opening]]
        length = np.where(ended, ends["length"], index.step[last_block, last_row] + 1 - self.began)
        terminated, truncated = ended & ends["terminated"], ended & ends["truncated"]
        said = ended & (ends["success"] >= 0)
        columns = {
            "env": np.where(ended, ends["env"], np.asarray(info.envs, np.int32)[self.lane]),
            "number": np.where(ended, ends["number"], self.key),
            "start": start,
            "length": length,
            "rows": rows,
            "return": _nullable(total, ~np.isnan(total)),
            "recorded_return": _nullable(recorded, ~np.isnan(recorded)),
            "terminated": terminated,
            "truncated": truncated,
            "cut": ~(terminated | truncated),
            "success": _nullable(ends["success"] == 1, said),
            "partial": is_partial(start - self.began, length, rows, info.every),
        }
        types: Any = {name: getattr(pl, dtype) for name, dtype in EPISODE_COLUMNS.items()}
        try:
            table = pl.DataFrame(columns).cast(types)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"Numbers of the episodes cannot be what they are: {error}") from error
        if not len(index.ends):
            return table
        extra = {name: _nullable(values[self.end], ended) for name, values in index.values.items()}
        return table.with_columns(**extra)


class BlocksReader(Reader):
    """Reads runs of blocks that follow each other at one path.

    The episodes of a later run are numbered on from the highest number of those before it.

    Args:
        runs: The runs.
        check: Refuse to read episodes of which rows are lost.
    """

    def __init__(self, runs: Sequence[BlockRun], check: bool = True) -> None:
        self.info = runs[0].info
        self._runs = runs
        self.check = check
        self._segments = [Segments(run.index, run.info.every) for run in runs]
        self._specs = [{spec.name: spec for spec in run.info.channels} for run in runs]
        tables, first = [], 0
        for number, (run, segments) in enumerate(zip(runs, self._segments, strict=True)):
            table = segments.table(run.index, run.info)
            table = table.with_columns(
                (pl.col("number") + first).cast(pl.Int32),
                pl.lit(number).alias("_run"),
                pl.int_range(pl.len()).alias("_at"),
            )
            tables.append(table)
            if len(table):
                first = max(first, 1 + int(table["number"].to_numpy().max()))
        table = pl.concat(tables, how="diagonal").sort("env", "number", "_run")
        self._run, self._at = table["_run"].to_numpy(), table["_at"].to_numpy()
        self.episodes = table.drop("_run", "_at")
        self._rows = self.episodes["rows"].to_numpy()

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: D102
        return self.read_many([index], channels)

    def read_many(  # noqa: D102
        self, indices: Sequence[int], channels: Sequence[str]
    ) -> dict[str, np.ndarray]:
        chosen = np.asarray(indices, np.int64)
        size = self._rows[chosen].astype(np.int64)
        into, known = np.cumsum(size) - size, self._specs[0]
        found = {}
        for name in channels:
            if name != "step" and name not in known:
                raise DataError(f"Unknown channel '{name}'. {nearest(name, ['step', *known])}")
            spec = known.get(name)
            shape, dtype = ((), np.int32) if spec is None else (spec.shape, spec.dtype)
            found[name] = np.empty((size.sum(), *shape), dtype)
        of = self._run[chosen]
        for number in range(len(self._runs)) if len(self._runs) > 1 else [0]:
            mine = of == number
            self._refuse(number, chosen[mine], channels)
            pieces = _Pieces(self._segments[number], self._at[chosen[mine]], into[mine])
            for group in pieces.groups():
                for name, out in found.items():
                    _copy(out, self._runs[number], self._specs[number].get(name), group)
        return found

    def _refuse(self, number: int, indices: np.ndarray, channels: Sequence[str]) -> None:
        """Raise if episodes of a run are not whole, or their channels are others."""
        for index in indices if self.check and self._segments[number].broken else ():
            why = self._segments[number].broken.get(int(self._at[index]))
            if why is not None:
                env, of = self.episodes["env"][int(index)], self.episodes["number"][int(index)]
                raise DataError(f"Rows of episode {of} of environment {env} are lost. {why}")
        for name in channels if len(indices) and number else ():
            ours, first = self._specs[number].get(name), self._specs[0].get(name)
            if first is not None and (
                ours is None or (ours.dtype, ours.shape) != (first.dtype, first.shape)
            ):
                raise DataError(
                    f"The channel '{name}' is missing, or of another type or shape, in what was"
                    f" appended to the recording (run {number} of it)."
                )

    def model(self, index: int) -> dict[str, np.ndarray]:  # noqa: D102
        number, at = int(self._run[index]), int(self._at[index])
        segments = self._segments[number]
        return self._runs[number].model(int(segments.lane[at]), int(segments.key[at]))

    @property
    def gaps(self) -> int:  # noqa: D102
        return sum(int(run.index.gap.sum()) for run in self._runs)

    def close(self) -> None:  # noqa: D102
        pass


def end_rows(ends: Ends, block: int, info: RunInfo) -> np.ndarray:
    """Ends of episodes as rows of a table."""
    rows = np.zeros(len(ends), END_DTYPE)
    rows["block"] = block
    rows["key"] = rows["number"] = ends.episode
    rows["env"] = np.asarray(info.envs, np.int32)[ends.lane]
    for name in END_DTYPE.names or ():
        if hasattr(ends, name):
            rows[name] = getattr(ends, name)
    return rows


def column(ends: Ends, name: str) -> np.ndarray:
    """What a recorder added to ends of episodes; not a number where it added nothing."""
    return ends.values[name] if name in ends.values else np.full(len(ends), np.nan)


def _segments(index: Index) -> tuple[np.ndarray, ...]:
    """Block, lane, first row, row after the last, key and start of every piece of an episode.

    They are ordered by lane, then by time.
    """
    blocks, lanes = index.first_episode.shape
    most = index.step.shape[1] + 1
    lane, block = np.divmod(np.arange(blocks * lanes), max(blocks, 1))
    row = np.zeros(blocks * lanes, np.int64)
    key = index.first_episode.T.ravel()
    began = (index.step[:, :1] - index.first_step).T.ravel()
    # An episode begins on the row after another's last row; one whose end comes before the block's
    # first row is no longer there.
    ends = index.ends[(index.ends["row"] >= 0)]
    ends = ends[ends["row"] + 1 < index.rows[ends["block"]]]
    if not index.packed and len(ends):
        lane = np.concatenate([lane, ends["lane"]])
        block = np.concatenate([block, ends["block"]])
        row = np.concatenate([row, ends["row"] + 1])
        key = np.concatenate([key, ends["key"] + 1])
        began = np.concatenate([began, ends["at"]])
        place = (lane * blocks + block) * most + row
        order = np.lexsort((key, place))
        # Of several episodes that would begin on a row all but the last had no row at all.
        last = np.ones(len(order), bool)
        last[:-1] = place[order][1:] != place[order][:-1]
        order = order[last]
        lane, block, row, key, began = (column[order] for column in (lane, block, row, key, began))
    stop = index.rows[block] if blocks else row
    within = (lane[1:] == lane[:-1]) & (block[1:] == block[:-1])
    stop[:-1][within] = row[1:][within]
    some = stop > row
    return tuple(column[some] for column in (block, lane, row, stop, key, began))


def _find(ends: np.ndarray, lane: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Position of each episode's end, -1 where it has none."""
    if not len(ends):
        return np.full(len(lane), -1)
    known = ends["lane"].astype(np.int64) << 32 | ends["key"]
    wanted = lane.astype(np.int64) << 32 | key
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)
    return np.where(known[order][at] == wanted, order[at], -1)


def _nullable(values: np.ndarray, valid: np.ndarray) -> pl.Series:
    return pl.select(
        pl.when(pl.Series(valid)).then(pl.Series(np.ascontiguousarray(values)))
    ).to_series()


@dataclass(kw_only=True)
class _Group:
    """Segments of episodes that lie in the same block: n of them."""

    block: int
    lane: np.ndarray  # (n,)
    start: np.ndarray  # (n,), first row in the block
    size: np.ndarray  # (n,), rows
    into: np.ndarray  # (n,), row of the result that the first one goes to
    end: np.ndarray  # (n,), the episode's end, -1: it has none
    began: np.ndarray  # (n,), control step of the episode's start

    def rows(self, first: int, less: int = 0) -> tuple[Any, Any, Any]:
        """Number of a segment, row in the block and row of the result, of all rows.

        `first` is added to rows in the block, and `less` rows are left out at each segment's end.
        """
        if len(self.lane) == 1:
            start, into, size = int(self.start[0]), int(self.into[0]), int(self.size[0]) - less
            return 0, slice(start + first, start + first + size), slice(into, into + size)
        size = self.size - less
        number = np.repeat(np.arange(len(size)), size)
        within = np.arange(len(number)) - np.repeat(np.cumsum(size) - size, size)
        return number, self.start[number] + first + within, self.into[number] + within


class _Pieces:
    """The segments of some episodes, and where in a result their rows go."""

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
        self._lane, self._end, self._began = segments.lane[of], segments.end[of], segments.began[of]

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
                    lane=self._lane[at],
                    start=self._start[at],
                    size=self._size[at],
                    into=self._into[at],
                    end=self._end[at],
                    began=self._began[at],
                )


def _copy(out: np.ndarray, run: BlockRun, spec: ChannelSpec | None, group: _Group) -> None:
    """Copy a channel's rows to where they belong; no channel stands for the steps."""
    block = group.block
    if spec is None:
        number, row, into = group.rows(0)
        out[into] = run.index.step[block, row] - group.began[number]
        return
    if run.has(spec.name):
        values, at = run.rows(spec.name, block, group.lane)
        number, row, into = group.rows(0)
        out[into] = values[at[number], row]
        return
    source = spec.next_of
    values, at = run.rows(source, block, group.lane)
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
        out[last[~over]] = run.tails(source, block, group.lane[~over])
