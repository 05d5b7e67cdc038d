"""Episodes out of blocks: what every reader of block-structured recordings shares."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Reader
from mjlab_rec.data.schema import DataError, Ends, RunInfo, is_partial
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


class BlockRun(abc.ABC):
    """A run whose channels are stored in blocks."""

    info: RunInfo
    index: Index

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether a channel has an array of its own."""

    @abc.abstractmethod
    def fill(
        self, out: np.ndarray, name: str, block: int, lane: int, start: int, stop: int
    ) -> None:
        """Copy rows of a lane into `out`."""

    @abc.abstractmethod
    def tail(self, name: str, block: int, lane: int) -> np.ndarray:
        """Value of a chained channel after a block's last row."""

    @abc.abstractmethod
    def final(self, name: str, end: int) -> np.ndarray:
        """Value of a chained channel when an episode ended."""

    @abc.abstractmethod
    def model(self, lane: int, key: int) -> dict[str, np.ndarray]:
        """Model fields of an episode."""


class Segments:
    """Which rows of which blocks each episode of a run is made of: S segments, E episodes."""

    def __init__(self, index: Index) -> None:
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

    def __len__(self) -> int:
        return len(self.lane)

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
        table = pl.DataFrame(columns).cast(
            {name: getattr(pl, dtype) for name, dtype in EPISODE_COLUMNS.items()}
        )
        if not len(index.ends):
            return table
        extra = {name: _nullable(values[self.end], ended) for name, values in index.values.items()}
        return table.with_columns(**extra)


class BlocksReader(Reader):
    """Reads runs of blocks that follow each other at one path."""

    def __init__(self, runs: Sequence[BlockRun]) -> None:
        self.info = runs[0].info
        self._runs = runs
        self._segments = [Segments(run.index) for run in runs]
        tables = [
            segments.table(run.index, run.info).with_columns(
                pl.lit(number).alias("_run"), pl.int_range(pl.len()).alias("_at")
            )
            for number, (run, segments) in enumerate(zip(runs, self._segments, strict=True))
        ]
        table = pl.concat(tables, how="diagonal").sort("_run", "env", "number")
        self._where = table.select("_run", "_at").to_numpy()
        self.episodes = table.drop("_run", "_at")

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: D102
        number, at = self._where[index]
        run, segments = self._runs[number], self._segments[number]
        pieces = range(segments.offsets[at], segments.offsets[at + 1])
        return {name: _read(run, segments, at, pieces, name) for name in channels}

    def model(self, index: int) -> dict[str, np.ndarray]:  # noqa: D102
        number, at = self._where[index]
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


def _read(run: BlockRun, segments: Segments, episode: int, pieces: range, name: str) -> np.ndarray:
    """A channel of an episode."""
    index, lane = run.index, int(segments.lane[episode])
    bounds = [(int(segments.start[p]), int(segments.stop[p])) for p in pieces]
    blocks = [int(segments.block[p]) for p in pieces]
    if name == "step":
        steps = [index.step[b, start:stop] for b, (start, stop) in zip(blocks, bounds, strict=True)]
        return (np.concatenate(steps) - segments.began[episode]).astype(np.int32)
    spec = next((spec for spec in run.info.channels if spec.name == name), None)
    if spec is None:
        known = ["step", *(spec.name for spec in run.info.channels)]
        raise DataError(f"Unknown channel '{name}'. {nearest(name, known)}")
    out = np.empty((sum(stop - start for start, stop in bounds), *spec.shape), spec.dtype)
    end = int(segments.end[episode])
    row = 0
    for block, (start, stop) in zip(blocks, bounds, strict=True):
        piece = out[row : row + stop - start]
        row += stop - start
        if run.has(name):
            run.fill(piece, name, block, lane, start, stop)
            continue
        run.fill(piece[:-1], spec.next_of, block, lane, start + 1, stop)
        last = index.ends[end] if end >= 0 else None
        if last is not None and last["block"] == block and last["row"] == stop - 1:
            piece[-1] = run.final(spec.next_of, end)
        else:
            piece[-1] = run.tail(spec.next_of, block, lane)
    return out
