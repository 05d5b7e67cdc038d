"""The numbers of a report, read in one pass over a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from mjlab_rec.data.episode_batches import batches
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.pictures.codec import is_picture
from mjlab_rec.data.reporting.distributions import Distribution
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, bytes_of

Progress = Callable[[int, int], None]

REWARD_TERMS = "reward_terms/"
_END_GROUPS = ("termination_terms", "terminations", "termination")
_MOST_ELEMENTS = 1024
_SHOWN_EACH = 3
_ENOUGH = 3  # whole episodes, so that no others are compared
_CHARTS = 3  # channels of an episode that are drawn, with the reward
_LARGEST_DRAWN = 64  # elements of a channel that is drawn


@dataclass(kw_only=True)
class ShownEpisode:
    """One of the episodes that the report shows."""

    rank: str  # "worst", "median" or "best"
    index: int  # row in the table of episodes
    arrays: dict[str, np.ndarray] = field(default_factory=dict)  # those that are drawn


@dataclass(kw_only=True)
class Gathered:
    """The numbers of a report."""

    returns: np.ndarray  # (episodes,) float64, NaN: not known
    lengths: np.ndarray  # (episodes,)
    ended_at: np.ndarray  # (episodes,) control steps of the environment; or their order
    in_order: bool  # whether ended_at is the order of the episodes
    distributions: dict[str, Distribution]
    skipped: dict[str, str]  # channel -> why it has no distribution
    causes: dict[str, int]  # termination term -> episodes in whose last row it was true
    shown: list[ShownEpisode]
    only_whole: bool  # whether cut and partial episodes were left out of these


def gather(rollouts: Rollouts, progress: Progress | None = None) -> Gathered:
    """Read everything once, in pieces."""
    table = rollouts.episodes
    returns = table["return"].fill_null(table["recorded_return"]).fill_null(np.nan).to_numpy()
    ended = (table["start"] + table["length"]).fill_null(0).to_numpy().astype(np.float64)
    in_order = bool((table["start"].fill_null(0) == 0).all())
    # Files of other programs do not say when an episode was; nor do recordings of one each.
    if in_order:
        ended = np.arange(len(table), dtype=np.float64)
    distributions, skipped = _chosen(rollouts.info.channels)
    causes = _flag_columns(table)
    lasts = [n for n in distributions if n.partition("/")[0] in _END_GROUPS]
    lasts = [name for name in lasts if distributions[name].size == 1]
    causes |= dict.fromkeys(lasts, 0)
    over = table["cut"] | table["partial"] | table["cut"].is_null() | table["partial"].is_null()
    whole = ~over.to_numpy()
    only_whole = int(np.isfinite(returns[whole]).sum()) >= _ENOUGH
    shown = _ranked(np.where(whole, returns, np.nan) if only_whole else returns)
    _read(rollouts, distributions, lasts, causes, progress)
    drawn = _drawn(rollouts.info.channels, distributions)
    for episode in (each for each in shown if _is_first(each, shown)):
        episode.arrays = rollouts.read(episode.index, [*drawn, "step"])
    return Gathered(
        returns=returns,
        lengths=table["length"].fill_null(0).to_numpy(),
        ended_at=ended,
        in_order=in_order,
        distributions=distributions,
        skipped=skipped,
        causes=causes,
        shown=shown,
        only_whole=only_whole,
    )


def _read(
    rollouts: Rollouts,
    distributions: dict[str, Distribution],
    lasts: Sequence[str],
    causes: dict[str, int],
    progress: Progress | None,
) -> None:
    """Add all rows to the distributions, and count what ended episodes."""
    names, rows = list(distributions), rollouts.episodes["rows"].fill_null(0).to_list()
    if not names:
        return
    each, total, done = bytes_of(rollouts.info.kinds[name] for name in names), sum(rows), 0
    for batch in batches(range(len(rows)), rows, each):
        arrays = rollouts.read_many(batch, names)
        for name, distribution in distributions.items():
            distribution.add(arrays[name])
        counts = np.array([rows[index] for index in batch])
        ends = (np.cumsum(counts) - 1)[counts > 0]
        for name in lasts:
            causes[name] += int(np.count_nonzero(arrays[name][ends]))
        done += int(counts.sum())
        if progress is not None:
            progress(done, total)


def _chosen(
    channels: Sequence[ChannelSpec],
) -> tuple[dict[str, Distribution], dict[str, str]]:
    """An empty distribution of each channel that gets one; and why others get none."""
    found, skipped = {}, {}
    for spec in channels:
        if spec.codec or is_picture(spec.dtype, spec.shape):
            skipped[spec.name] = "pictures"
        elif spec.next_of:
            skipped[spec.name] = f"the next values of {spec.next_of}"
        elif spec.size > _MOST_ELEMENTS:
            skipped[spec.name] = f"{spec.size} elements, more than {_MOST_ELEMENTS}"
        elif spec.size and spec.dtype.kind in "biuf":
            found[spec.name] = Distribution(spec.size)
        else:
            skipped[spec.name] = "no numbers"
    return found, skipped


def _flag_columns(table: pl.DataFrame) -> dict[str, int]:
    """How often each flag is set that a recorder added to the table of episodes."""
    flags = (name for name in table.columns if name not in EPISODE_COLUMNS)
    return {n: int(table[n].sum()) for n in flags if table[n].dtype == pl.Boolean}


def _ranked(returns: np.ndarray) -> list[ShownEpisode]:
    """The worst, median and best episodes, by their known returns."""
    known = np.flatnonzero(np.isfinite(returns))
    order = known[np.argsort(returns[known], kind="stable")]
    count = min(_SHOWN_EACH, len(order) // 3)
    if not count:
        names = ("only",) if len(order) == 1 else ("worst", "best")
        return [ShownEpisode(rank=r, index=int(i)) for r, i in zip(names, order, strict=False)]
    middle = (len(order) - count) // 2
    parts = {
        "worst": order[:count],
        "median": order[middle : middle + count],
        "best": order[::-1][:count],
    }
    return [ShownEpisode(rank=r, index=int(i)) for r, part in parts.items() for i in part]


def _is_first(episode: ShownEpisode, shown: Sequence[ShownEpisode]) -> bool:
    return next(each for each in shown if each.rank == episode.rank) is episode


def _drawn(channels: Sequence[ChannelSpec], distributions: dict[str, Distribution]) -> list[str]:
    """The channels that are drawn for an episode: reward, then actions, observations, others."""
    flags = ("terminated", "truncated")
    known = [s for s in channels if s.name in distributions and s.size <= _LARGEST_DRAWN]
    names = [s.name for s in known if s.name not in ("reward", *flags)]
    starts = ("action", "obs/", "command/", "state")
    names.sort(key=lambda n: next((i for i, s in enumerate(starts) if n.startswith(s)), 9))
    return [*(["reward"] if "reward" in distributions else []), *names[:_CHARTS]]
