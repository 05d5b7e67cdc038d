"""Runs of consecutive rows of episodes, the unit of fast reading, and where they are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(kw_only=True)
class Pieces:
    """Runs of consecutive rows, each within one episode and without a gap in its steps.

    The rows of one follow those of another in the arrays that they are read into.
    """

    episode: np.ndarray  # (n,), row in the table of episodes
    first: np.ndarray  # (n,), first row within the episode
    count: np.ndarray  # (n,), rows, at least 1

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def rows(self) -> int:
        """Rows of all of them."""
        return int(self.count.sum())

    @property
    def into(self) -> np.ndarray:
        """Place of the first row of each."""
        return np.cumsum(self.count) - self.count

    def __getitem__(self, which: slice | np.ndarray) -> Pieces:
        return Pieces(episode=self.episode[which], first=self.first[which], count=self.count[which])


@dataclass(kw_only=True)
class Strips:
    """How a recording stores its rows: S strips, each with rows of an episode in one block.

    They are in the order of the table of episodes, and of an episode's rows.
    """

    first: np.ndarray  # (S,), first row, counting the rows of all episodes
    place: np.ndarray  # (S,), number of the block
    lane: np.ndarray  # (S,), which environment's rows in the block
    start: np.ndarray  # (S,), first row in the block
    rows: int  # of a full block
    lanes: int  # of a block


def ranges(counts: np.ndarray) -> np.ndarray:
    """The concatenation of range(count) for each count."""
    after = np.cumsum(counts)
    return np.arange(after[-1] if len(after) else 0) - np.repeat(after - counts, counts)
