"""Where the rows of each episode are in the blocks of one or more runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.formats.pieces import Strips, ranges
from mjlab_rec.data.formats.segments import Segments

if TYPE_CHECKING:
    from mjlab_rec.data.formats.blocks import BlockRun


class BlockStrips(Strips):
    """The strips of all runs, as the table of episodes orders them.

    Args:
        runs: The runs.
        segments: Their segments.
        run: The run of each episode of the table.
        at: Its number in this run.
    """

    def __init__(
        self,
        runs: Sequence[BlockRun],
        segments: Sequence[Segments],
        run: np.ndarray,
        at: np.ndarray,
    ) -> None:
        # Episodes and segments of all runs, one run after another.
        episodes_before = np.cumsum([0, *map(len, segments)])
        segments_before = np.cumsum([0, *(len(each.block) for each in segments)])
        blocks_before = np.cumsum([0, *(len(each.index.rows) for each in runs)])
        opening = _joined(each.offsets[:-1] + n for each, n in zip(segments, segments_before))  # noqa: B905
        counts = _joined(np.diff(each.offsets) for each in segments)
        block = _joined(each.block + n for each, n in zip(segments, blocks_before))  # noqa: B905
        start, stop = _joined(e.start for e in segments), _joined(e.stop for e in segments)
        env_index = _joined(each.env_index for each in segments)
        episode = episodes_before[run] + at  # (E,), as the table orders them
        number = np.repeat(opening[episode], counts[episode]) + ranges(counts[episode])
        size = (stop - start)[number]
        self.of = np.repeat(np.arange(len(episode)), counts[episode])  # (S,), row of the table
        self.place, self.start = block[number], start[number]
        self.lane = env_index[episode][self.of]
        self.bounds = np.append(0, np.cumsum(size))  # (S + 1,)
        self.first = self.bounds[:-1]
        self.run = run[self.of]  # (S,)
        self.end = _joined(each.end for each in segments)[episode]  # (E,), in its run; -1: none
        self.began = _joined(each.began for each in segments)[episode]  # (E,)
        opened = np.cumsum(counts[episode]) - counts[episode]
        self.base = self.bounds[opened]  # (E,), rows of the episodes before
        self.before = blocks_before
        self.rows = max((int(each.index.rows.max(initial=1)) for each in runs), default=1)
        self.lanes = max((each.index.first_episode.shape[1] for each in runs), default=1)


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    found = list(arrays)
    return found[0] if len(found) == 1 else np.concatenate(found)
