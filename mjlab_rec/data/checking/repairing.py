"""Write a clean copy of what is good in a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mjlab_rec.data.checking.findings import CheckResult
from mjlab_rec.data.checking.recording import Progress
from mjlab_rec.data.rewriting import OutputOptions, write_episodes
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError


def repair(
    path: str | Path,
    out: str | Path,
    result: CheckResult,
    options: OutputOptions | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the episodes with which nothing is wrong to a new recording; returns its files.

    Args:
        path: The recording.
        out: Path of the new one.
        result: What ``check`` found in the recording.
        options: The format of the new one, and what to do if it exists.
        progress: Called with the rows that are written, and all rows.
    """
    good = np.flatnonzero(result.good).tolist()
    if not good:
        raise DataError(f"Nothing in '{path}' is good, so nothing was written.")
    with open_rollouts(path) as rollouts:
        if len(rollouts) != len(result.good):
            raise DataError(f"'{path}' was changed after it was checked. Check it again.")
        dropped = len(rollouts) - len(good)
        return write_episodes(
            rollouts, good, out, options, how="repair", progress=progress, dropped=dropped
        )
