"""Find the rows of each episode in blocks, and compute the table of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.formats.episode_table import SCHEMA
from mjlab_rec.data.schema import DataError, Ends, RunInfo, is_partial

# An episode that ended. Its key is its number in its environment. In a packed recording, where the
# episodes of all environments are stored like those of a single one, it is the number in the file.
END_DTYPE = np.dtype(
    [
        ("block", "<i4"),
        ("env_index", "<i4"),
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


_NUMPY = {"Int32": "i4", "Int64": "i8", "Float64": "f8", "Boolean": "?"}
_KINDS = {name: np.dtype(_NUMPY[kind]) for name, kind in EPISODE_COLUMNS.items()}


@dataclass(kw_only=True)
class Index:
    """What is known of the B blocks and N environments of a run without reading a channel."""

    rows: np.ndarray  # (B,)
    gap: np.ndarray  # (B,)
    step: np.ndarray  # (B, K), control steps of the environment before each row
    first_episode: np.ndarray  # (B, N), key of the first row's episode
    first_step: np.ndarray  # (B, N), -1: the first row only resets the environment
    total: np.ndarray  # (B, N), return of the running episode after the last row
    recorded: np.ndarray  # (B, N), the sum over the recorded rows
    ends: np.ndarray  # (n,) of END_DTYPE
    values: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # values that a recorder added, (n,)
    packed: bool = False  # whole episodes one after another
    lost_before: dict[int, str] = field(default_factory=dict)  # number of a block before which
    # others are lost -> a sentence about them


class Segments:
    """The rows of each episode: S segments of rows in a block, for E episodes."""

    def __init__(self, index: Index, every: int) -> None:
        block, env_index, start, stop, key, began = _segments(index)
        if index.packed:  # an episode without its end is incomplete
            kept = np.isin(key, index.ends["key"])
            block, env_index, start, stop, key, began = (
                column[kept] for column in (block, env_index, start, stop, key, began)
            )
        first = np.ones(len(block), bool)
        first[1:] = (env_index[1:] != env_index[:-1]) | (key[1:] != key[:-1])
        opening = np.flatnonzero(first)
        self.block, self.start, self.stop = block, start, stop
        self.offsets = np.append(opening, len(block))  # (E + 1,)
        self.env_index, self.key, self.began = (
            env_index[opening],
            key[opening],
            began[opening],
        )  # (E,)
        self.end = _find(index.ends, self.env_index, self.key)  # (E,), -1: it has no end
        self.broken: dict[int, str] = {}  # episodes that have rows in lost blocks
        for lost, why in index.lost_before.items():
            self._mark_broken(index, env_index, lost, why, every)

    def __len__(self) -> int:
        return len(self.env_index)

    def _mark_broken(
        self, index: Index, env_index: np.ndarray, lost: int, why: str, every: int
    ) -> None:
        """Mark episodes with rows in the blocks that are lost before a block."""
        of = np.repeat(np.arange(len(self)), np.diff(self.offsets))  # episode of each segment
        if index.packed:
            rows = np.bincount(of, self.stop - self.start, len(self))
            found = np.flatnonzero(rows != index.ends["rows"][self.end])
            self.broken.update((int(episode), why) for episode in found)
            return
        width = len(index.rows) + 1
        env_indices = np.arange(index.first_episode.shape[1])
        after = np.searchsorted(env_index * width + self.block, env_indices * width + lost)
        for here, at in zip(env_indices, after, strict=True):
            if at > 0 and env_index[at - 1] == here:
                end = self.end[of[at - 1]]
                if end < 0 or index.ends["block"][end] >= lost:
                    self.broken[int(of[at - 1])] = why
            if at < len(of) and env_index[at] == here:
                step = index.step[self.block[at], self.start[at]]
                if step - self.began[of[at]] >= every:
                    self.broken[int(of[at])] = why

    def table(self, index: Index, info: RunInfo, first: int = 0) -> Table:
        """The episodes, in the order of the segments; `first` is added to their numbers."""
        opening, closing = self.offsets[:-1], self.offsets[1:] - 1
        ended = self.end >= 0
        ends = index.ends[self.end] if len(index.ends) else np.zeros(len(self), END_DTYPE)
        last_block, last_row = self.block[closing], self.stop[closing] - 1
        rows = np.add.reduceat(self.stop - self.start, opening) if len(self) else opening
        total = np.where(ended, ends["total"], index.total[last_block, self.env_index])
        recorded = np.where(ended, ends["recorded"], index.recorded[last_block, self.env_index])
        start = index.step[self.block[opening], self.start[opening]]
        length = np.where(ended, ends["length"], index.step[last_block, last_row] + 1 - self.began)
        terminated, truncated = ended & ends["terminated"], ended & ends["truncated"]
        columns = {
            "env": np.where(ended, ends["env"], np.asarray(info.envs, np.int32)[self.env_index]),
            "number": np.where(ended, ends["number"], self.key).astype(np.int64) + first,
            "start": start,
            "length": length,
            "rows": rows,
            "return": total,
            "recorded_return": recorded,
            "terminated": terminated,
            "truncated": truncated,
            "cut": ~(terminated | truncated),
            "success": ends["success"] == 1,
            "partial": is_partial(start - self.began, length, rows, info.every),
        }
        for name, values in columns.items():
            kind = _KINDS[name]
            if values.dtype != kind:
                if kind.kind == "i" and len(values):
                    lowest, highest = values.min(), values.max()
                    if not np.iinfo(kind).min <= lowest <= highest <= np.iinfo(kind).max:
                        raise DataError(
                            f"The table of episodes has impossible numbers: '{name}' goes from"
                            f" {lowest} to {highest}."
                        )
                columns[name] = values.astype(kind)
        known = {
            "return": ~np.isnan(total),
            "recorded_return": ~np.isnan(recorded),
            "success": ended & (ends["success"] >= 0),
        }
        if len(index.ends):
            columns |= {name: values[self.end] for name, values in index.values.items()}
            known |= dict.fromkeys(index.values, ended)
        return Table(columns, known)


@dataclass
class Table:
    """A table of episodes as arrays, of which a data frame is made when it is needed."""

    columns: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    """For columns with unknown values: which ones are known."""

    def __len__(self) -> int:
        return len(self.columns["env"])

    def __getitem__(self, which: np.ndarray) -> Table:
        columns, known = (
            {name: values[which] for name, values in each.items()}
            for each in (self.columns, self.known)
        )
        return Table(columns, known)

    def frame(self) -> pl.DataFrame:
        """The data frame."""
        columns: dict[str, Any] = {
            name: _nullable(values, self.known[name]) if name in self.known else values
            for name, values in self.columns.items()
        }
        extra = {name: columns.pop(name) for name in self.columns if name not in SCHEMA}
        table = pl.DataFrame(columns, SCHEMA)
        return table.with_columns(**extra) if extra else table


def joined_tables(tables: Sequence[Table]) -> Table:
    """Tables one after another. What one of them does not have is unknown there."""
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, np.ndarray] = {}
    known: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for table in tables for name in table.columns):
        has = [name in table.columns for table in tables]
        dtype = next(table.columns[name].dtype for table in tables if name in table.columns)
        columns[name] = np.concatenate(
            [
                table.columns[name] if here else np.zeros(len(table), dtype)
                for table, here in zip(tables, has, strict=True)
            ]
        )
        if not all(has) or any(name in table.known for table in tables):
            known[name] = np.concatenate(
                [
                    table.known[name] if name in table.known else np.full(len(table), here)
                    for table, here in zip(tables, has, strict=True)
                ]
            )
    return Table(columns, known)


def end_rows(ends: Ends, block: int, info: RunInfo) -> np.ndarray:
    """Ends of episodes as rows of a table."""
    rows = np.zeros(len(ends), END_DTYPE)
    rows["block"] = block
    rows["key"] = rows["number"] = ends.episode
    rows["env"] = np.asarray(info.envs, np.int32)[ends.env_index]
    for name in END_DTYPE.names or ():
        if hasattr(ends, name):
            rows[name] = getattr(ends, name)
    return rows


def column(ends: Ends, name: str) -> np.ndarray:
    """Values that a recorder added to ends of episodes; NaN if it added none."""
    return ends.values[name] if name in ends.values else np.full(len(ends), np.nan)


def _segments(index: Index) -> tuple[np.ndarray, ...]:
    """Block, env_index, first row, row after the last, key and start of every piece of an episode.

    They are ordered by environment, then by time.
    """
    blocks, num_envs = index.first_episode.shape
    most = index.step.shape[1] + 1
    env_index, block = np.divmod(np.arange(blocks * num_envs), max(blocks, 1))
    row = np.zeros(blocks * num_envs, np.int64)
    key = index.first_episode.T.ravel()
    began = (index.step[:, :1] - index.first_step).T.ravel()
    # An episode begins with the row after the last row of another one, unless that ended before the
    # block's first row.
    ends = index.ends[(index.ends["row"] >= 0)]
    ends = ends[ends["row"] + 1 < index.rows[ends["block"]]]
    if not index.packed and len(ends):
        env_index = np.concatenate([env_index, ends["env_index"]])
        block = np.concatenate([block, ends["block"]])
        row = np.concatenate([row, ends["row"] + 1])
        key = np.concatenate([key, ends["key"] + 1])
        began = np.concatenate([began, ends["at"]])
        place = (env_index * blocks + block) * most + row
        order = np.lexsort((key, place))
        # If several episodes would begin with a row, all but the last have no rows.
        last = np.ones(len(order), bool)
        last[:-1] = place[order][1:] != place[order][:-1]
        order = order[last]
        env_index, block, row, key, began = (
            column[order] for column in (env_index, block, row, key, began)
        )
    stop = index.rows[block] if blocks else row
    within = (env_index[1:] == env_index[:-1]) & (block[1:] == block[:-1])
    stop[:-1][within] = row[1:][within]
    if blocks:
        row = row + (index.step[block, row] < began)  # A step that only resets is in no episode.
    some = stop > row
    return tuple(column[some] for column in (block, env_index, row, stop, key, began))


def _find(ends: np.ndarray, env_index: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Position of each episode's end, -1 where it has none."""
    if not len(ends):
        return np.full(len(env_index), -1)
    known = ends["env_index"].astype(np.int64) << 32 | ends["key"]
    wanted = env_index.astype(np.int64) << 32 | key
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)
    return np.where(known[order][at] == wanted, order[at], -1)


def _nullable(values: np.ndarray, valid: np.ndarray) -> pl.Series:
    series = pl.Series(np.ascontiguousarray(values))
    return series if valid.all() else series.set(pl.Series(~valid), None)
