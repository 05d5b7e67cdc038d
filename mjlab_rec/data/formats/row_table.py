"""What formats that are one table of rows share: types of columns, times, and ways of polars."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import polars as pl

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def stored(dtype: np.dtype) -> np.dtype:
    """The type that values have in a table, which has no numbers of two bytes."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def polars_kind(dtype: np.dtype, shape: tuple[int, ...] = ()) -> pl.DataType:
    """The type of a column in which each row has values of this type and shape."""
    kind = pl.Series(np.zeros(0, stored(dtype))).dtype
    return pl.Array(kind, shape) if shape else kind


def times(step: np.ndarray, step_dt: float) -> np.ndarray:
    """The time of rows in their episode."""
    # Rounded, or 3 * 0.1 s would be written as 0.30000000000000004.
    return np.round(step * step_dt, 9)


def undisturbed(work: Callable[[], None]) -> bool:
    """Do work of polars; returns False if Ctrl-C ended it, which was not meant for it.

    Polars has a handler of its own for Ctrl-C, which ends whatever it does in any thread. Only the
    main thread is meant, where Python raises it as well.
    """
    try:
        work()
        return True
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread():
            raise
        return False
