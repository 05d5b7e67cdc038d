"""Plots and text in the native window."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from mjlab_rec.viewer.frame import Frame
from mjlab_rec.viewer.history import History, numbered
from mjlab_rec.viewer.recording import describe
from mjlab_rec.viewer.timeline import Timeline

_MOST_LINES = 8
_MARGIN = 8
_BAR_HEIGHT = 36
_DONE, _AHEAD, _MARK = (0.2, 0.7, 1.0), (0.35, 0.35, 0.35), (1.0, 0.8, 0.2)


class NativeFigures:
    """A figure of the reward terms and one of an observation term, in the window's lower corners.

    The thread that steps the environment makes them, and the thread that passes them to the window
    uses them.

    Args:
        timeline: The recording that is shown, whose seek bar is drawn below.
    """

    def __init__(self, timeline: Timeline | None = None) -> None:
        self._plots = (_Figure("Reward"), _Figure("Observation"))
        self._shown: int | None = None
        self._term = 0
        self._timeline = timeline
        self.visible = True

    def next_term(self) -> None:
        """Plot another observation term."""
        self._term += 1

    def add(self, frame: Frame) -> None:
        """Add a frame's values."""
        if frame.shown != self._shown:
            self._shown = frame.shown
            for plot in self._plots:
                plot.history.clear()
        if frame.steps:  # Rewards are meaningless before the first step.
            self._plots[0].add(frame.steps, dict(list(frame.rewards.items())[:_MOST_LINES]))
        if frame.observations:
            name = list(frame.observations)[self._term % len(frame.observations)]
            self._plots[1].add(frame.steps, numbered(frame.observations[name], _MOST_LINES), name)

    def placed(self, width: int, height: int) -> list[tuple[Any, Any]]:
        """Return the figures and their positions in a window of this size."""
        placed, bottom = [], _MARGIN
        if self._timeline is not None:
            bar = mujoco.MjrRect(_MARGIN, _MARGIN, width - 2 * _MARGIN, _BAR_HEIGHT)
            placed.append((bar, seek_bar(self._timeline)))
            bottom += _BAR_HEIGHT + _MARGIN
        if not self.visible:
            return placed
        w, h = width // 3, height // 4
        lefts = (_MARGIN, width - w - _MARGIN)
        return placed + [
            (mujoco.MjrRect(left, bottom, w, h), plot.figure())
            for left, plot in zip(lefts, self._plots, strict=True)
        ]


class _Figure:
    def __init__(self, title: str) -> None:
        self.title = title
        self.history = History(mujoco.mjMAXLINEPNT)

    def add(self, step: int, values: dict[str, float], title: str | None = None) -> None:
        if title is not None and title != self.title:
            self.title = title
            self.history.clear()
        self.history.add(step, values)

    def figure(self) -> mujoco.MjvFigure:
        """Return the stored values in the form that MuJoCo draws."""
        figure = mujoco.MjvFigure()
        mujoco.mjv_defaultFigure(figure)
        figure.title = self.title[:99]
        figure.xlabel = "step"
        figure.flg_extend = 1
        figure.flg_legend = 1
        figure.flg_ticklabel[:] = 1
        figure.gridsize[:] = 4, 4
        figure.figurergba[:] = 0.1, 0.1, 0.1, 0.6
        steps, *lines = self.history.columns()
        for number, (name, line) in enumerate(zip(self.history.names, lines, strict=True)):
            count = len(steps)
            # MuJoCo takes alternating x and y as 32-bit floats, without NaN and infinity.
            figure.linedata[number, : 2 * count : 2] = steps
            figure.linedata[number, 1 : 2 * count : 2] = np.nan_to_num(line.astype(np.float32))
            figure.linepnt[number] = count
            figure.linename[number] = name[:99].encode()
        return figure


def seek_bar(timeline: Timeline) -> mujoco.MjvFigure:
    """Return a bar as long as the part before the position, and marks where sections begin."""
    figure = mujoco.MjvFigure()
    mujoco.mjv_defaultFigure(figure)
    figure.figurergba[:] = 0.1, 0.1, 0.1, 0.7
    figure.gridsize[:] = 2, 2
    figure.gridrgb[:] = 0.1, 0.1, 0.1
    figure.flg_ticklabel[:] = 0
    last = max(timeline.length - 1, 1)
    figure.range[0][:] = 0, last
    figure.range[1][:] = 0, 1
    figure.linewidth = _BAR_HEIGHT / 4
    for number, (end, colour) in enumerate(((timeline.position, _DONE), (last, _AHEAD))):
        begin = 0 if number == 0 else timeline.position
        figure.linedata[number, :4] = begin, 0.5, end, 0.5
        figure.linepnt[number] = 2
        figure.linergb[number] = colour
    marks = [start for start in timeline.starts if start][: mujoco.mjMAXLINE - 2]
    for number, start in enumerate(marks, start=2):
        figure.linedata[number, :4] = start, 0.15, start, 0.85
        figure.linepnt[number] = 2
        figure.linergb[number] = _MARK
    return figure


def status_texts(frame: Frame, speed: float | None) -> list[tuple[Any, ...]]:
    """Return the window's text: the state of the run and of the recorders."""
    wanted = "as fast as possible" if speed is None else f"{speed:g}x"
    lines = {
        **({"Shows": frame.where} if frame.where else {}),
        "Step": f"{frame.steps:,}" + (" (paused)" if frame.paused else ""),
        "Time": f"{frame.seconds:,.2f} s",
        "Speed": f"{frame.measured_speed:.2f}x (wanted: {wanted})",
        "Environment": f"{frame.shown}, step {frame.episode_step:,} of its episode",
    }
    for name, command in frame.commands.items():
        values = " ".join(f"{value:.2f}" for value in command.values)
        lines[f"Command {name}"] = values + (" (set by hand)" if command.held else "")
    for name, progress in frame.recorders.items():
        # MuJoCo's font has no middle dot.
        lines[f"Recorder {name}"] = describe(progress).replace(" · ", ", ")
    return [
        (
            mujoco.mjtFontScale.mjFONTSCALE_100,
            mujoco.mjtGridPos.mjGRID_TOPLEFT,
            "\n".join(lines),
            "\n".join(lines.values()),
        )
    ]
