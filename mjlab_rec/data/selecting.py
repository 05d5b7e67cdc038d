"""Make new recordings of others: merge them, split them, or keep some of their episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.conditions import matching
from mjlab_rec.data.discovery import Source
from mjlab_rec.data.rewriting import OutputOptions, Progress, check_outputs, write_episodes
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError


def merge(
    source: Source | Sequence[Source],
    out: str | Path,
    options: OutputOptions | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write all episodes of several recordings to one; returns its files.

    The recordings must have the same channels. An episode keeps its environment; the episodes of an
    environment are numbered on, and the attached file "origin.csv" says where each comes from.

    Args:
        source: What ``open_rollouts`` takes: a list, a pattern or a folder.
        out: Path of the new recording.
        options: Its format, and what to do if it exists.
        progress: Called with the rows that are written, and all rows.
    """
    with open_rollouts(source) as rollouts:
        everything = range(len(rollouts))
        return write_episodes(rollouts, everything, out, options, how="merge", progress=progress)


def keep_where(
    source: Source | Sequence[Source],
    out: str | Path,
    where: str,
    options: OutputOptions | None = None,
    progress: Progress | None = None,
) -> tuple[list[Path], int, int]:
    """Write the episodes that match a condition to a new recording.

    Args:
        source: What ``open_rollouts`` takes.
        out: Path of the new recording.
        where: A condition on the columns of the table of episodes, such as "return > 10 and
            length >= 50".
        options: Its format, and what to do if it exists.
        progress: Called with the rows that are written, and all rows.

    Returns:
        The files, the number of episodes that were kept, and that of all.
    """
    with open_rollouts(source) as rollouts:
        kept = matching(rollouts.episodes, where)
        if not len(kept):
            raise DataError(
                f"No episode of {len(rollouts)} matches {where!r}, so nothing was written."
            )
        files = write_episodes(
            rollouts, kept.tolist(), out, options, how="filter", progress=progress, where=where
        )
        return files, len(kept), len(rollouts)


def split(
    source: Source | Sequence[Source],
    outs: Mapping[str | Path, float | int],
    options: OutputOptions | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[Path, int]:
    """Divide the episodes of a recording at random between several new ones.

    Args:
        source: What ``open_rollouts`` takes.
        outs: Path of each new recording, with its share of the episodes: a fraction (a float up
            to 1.0) or a number of episodes (an int). Fractions that add up to 1 use every episode.
        options: Their format, and what to do if one exists.
        seed: The same seed divides the same episodes in the same way.
        progress: Called with the rows that are written, and all rows.

    Returns:
        The first file of each recording, with its number of episodes.
    """
    with open_rollouts(source) as rollouts:
        counts = _counts(len(rollouts), list(outs.values()))
        check_outputs(rollouts, list(outs), options)
        order = np.random.default_rng(seed).permutation(len(rollouts))
        bounds = np.cumsum([0, *counts])
        rows = rollouts.episodes["rows"].to_numpy()
        total, done, found = int(rows[order[: bounds[-1]]].sum()), 0, {}
        for number, out in enumerate(outs):
            chosen = np.sort(order[bounds[number] : bounds[number + 1]])

            def report(some: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + some, total)

            files = write_episodes(
                *(rollouts, chosen.tolist(), out, options),
                **{"how": "split", "progress": report, "seed": seed, "share": outs[out]},
            )
            found[files[0]] = len(chosen)
            done += int(rows[chosen].sum())
        return found


def _counts(episodes: int, shares: Sequence[float | int]) -> list[int]:
    """The number of episodes of each share."""
    if not shares:
        raise ValueError("There must be at least one output.")
    for share in shares:
        fraction = isinstance(share, float)
        if share <= 0 or (fraction and share > 1):
            raise ValueError(
                f"A share of {share} is impossible. Give a fraction such as 0.8, or a number of"
                " episodes such as 100."
            )
    fixed = sum(share for share in shares if isinstance(share, int))
    fractions = [share for share in shares if isinstance(share, float)]
    if (total := sum(fractions)) > 1 + 1e-9:
        raise ValueError(f"The shares add up to {total:g}, but they can be 1 at most.")
    if fixed > episodes:
        raise ValueError(f"The shares have {fixed} episodes, but the recording has {episodes}.")
    # Rounded at the bounds, so that fractions that add up to 1 leave nothing over.
    at, before, counts = 0.0, 0, []
    for share in shares:
        if isinstance(share, int):
            counts.append(share)
            continue
        at += share * episodes
        after = math.floor(at + 0.5 + 1e-9)
        counts.append(after - before)
        before = after
    if sum(counts) > episodes or 0 in counts:
        raise ValueError(
            f"{episodes} episodes cannot be divided into shares of {', '.join(map(str, shares))}:"
            f" they would have {', '.join(map(str, counts))}."
        )
    return counts
