"""Write a clean copy of what is good in a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mjlab_rec.data.checking.findings import CheckResult
from mjlab_rec.data.checking.recording import Progress
from mjlab_rec.data.formats.blocks import BlocksReader
from mjlab_rec.data.rewriting import OutputOptions, write_episodes
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError


def repair(
    path: str | Path,
    out: str | Path,
    result: CheckResult,
    options: OutputOptions | None = None,
    progress: Progress | None = None,
    *,
    keep_rows: bool = False,
) -> list[Path]:
    """Write the episodes with which nothing is wrong to a new recording; returns its files.

    With `keep_rows` the good rows of other episodes are written, too, if it is known which of their
    rows are damaged. Such an episode is marked as partial. It keeps its environment, number, length
    and return, and each of its rows the step.

    Args:
        path: The recording.
        out: Path of the new one.
        result: What ``check`` found in the recording.
        options: The format of the new one, and what to do if it exists.
        progress: Called with the rows that are written, and all rows.
        keep_rows: Whether to keep the good rows of episodes that are not good.
    """
    good = np.flatnonzero(result.good).tolist()
    parts = result.good_parts if keep_rows else {}
    if not good and not parts:
        raise DataError(f"Nothing in '{path}' is good, so nothing was written.")
    with open_rollouts(path) as rollouts:
        if len(rollouts) != len(result.good):
            raise DataError(f"'{path}' was changed after it was checked. Check it again.")
        if parts and isinstance(rollouts.reader, BlocksReader):
            rollouts.reader.refuse_lost = False
        chosen = sorted([*good, *parts])
        return write_episodes(
            *(rollouts, chosen, out, options),
            how="repair",
            progress=progress,
            parts=parts,
            dropped=len(rollouts) - len(chosen),
            partly=len(parts),
        )
