"""Episodes of one recording as what writers write, and how to write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Episode, RunInfo, bytes_of

_MOST_BLOCK_ROWS = 256  # of a block; a row of it cannot be read without the others
_BLOCK_BYTES = 16 << 10  # what a block costs besides its rows


def options_for(rows: np.ndarray, info: RunInfo, **options: Any) -> WriterOptions:
    """Options of the writer of a copy, which is put in its place when it is complete.

    The last block of an episode is filled up, and each block costs time and room of its own.

    Args:
        rows: Rows of each episode.
        info: What the rows are.
        options: Other options.
    """
    longest, nbytes = int(rows.max(initial=1)), bytes_of(info.kinds.values())
    possible = np.arange(1, min(longest, _MOST_BLOCK_ROWS) + 1)
    known, count = np.unique(rows, return_counts=True)
    blocks = (-(-known[:, None] // possible) * count[:, None]).sum(axis=0)
    best = int(np.argmin(blocks * (possible * nbytes + _BLOCK_BYTES)))
    return WriterOptions(
        block_rows=int(possible[best]), blocks=int(blocks[best]), safe=False, **options
    )


def episode_of(
    row: Mapping[str, Any], arrays: dict[str, np.ndarray], model: dict[str, np.ndarray]
) -> Episode:
    """An episode from its row of the table of episodes, where unknown values are None, NaN or -1.

    An unknown start or length becomes what the rows show.

    Args:
        row: The row.
        arrays: All channels, and "step".
        model: Its model fields.
    """
    step, success = arrays["step"], row["success"]
    start, length = row["start"], row["length"]
    return Episode(
        env=int(row["env"]),
        number=int(row["number"]),
        start=int(step[0] if start is None or start < 0 else start),
        length=int(step[-1] + 1 if length is None or length < 0 else length),
        total=_number(row["return"]),
        recorded=_number(row["recorded_return"]),
        terminated=bool(row["terminated"]),
        truncated=bool(row["truncated"]),
        success=None if success is None or success < 0 else bool(success),
        partial=bool(row["partial"]),
        arrays=arrays,
        model=model,
    )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
