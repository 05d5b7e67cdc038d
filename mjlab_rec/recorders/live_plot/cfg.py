"""What a live plot recorder can be told: what to draw, where, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mjlab_rec.recorders.cfg_fields import FileCfg, PaceCfg, Positive, StartCfg
from mjlab_rec.recorders.live_plot.plots import DEFAULT_PLOTS, Plot, flat_plots
from mjlab_rec.recorders.live_plot.recorder import LivePlotRecorder


@dataclass(kw_only=True)
class LivePlotRecorderCfg(StartCfg, PaceCfg, FileCfg):
    """Configuration of ``LivePlotRecorder``.

    Its path ends in .png or .mp4. If it comes to a file and there is no path, that is
    live_plot.png.
    """

    func: type = LivePlotRecorder

    can_append = False

    plots: dict[str, Any] = field(default_factory=dict)
    """Plots by title: ``LinesCfg``, ``ImageCfg``, ``VectorsCfg``, a table of their fields, channel
    names for lines, or a dict of plots that stand below each other. Empty shows the reward, its
    terms and the action."""

    env: int = 0
    """The environment to draw, where a plot names none."""

    x: Literal["seconds", "steps"] = "seconds"
    """What the lines are drawn over: simulated time, or control steps."""

    backend: Literal["auto", "page", "window", "file"] = "auto"
    """Where to draw: on the process's web page, in a window, or to a file. "auto" takes the file if
    a path is given, else the page, the window or a file: the first that is possible here."""

    max_hz: Positive | None = None
    """Pictures per second at most, by the clock on the wall. None means 10 on a page and in a
    window; a PNG is then drawn at the end and by ``flush()`` only. A video has ``fps``."""

    fps: Positive = 10.0
    """Frames per second of simulated time in a video. It stays in time also where drawing cannot
    keep up: it holds the last picture then."""

    size: tuple[int, int] = (1280, 720)
    """Width and height of a window, picture or video in pixels."""

    port: int = 8080
    """Port of the page, if it is not open already."""

    host: str = "127.0.0.1"
    """Address of the page. The default is reached from this machine only."""

    def check(self) -> None:
        """Raise ValueError for the first value that does not fit its field."""
        super().check()
        name = type(self).__name__
        if min(self.size) < 1:
            raise self.error("size", f"must be two whole numbers from 1 up, got {self.size}.")
        if self.path and self.backend in ("page", "window"):
            raise ValueError(
                f"{name}: the path {self.path!r} is for a file, but the backend is"
                f" {self.backend!r}. Leave out one of them."
            )
        if self.path and not self.path.lower().endswith((".png", ".mp4")):
            raise self.error("path", f"is {self.path!r}. It must end in .png or .mp4.")
        self.flat_plots()

    def flat_plots(self) -> dict[tuple[str, str], Plot]:
        """The plots by title and subtitle."""
        return flat_plots(self.plots or DEFAULT_PLOTS)


LivePlotRecorder.cfg_type = LivePlotRecorderCfg
