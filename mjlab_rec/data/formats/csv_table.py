"""The table of episodes next to a CSV recording: who is running, and a line for who ended."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.schema import Block, RunInfo, is_partial


def dump_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows of the table as text; what is not known is left empty."""
    lines = (",".join(_text(row[name]) for name in EPISODE_COLUMNS) + "\n" for row in rows)
    return "".join(lines).encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value)


class EpisodeTracker:
    """Follows the episodes in blocks, and makes a row of the table of each that ended.

    It holds a few numbers per lane. ``after`` leaves it as it is, so that a block whose write
    failed may come again.
    """

    def __init__(self, info: RunInfo) -> None:
        self._info, lanes = info, len(info.envs)
        self._number = np.zeros(lanes, np.int64)  # of the running episode
        self._rows = np.zeros(lanes, np.int64)  # of it so far; where there are none yet, the next
        self._start = np.zeros(lanes, np.int64)  # two mean nothing
        self._first_step = np.zeros(lanes, np.int64)
        self._length = np.zeros(lanes, np.int64)
        self._total = np.zeros(lanes)
        self._recorded = np.zeros(lanes)

    def after(
        self, block: Block, number: np.ndarray, step: np.ndarray
    ) -> tuple[list[dict[str, Any]], EpisodeTracker]:
        """What ended in a block, and the tracker as it is after the block.

        Args:
            block: The block.
            number: Episode of each of its rows, (rows, lanes).
            step: Steps in the episode before each row, (rows, lanes).
        """
        here = _RowsOf(block, number, step)
        ended = self._lost(block) if block.rows else []
        ends = block.ends
        rows, start, first_step = self._merged(here, ends.lane, ends.episode)
        for i in np.flatnonzero(rows):
            success = int(ends.success[i])
            ended.append(
                self._row(
                    env=self._info.envs[ends.lane[i]],
                    number=int(ends.episode[i]),
                    start=int(start[i]),
                    first_step=int(first_step[i]),
                    length=int(ends.length[i]),
                    rows=int(rows[i]),
                    total=float(ends.total[i]),
                    recorded=float(ends.recorded[i]),
                    terminated=bool(ends.terminated[i]),
                    truncated=bool(ends.truncated[i]),
                    success=None if success < 0 else success == 1,
                )
            )
        return ended, self._next(block, here, number, step)

    def running(self) -> list[dict[str, Any]]:
        """Rows of the table for the episodes that still run, as cut."""
        return self._cut(np.flatnonzero(self._rows))

    def _next(
        self, block: Block, here: _RowsOf, number: np.ndarray, step: np.ndarray
    ) -> EpisodeTracker:
        after = copy.copy(self)
        running = self._number.copy()
        if block.rows:
            running[:] = number[-1]
            after._length = step[-1].astype(np.int64) + 1
        np.maximum.at(running, block.ends.lane, block.ends.episode.astype(np.int64) + 1)
        lanes = np.arange(len(running))
        after._rows, after._start, after._first_step = self._merged(here, lanes, running)
        after._number = running
        after._total, after._recorded = block.total.copy(), block.recorded.copy()
        return after

    def _merged(
        self, here: _RowsOf, lane: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, start and first step of episodes, with what they had before the block."""
        rows, start, first_step = here.find(lane, number)
        before = (self._number[lane] == number) & (self._rows[lane] > 0)
        return (
            rows + np.where(before, self._rows[lane], 0),
            np.where(before, self._start[lane], start),
            np.where(before, self._first_step[lane], first_step),
        )

    def _lost(self, block: Block) -> list[dict[str, Any]]:
        """Running episodes that ended in blocks that were dropped, as cut at their last row."""
        ends = block.ends
        told = np.zeros(block.lanes, bool)
        told[ends.lane[ends.episode == self._number[ends.lane]]] = True
        return self._cut(
            np.flatnonzero((block.first_episode > self._number) & ~told & (self._rows > 0))
        )

    def _cut(self, lanes: np.ndarray) -> list[dict[str, Any]]:
        return [
            self._row(
                env=self._info.envs[lane],
                number=int(self._number[lane]),
                start=int(self._start[lane]),
                first_step=int(self._first_step[lane]),
                length=int(self._length[lane]),
                rows=int(self._rows[lane]),
                total=float(self._total[lane]),
                recorded=float(self._recorded[lane]),
                terminated=False,
                truncated=False,
                success=None,
            )
            for lane in lanes
        ]

    def _row(
        self, *, first_step: int, total: float, recorded: float, **known: Any
    ) -> dict[str, Any]:
        every = self._info.every
        return {
            **known,
            "return": None if np.isnan(total) else total,
            "recorded_return": None if np.isnan(recorded) else recorded,
            "cut": not (known["terminated"] or known["truncated"]),
            "partial": bool(is_partial(first_step, known["length"], known["rows"], every)),
        }


class _RowsOf:
    """Where in a block the rows of each episode are, those that count."""

    def __init__(self, block: Block, number: np.ndarray, step: np.ndarray) -> None:
        if block.active is None:
            lane, row = np.divmod(np.arange(number.size), max(1, block.rows))
        else:
            lane, row = np.nonzero(block.active.T)
        keys = _key(lane, number[row, lane])  # ascending: an episode follows the one before
        self._keys, first, self._counts = np.unique(keys, return_index=True, return_counts=True)
        self._start = block.step[row[first]]
        self._first_step = step[row[first], lane[first]].astype(np.int64)

    def find(
        self, lane: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, control steps before the first of them, and steps of the episode before it."""
        keys = _key(lane, number)
        if not len(self._keys):
            nothing = np.zeros(len(keys), np.int64)
            return nothing, nothing, nothing
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        rows = np.where(self._keys[at] == keys, self._counts[at], 0)
        return rows, self._start[at], self._first_step[at]


def _key(lane: np.ndarray, number: np.ndarray) -> np.ndarray:
    return lane.astype(np.int64) << 32 | number.astype(np.int64)
