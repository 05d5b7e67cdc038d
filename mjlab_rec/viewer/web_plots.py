"""Plots on the web page: reward terms, and one observation term."""

from __future__ import annotations

from typing import Any

from mjlab_rec.utils.page import COLOURS
from mjlab_rec.viewer.frame import Frame
from mjlab_rec.viewer.history import History, numbered

_MOST_LINES = 12
_HEIGHT = 220


class WebPlots:
    """Two plots in a folder that the user opens."""

    def __init__(self, gui: Any) -> None:
        self._gui = gui
        self._rewards = _Plot(gui, "Reward terms (value × weight)")
        self._observations = _Plot(gui, "")
        self._shown: int | None = None
        self._restart = False
        # Closed, or on small screens the controls would be out of sight.
        self._folder = gui.add_folder("Plots", expand_by_default=False)
        self._chooser: Any = None

    def restart(self) -> None:
        """Clear the plots before the next frame. Any thread may call it."""
        self._restart = True

    def draw(self, frame: Frame) -> None:
        """Add the frame's values to the plots. Called by one thread."""
        if frame.shown != self._shown or self._restart:
            self._shown, self._restart = frame.shown, False
            self._rewards.clear()
            self._observations.clear()
        with self._folder:
            total = {"total": sum(frame.rewards.values())} if len(frame.rewards) > 1 else {}
            if frame.rewards and frame.steps:  # They are meaningless before the first step.
                self._rewards.add(frame.steps, total | dict(frame.rewards))
            if not frame.observations:
                return
            if self._chooser is None:
                names = list(frame.observations)
                self._chooser = self._gui.add_dropdown("Observation", names, initial_value=names[0])
            name = self._chooser.value
            values = frame.observations[name]
            cut = f" (first {_MOST_LINES} of {len(values)})" if len(values) > _MOST_LINES else ""
            self._observations.add(frame.steps, numbered(values, _MOST_LINES), name + cut)

    def close(self) -> None:
        """Remove the plots from the page."""
        self._folder.remove()


class _Plot:
    """A plot, recreated if its lines change."""

    def __init__(self, gui: Any, title: str) -> None:
        self._gui = gui
        self._title = title
        self._history = History()
        self._handle: Any = None

    def add(self, step: int, values: dict[str, float], title: str | None = None) -> None:
        """Add a point to each line, in the open folder."""
        if title is not None and title != self._title:
            self._title = title
            self.clear()
            self._remove()
        if self._history.add(step, values):
            self._remove()
        columns = self._history.columns()
        if self._handle is None:
            self._handle = self._gui.add_uplot(
                columns, self._series(), title=self._title, height=_HEIGHT, scales=_SCALES
            )
        else:
            self._handle.data = columns

    def clear(self) -> None:
        """Clear the plot."""
        self._history.clear()

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _series(self) -> tuple[Any, ...]:
        lines = [
            {"label": name, "stroke": COLOURS[index % len(COLOURS)], "width": 1.5}
            for index, name in enumerate(self._history.names)
        ]
        return ({"label": "step"}, *lines)


_SCALES: dict[str, Any] = {"x": {"time": False, "auto": True}}
