"""What a live plot recorder can be told: what to draw, where, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mjlab_rec.data.files import IfExists
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.cfg_fields import stride
from mjlab_rec.recorders.live_plot.plots import DEFAULT_PLOTS, Plot, flat_plots
from mjlab_rec.recorders.live_plot.recorder import LivePlotRecorder
from mjlab_rec.utils.string import nearest


@dataclass(kw_only=True)
class LivePlotRecorderCfg(RecorderTermCfg):
    """Configuration of ``LivePlotRecorder``."""

    func: type = LivePlotRecorder
    """The recorder."""

    plots: dict[str, Any] = field(default_factory=dict)
    """Plots by title: ``LinesCfg``, ``ImageCfg``, ``VectorsCfg``, a table of their fields, channel
    names for lines, or a dict of plots that stand below each other. Empty shows the reward, its
    terms and the action."""

    env: int = 0
    """The environment to draw, where a plot names none."""

    x: Literal["seconds", "steps"] = "seconds"
    """What the lines are drawn over: simulated time, or control steps."""

    every: int = 1
    """Take a sample every so many steps."""

    hz: float | None = None
    """Samples per second of simulated time, instead of ``every``; rounded to whole steps."""

    backend: Literal["auto", "page", "window", "file"] = "auto"
    """Where to draw: on the process's web page, in a window, or to a file. "auto" takes the file if
    a path is given, else the page, the window or a file: the first that is possible here."""

    path: str = ""
    """Picture or video to write: its ending is .png or .mp4. Empty means live_plot.png, if it comes
    to a file."""

    if_exists: IfExists = "error"
    """What to do if the path exists: "error", "overwrite", or add a "number"."""

    max_hz: float | None = None
    """Pictures per second at most, by the clock on the wall. None means 10 on a page and in a
    window; a PNG is then drawn at the end and by ``flush()`` only. A video has ``fps``."""

    fps: float = 10.0
    """Frames per second of simulated time in a video. It stays in time also where drawing cannot
    keep up: it holds the last picture then."""

    size: tuple[int, int] = (1280, 720)
    """Width and height of a window, picture or video in pixels."""

    port: int = 8080
    """Port of the page, if it is not open already."""

    host: str = "127.0.0.1"
    """Address of the page. The default is reached from this machine only."""

    autostart: bool = True
    """Draw from the first reset on. Otherwise nothing is drawn before ``start()``."""

    def check(self) -> dict[tuple[str, str], Plot]:
        """Say what is wrong with the values, or return the plots by title and subtitle."""
        name = type(self).__name__
        choices = {
            "backend": ("auto", "page", "window", "file"),
            "x": ("seconds", "steps"),
            "if_exists": ("error", "overwrite", "number"),
        }
        for key, known in choices.items():
            value = getattr(self, key)
            if value not in known:
                raise ValueError(f"{name}.{key} is {value!r}. {nearest(str(value), known)}")
        at_least_one = [self.every, *self.size, *([] if self.max_hz is None else [self.max_hz])]
        if min(at_least_one) <= 0 or self.fps <= 0 or (self.hz is not None and self.hz <= 0):
            raise ValueError(
                f"{name}: every, hz, max_hz, fps and size must be positive, got {self.every},"
                f" {self.hz}, {self.max_hz}, {self.fps} and {self.size}."
            )
        if self.hz is not None and self.every != 1:
            raise ValueError(
                f"{name}: hz and every exclude each other; got hz={self.hz}, every={self.every}."
            )
        if self.path and self.backend in ("page", "window"):
            raise ValueError(
                f"{name}: the path {self.path!r} is for a file, but the backend is"
                f" {self.backend!r}. Leave out one of them."
            )
        if self.path and not self.path.lower().endswith((".png", ".mp4")):
            raise ValueError(f"{name}.path is {self.path!r}. It must end in .png or .mp4.")
        return flat_plots(self.plots or DEFAULT_PLOTS)

    def stride(self, step_dt: float) -> int:
        """Steps from one sample to the next."""
        return stride(self.every, self.hz, step_dt, type(self).__name__)


LivePlotRecorder.cfg_type = LivePlotRecorderCfg
