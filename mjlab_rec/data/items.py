"""The items of a recording that is read for training: its rows, or windows of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.formats.pieces import Pieces, Strips, ranges

if TYPE_CHECKING:
    from mjlab_rec.data.rollouts import Rollouts


@dataclass(kw_only=True)
class Items:
    """Runs of items: n of them, each in consecutive rows of one episode.

    An item has `length` rows, and begins `stride` rows after the one before it in its run.
    """

    length: int
    stride: int
    episode: np.ndarray  # (n,), row in the table of episodes
    first: np.ndarray  # (n,), first row of the first item, within the episode
    count: np.ndarray  # (n,), items, at least 1

    @property
    def total(self) -> int:
        """Number of items."""
        return int(self.count.sum())

    @property
    def pieces(self) -> Pieces:
        """The rows of the items, a piece for each run."""
        rows = (self.count - 1) * self.stride + self.length
        return Pieces(episode=self.episode, first=self.first, count=rows)

    def __getitem__(self, which: slice | np.ndarray) -> Items:
        return Items(
            length=self.length,
            stride=self.stride,
            episode=self.episode[which],
            first=self.first[which],
            count=self.count[which],
        )

    def positions(self, into: np.ndarray) -> np.ndarray:
        """The first row of each item, if the rows of each run begin at `into`."""
        if self.stride == 1:
            before = np.cumsum(self.count) - self.count
            return np.repeat(into - before, self.count) + np.arange(self.total)
        return np.repeat(into, self.count) + self.stride * ranges(self.count)


def find_items(
    rollouts: Rollouts, length: int | None, stride: int, episodes: Sequence[int] | None
) -> Items:
    """The items of the chosen episodes, in their order.

    Args:
        rollouts: The recording.
        length: Rows of a window; None: the items are rows.
        stride: Rows from one item to the next.
        episodes: Rows of the table of episodes; None: all.
    """
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1, got {length}.")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}.")
    number = len(rollouts)
    chosen = np.arange(number) if episodes is None else np.array(list(episodes), np.int64)
    if len(chosen) and not (0 <= chosen.min() and chosen.max() < number):
        raise IndexError(f"Episodes are numbered from 0 to {number - 1}, got {chosen.tolist()}.")
    length = length or 1
    table = rollouts.episodes
    rows = table["rows"].to_numpy()[chosen].astype(np.int64)
    first = np.zeros(len(chosen), np.int64)
    count = np.maximum(0, (rows - length) // stride + 1)
    if length > 1:
        # In episodes with missing rows, windows must not cross a gap.
        partial = table["partial"].fill_null(True).to_numpy()[chosen]
        pieces = [
            (np.array([i]), first[i : i + 1], count[i : i + 1])
            if not partial[i]
            else (np.array([i]), *_between_gaps(rollouts, int(chosen[i]), length, stride))
            for i in (np.flatnonzero(partial & (count > 0)).tolist())
        ]
        if pieces:
            which = np.concatenate([np.repeat(at, len(each)) for at, _, each in pieces])
            kept = np.setdiff1d(np.arange(len(chosen)), which)
            of = np.concatenate([kept, which])
            first = np.concatenate([first[kept], *(piece[1] for piece in pieces)])
            count = np.concatenate([count[kept], *(piece[2] for piece in pieces)])
            order = np.argsort(of, kind="stable")
            chosen, first, count = chosen[of[order]], first[order], count[order]
    some = count > 0
    if rows.any() and not some.any():
        raise ValueError(
            f"There is no window of {length} rows: the longest episode has {rows.max()} rows"
            + (", with gaps" if rows.max() >= length else "")
            + ". Choose a smaller length."
        )
    return Items(
        length=length, stride=stride, episode=chosen[some], first=first[some], count=count[some]
    )


def _between_gaps(
    rollouts: Rollouts, episode: int, length: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """First rows and numbers of windows between the gaps of an episode."""
    step = rollouts.read(episode, ["step"])["step"].astype(np.int64)
    # Windows begin with the first row after a gap, as with an episode's first row.
    first = np.append(0, np.flatnonzero(np.diff(step) != rollouts.info.every) + 1)
    rows = np.diff(np.append(first, len(step)))
    return first, np.maximum(0, (rows - length) // stride + 1)


def cut(
    items: Items, strips: Strips, rows: np.ndarray, blocks: int, lanes: int
) -> tuple[Items, np.ndarray]:
    """Cut runs of items where the storage is divided into tiles.

    Args:
        items: The items.
        strips: How the rows are stored.
        rows: Rows of all episodes of the table.
        blocks: Blocks of a tile.
        lanes: Lanes of a tile.

    Returns:
        The shorter runs, in the same order, and the number of the tile of each one.
    """
    base = np.cumsum(rows) - rows
    first = base[items.episode] + items.first
    last = first + (items.count - 1) * items.stride
    opening = np.searchsorted(strips.first, first, "right") - 1
    counts = np.searchsorted(strips.first, last, "right") - opening
    run = np.repeat(np.arange(len(first)), counts)
    strip = np.repeat(opening, counts) + ranges(counts)
    # The first item of a run in each strip.
    item = np.maximum(0, -(-(strips.first[strip] - first[run]) // items.stride))
    after = np.append(item[1:], 0)
    ending = np.cumsum(counts) - 1
    after[ending] = items.count
    tiles_across = -(-strips.lanes // lanes)
    tile = strips.place[strip] // blocks * tiles_across + strips.lane[strip] // lanes
    new = np.ones(len(run), bool)
    new[1:] = (run[1:] != run[:-1]) | (tile[1:] != tile[:-1])
    at = np.flatnonzero(new)
    ends = np.append(at[1:], len(run)) - 1
    item, after, run, tile = item[at], after[ends], run[at], tile[at]
    some = after > item
    item, after, run, tile = item[some], after[some], run[some], tile[some]
    shorter = Items(
        length=items.length,
        stride=items.stride,
        episode=items.episode[run],
        first=items.first[run] + item * items.stride,
        count=after - item,
    )
    return shorter, tile
