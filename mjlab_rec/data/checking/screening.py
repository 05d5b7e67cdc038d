"""Find the episodes of a recording in blocks that need a closer look, without reordering rows.

Steps, flags and rewards are compared with the table of episodes block by block, for all
environments at once.
"""

from __future__ import annotations

import numpy as np

from mjlab_rec.data.checking.rows import RETURN_TOLERANCE, RowChecks
from mjlab_rec.data.formats.blocks import BlockRun
from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader
from mjlab_rec.data.schema import DataError

_FLAGS = ("terminated", "truncated")


def suspicious(reader: Hdf5Reader, rows: RowChecks) -> np.ndarray:
    """Rows in the table of the episodes of which something may be wrong."""
    found = np.zeros(len(reader.episodes), bool)
    for number, run in enumerate(reader.runs):
        _Screen(reader, rows, number, run, found).look()
    return np.flatnonzero(found)


class _Screen:
    """Looks at the blocks of a run, and marks episodes."""

    def __init__(
        self, reader: Hdf5Reader, rows: RowChecks, number: int, run: BlockRun, found: np.ndarray
    ) -> None:
        self._reader, self._run, self._number, self._found = reader, run, number, found
        self._known = {n: rows.columns[n].to_numpy() for n in rows.columns.columns}
        self._every = reader.info.every
        scalars = {spec.name for spec in reader.info.channels if not spec.shape}
        self._names = [n for n in (*_FLAGS, "reward") if n in scalars and run.has(n)]
        self._total = np.zeros(len(found))

    def look(self) -> None:
        """Look at all blocks."""
        pieces, steps = [], []
        for block in range(len(self._run.index.rows)):
            here = self._reader.segments_in(self._number, block)
            if len(here):
                steps.append(self._look_at(block, here))
                pieces.append(here)
        if not pieces:
            return
        joined, both = np.concatenate(pieces), np.concatenate(steps)
        order = np.argsort(joined["index"], kind="stable")  # within an episode in order of time
        joined, (first, last) = joined[order], both[order].T
        index = joined["index"]
        opening = np.append(True, index[1:] != index[:-1])
        closing = np.append(index[1:] != index[:-1], True)
        of, began = index[opening], joined["began"][opening]
        partial, length = self._known["partial"], self._known["length"]
        self._found[of] |= (first[opening] - began >= self._every) & ~partial[of]
        self._found[of] |= last[closing] - began >= length[of]
        change = first[1:] - last[:-1]
        wrong = np.where(partial[index[1:]], change <= 0, change != self._every)
        self._found[index[1:][wrong & ~opening[1:]]] = True
        if "reward" in self._names:
            total = self._total[of]
            near = np.abs(total - self._known["recorded_return"][of])
            # The sum of the absolute rewards, which is compared with later, is not less.
            self._found[of] |= ~(near <= 0.5 * RETURN_TOLERANCE * (1.0 + np.abs(total)))

    def _look_at(self, block: int, here: np.ndarray) -> np.ndarray:
        """Mark episodes of a block; returns the first and last control step of their pieces."""
        index, env, start, stop = (
            here[name].astype(np.int64) for name in ("index", "env_index", "start", "stop")
        )
        num_envs = self._run.index.first_episode.shape[1]
        step = self._run.index.step[block, : self._run.index.rows[block]]
        gaps = np.append(0, np.cumsum(np.diff(step) != self._every))
        partial = self._known["partial"][index]
        self._found[index] |= (gaps[stop - 1] > gaps[start]) & ~partial
        both = np.stack([step[start], step[stop - 1]], axis=1)
        length = self._known["length"][index]
        at_end = both[:, 1] - here["began"] == length - 1
        for name in self._names:
            try:
                values, _ = self._run.strip(name, block, 0, num_envs)
            except DataError:
                self._found[index] = True
                continue
            values = values[:, : len(step)]
            if name == "reward":
                self._add_rewards(values, index, env, start, stop)
                continue
            flags = values.astype(bool, copy=False)
            last = flags[env, stop - 1]
            # A flag is allowed only at an episode's end, where the table has it, too.
            wrong = np.where(at_end, last != self._known[name][index], last)
            if np.count_nonzero(flags) != np.count_nonzero(last):
                count = np.cumsum(flags, axis=1)
                wrong |= count[env, stop - 1] - count[env, start] + flags[env, start] > last
            self._found[index] |= wrong
        return both

    def _add_rewards(
        self,
        values: np.ndarray,
        index: np.ndarray,
        env: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
    ) -> None:
        # Every second sum is that of a piece, the others are of what is between two of them.
        ends = np.stack([start, stop], axis=1) + env[:, None] * values.shape[1]
        flat = np.zeros(values.size + 1)
        flat[:-1] = values.ravel()
        with np.errstate(invalid="ignore"):
            sums = np.add.reduceat(flat, ends.ravel())
            self._total += np.bincount(index, sums[::2], len(self._total))
