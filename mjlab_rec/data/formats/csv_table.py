"""Lines of the table of episodes of a CSV recording."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mjlab_rec.data.episodes import Running
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.formats.episode_table import table_row
from mjlab_rec.data.schema import Block, RunInfo, is_partial


def dump_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows of the table as text; unknown values are empty."""
    lines = (",".join(_text(row[name]) for name in EPISODE_COLUMNS) + "\n" for row in rows)
    return "".join(lines).encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value)


class EpisodeTracker:
    """Tracks the episodes in blocks, and returns a row of the table for each that ended.

    It holds a few numbers per environment. ``after`` returns a copy, so that a block whose write
    failed can be passed again.
    """

    def __init__(self, info: RunInfo) -> None:
        self._info, num_envs = info, len(info.envs)
        self._running = Running(num_envs)
        self._rows = np.zeros(num_envs, np.int64)  # so far; if 0, the next two are
        self._start = np.zeros(num_envs, np.int64)  # unused
        self._first_step = np.zeros(num_envs, np.int64)

    def after(
        self, block: Block, number: np.ndarray, step: np.ndarray
    ) -> tuple[list[dict[str, Any]], EpisodeTracker]:
        """The episodes that ended in a block, and the tracker after it.

        Args:
            block: The block.
            number: Episode of each of its rows, (rows, num_envs).
            step: Steps in the episode before each row, (rows, num_envs).
        """
        here = _RowsOf(block, number, step)
        ended = self._cut(self._running.lost(block))
        ends = block.ends
        found = self._merged(here, ends.env_index, ends.episode)
        for i in np.flatnonzero(found[0]):
            facts = ends.facts(int(i))
            row = self._row(
                ends.env_index[i], ends.episode[i], facts, *(values[i] for values in found)
            )
            ended.append(row)
        after = copy.copy(self)
        after._running = self._running.after(block, number, step)
        env_indices = np.arange(block.num_envs)
        merged = self._merged(here, env_indices, after._running.number)
        after._rows, after._start, after._first_step = merged
        return ended, after

    def running(self) -> list[dict[str, Any]]:
        """Rows of the table for the running episodes, as cut."""
        return self._cut(np.arange(len(self._rows)))

    def _merged(
        self, here: _RowsOf, env_index: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, start and first step of episodes, including earlier blocks."""
        rows, start, first_step = here.find(env_index, number)
        before = (self._running.number[env_index] == number) & (self._rows[env_index] > 0)
        return (
            rows + np.where(before, self._rows[env_index], 0),
            np.where(before, self._start[env_index], start),
            np.where(before, self._first_step[env_index], first_step),
        )

    def _cut(self, env_indices: np.ndarray) -> list[dict[str, Any]]:
        """Running episodes that have rows, cut at their last row."""
        running, known = self._running, (self._rows, self._start, self._first_step)
        return [
            self._row(
                env_index,
                running.number[env_index],
                running.facts(env_index),
                *(n[env_index] for n in known),
            )
            for env_index in env_indices
            if self._rows[env_index]
        ]

    def _row(
        self,
        env_index: Any,
        number: Any,
        facts: dict[str, Any],
        rows: Any,
        start: Any,
        first_step: Any,
    ) -> dict[str, Any]:
        return table_row(
            env=self._info.envs[env_index],
            number=int(number),
            start=int(start),
            rows=int(rows),
            partial=bool(is_partial(first_step, facts["length"], rows, self._info.every)),
            **facts,
        )


class _RowsOf:
    """Number and place of the rows of each episode in a block."""

    def __init__(self, block: Block, number: np.ndarray, step: np.ndarray) -> None:
        active = block.counting(step)
        if active is None:
            env_index, row = np.divmod(np.arange(number.size), max(1, block.rows))
        else:
            env_index, row = np.nonzero(active.T)
        # Ascending, because an environment's episodes follow each other.
        keys = _key(env_index, number[row, env_index])
        self._keys, first, self._counts = np.unique(keys, return_index=True, return_counts=True)
        self._start = block.step[row[first]]
        self._first_step = step[row[first], env_index[first]].astype(np.int64)

    def find(
        self, env_index: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, control steps before the first of them, and steps of the episode before it."""
        keys = _key(env_index, number)
        if not len(self._keys):
            nothing = np.zeros(len(keys), np.int64)
            return nothing, nothing, nothing
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        rows = np.where(self._keys[at] == keys, self._counts[at], 0)
        return rows, self._start[at], self._first_step[at]


def _key(env_index: np.ndarray, number: np.ndarray) -> np.ndarray:
    return env_index.astype(np.int64) << 32 | number.astype(np.int64)
