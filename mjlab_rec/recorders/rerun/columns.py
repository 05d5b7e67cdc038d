"""Columns of values and times for Rerun: all frames of a block in one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mjlab_rec.recorders.rerun import scene as scene


@dataclass
class Frames:
    """Some rows of a block, with the times at which their results are shown."""

    rows: np.ndarray
    steps: np.ndarray  # control steps after each row
    timelines: list[tuple[str, np.ndarray]] = field(
        default_factory=list
    )  # additional timelines: steps

    def earlier(self, steps: int) -> Frames:
        """The same rows, `steps` steps earlier."""
        timelines = [(name, at - steps) for name, at in self.timelines]
        return Frames(self.rows, self.steps - steps, timelines)

    def chosen(self, which: np.ndarray) -> Frames:
        """Some of the rows."""
        timelines = [(name, at[which]) for name, at in self.timelines]
        return Frames(self.rows[which], self.steps[which], timelines)


class Columns:
    """Sends columns to a recording.

    Args:
        stream: The ``rerun.RecordingStream``.
        step_dt: Seconds of simulated time that a control step takes.
    """

    def __init__(self, stream: Any, step_dt: float) -> None:
        import rerun

        self._rr = rerun
        self._stream = stream
        self._step_dt = step_dt

    def send(
        self, path: str, frames: Frames, columns: Any, lengths: int | np.ndarray | None
    ) -> None:
        """Send a column; `lengths` is the number of values per frame, None for a single one."""
        times = self._times("step", "time", frames.steps)
        for name, steps in frames.timelines:
            times += self._times(f"{name}_step", f"{name}_timestamp", steps)
        if isinstance(lengths, int):
            lengths = np.full(len(frames.steps), lengths)
        if lengths is not None:
            columns = columns.partition(lengths)
        self._stream.send_columns(path, indexes=times, columns=list(columns), strict=True)

    def _times(self, step_name: str, time_name: str, steps: np.ndarray) -> list[Any]:
        """Time columns of control steps and simulated seconds."""
        nanoseconds = np.round(steps * (self._step_dt * 1e9)).astype("timedelta64[ns]")
        return [
            self._rr.TimeColumn(step_name, sequence=steps),
            self._rr.TimeColumn(time_name, duration=nanoseconds),
        ]


def origin(geom: scene.Geom, place: np.ndarray, turn: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A geom's origin in Rerun: as in MuJoCo, except for capsules, which start at their origin."""
    if geom.kind != "Capsules3D":
        return place
    x, y, z, w = (turn[..., i] for i in range(4))
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=-1)
    return place - axis * size[..., 1:2]
