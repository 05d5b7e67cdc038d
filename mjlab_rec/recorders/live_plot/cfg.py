"""Configuration of the live plot recorder: what to draw, where and when."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mjlab_rec.recorders.cfg_fields import FileCfg, PaceCfg, Positive, StartCfg
from mjlab_rec.recorders.data_functions import data_channels
from mjlab_rec.recorders.live_plot.plots import DEFAULT_PLOTS, LinesCfg, Plot, flat_plots
from mjlab_rec.recorders.live_plot.recorder import LivePlotRecorder


@dataclass(kw_only=True)
class LivePlotRecorderCfg(StartCfg, PaceCfg, FileCfg):
    """Configuration of ``LivePlotRecorder``.

    The path must end in .png or .mp4. If a file is drawn and no path is set, it is
    live_plot.png.
    """

    func: type = LivePlotRecorder

    can_append = False

    plots: dict[str, Any] = field(default_factory=dict)
    """Plots by title: ``LinesCfg``, ``ImageCfg``, ``VectorsCfg``, a table of their fields, channel
    names for lines, or a dict of plots to stack. Empty shows the reward, its terms and the
    action."""

    env: int = 0
    """The environment to draw, unless a plot sets its own."""

    x: Literal["seconds", "steps"] = "seconds"
    """Unit of the horizontal axis: simulated seconds or control steps."""

    backend: Literal["auto", "page", "window", "file"] = "auto"
    """Where to draw: on the process's web page, in a window, or to a file. "auto" uses the file if
    a path is set, else the first of page, window and file that works here."""

    max_hz: Positive | None = None
    """Maximum number of redraws per second of wall time. None means 10 on a page and in a window;
    a PNG is then drawn only at the end and by ``flush()``. A video uses ``fps``."""

    fps: Positive = 10.0
    """Frames per second of simulated time in a video. If drawing cannot keep up, the last frame is
    repeated, so that the video keeps the right speed."""

    size: tuple[int, int] = (1280, 720)
    """Width and height of the window, image or video in pixels."""

    port: int = 8080
    """Port of the page, unless it is already open."""

    host: str = "127.0.0.1"
    """Address to serve the page at. The default accepts only connections from this machine."""

    def with_data(self, data: Any, env: Any) -> LivePlotRecorderCfg:
        """Return a copy that draws lines of this, as given to ``start_recording``."""
        channels = data_channels(data, env)
        plots = {c if isinstance(c, str) else c.name: LinesCfg(channels=(c,)) for c in channels}
        return replace(self, plots=plots)

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        name = type(self).__name__
        if min(self.size) < 1:
            raise self.error("size", f"must be two whole numbers of at least 1, got {self.size}.")
        if self.path and self.backend in ("page", "window"):
            raise ValueError(
                f"{name}: the path {self.path!r} needs a file, but the backend is"
                f" {self.backend!r}. Leave out one of them."
            )
        if self.path and not self.path.lower().endswith((".png", ".mp4")):
            raise self.error("path", f"is {self.path!r}. It must end in .png or .mp4.")
        self.flat_plots()

    def flat_plots(self) -> dict[tuple[str, str], Plot]:
        """The plots by title and subtitle."""
        return flat_plots(self.plots or DEFAULT_PLOTS)


LivePlotRecorder.cfg_type = LivePlotRecorderCfg
