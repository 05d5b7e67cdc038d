"""Episodes with pictures that show their number, for tests of videos in robomimic's layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.robomimic import RobomimicWriter
from mjlab_rec.data.schema import ChannelSpec, Episode, RunInfo

SHAPE = (16, 32, 3)


def specs(codec: str = "h264:18", shape: tuple[int, ...] = SHAPE) -> tuple[ChannelSpec, ...]:
    eye = ChannelSpec(
        name="obs/eye", dtype=np.dtype("uint8"), shape=shape, when="before", codec=codec
    )
    return (
        eye,
        replace(eye, name="next_obs/eye", when="after", next_of="obs/eye"),
        ChannelSpec(name="action", dtype=np.dtype("float32"), shape=(2,)),
        ChannelSpec(name="reward", dtype=np.dtype("float32")),
    )


def info(**fields: Any) -> RunInfo:
    return RunInfo(channels=specs(**fields), envs=(0,), step_dt=0.02)


def pictures(first: int, count: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Pictures that show their number in five bits, as bright or dark areas."""
    found = np.full((count, 16, 32, 3), 40, np.uint8)
    for at in range(count):
        for bit in range(5):
            if (first + at) >> bit & 1:
                found[at, :, 6 * bit : 6 * bit + 6] = 200
    if shape[0] == 3:
        found = np.moveaxis(found, 3, 1)
    return found[(slice(None), *map(slice, shape))] if len(shape) == 3 else found[..., 0]


def episode(number: int, rows: int = 3, shape: tuple[int, ...] = SHAPE) -> Episode:
    shown = pictures(4 * number, rows + 1, shape)
    return Episode(
        env=0,
        number=number,
        start=4 * number,
        length=rows,
        total=float(rows),
        recorded=float(rows),
        terminated=True,
        truncated=False,
        success=None,
        partial=False,
        arrays={
            "step": np.arange(rows, dtype=np.int32),
            "obs/eye": shown[:-1],
            "next_obs/eye": shown[1:],
            "action": np.full((rows, 2), number, np.float32),
            "reward": np.ones(rows, np.float32),
        },
    )


def record(path: Path, numbers: Any = range(2), **options: Any) -> list[Episode]:
    writer = RobomimicWriter(info(), WriterOptions(path=str(path), **options))
    found = [episode(number) for number in numbers]
    for each in found:
        writer.write_episode(each)
    writer.close()
    os.utime(path, (0, 0))  # Otherwise a reader of a damaged file waits for a writer.
    return found
