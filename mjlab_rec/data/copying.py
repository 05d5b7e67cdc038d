"""Episodes of one recording as what writers write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mjlab_rec.data.schema import Episode


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
