"""Helpers of formats with one table of rows: types of columns, times, and polars."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import polars as pl

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def stored(dtype: np.dtype) -> np.dtype:
    """The type of values in a table, which has no 16-bit floats."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def polars_kind(dtype: np.dtype, shape: tuple[int, ...] = ()) -> pl.DataType:
    """The type of a column in which each row has values of this type and shape."""
    kind = pl.Series(np.zeros(0, stored(dtype))).dtype
    return pl.Array(kind, shape) if shape else kind


def times(step: np.ndarray, step_dt: float) -> np.ndarray:
    """The times of rows within their episode, in seconds."""
    # Rounded, because 3 * 0.1 s would be written as 0.30000000000000004.
    return np.round(step * step_dt, 9)


def not_interrupted(work: Callable[[], None]) -> bool:
    """Run work that uses polars; returns False if Ctrl-C interrupted it in another thread.

    Polars has its own handler of Ctrl-C, which interrupts its work in every thread. Only the main
    thread should be interrupted, where Python raises KeyboardInterrupt as well.
    """
    try:
        work()
        return True
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread():
            raise
        return False
