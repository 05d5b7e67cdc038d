"""The live plot: lines, images and vector fields of a running rollout, drawn beside it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from mjlab_rec.data.mp4 import find_ffmpeg
from mjlab_rec.data.worker import Worker
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.cfg_fields import typed
from mjlab_rec.recorders.live_plot.panels import Backend, Frame, Panel
from mjlab_rec.recorders.live_plot.sampler import Sampler, Samples
from mjlab_rec.recorders.row_clock import RowClock
from mjlab_rec.utils.display import why_no_display
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.live_plot.cfg import LivePlotRecorderCfg

_LIVE_HZ = 10.0
_QUEUE = 32  # Frames of a video that may wait to be drawn.


class LivePlotRecorder(RowClock):
    """Draws what happens while it happens: on a web page, in a window, or to a PNG or mp4 file.

    A step only copies its values into a ring on the device. Another thread draws, at its own rate,
    what is newest when it gets to it; what comes in between is not lost from the lines, only never
    drawn by itself. If no more steps are taken, ``flush()`` shows the very last ones.

    Subclasses may override ``make_backend`` to draw elsewhere.
    """

    cfg: LivePlotRecorderCfg
    cfg_type: ClassVar[type[RecorderTermCfg]]

    rows_unit = "steps"

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        self.cfg = typed(cfg, self.cfg_type)
        cfg = self.cfg
        plots = cfg.flat_plots()
        every = cfg.stride(env.step_dt)
        super().__init__(cfg, env, every=every, autostart=cfg.autostart)
        self.dropped_rows = 0
        """Frames of a video that could not be drawn in time: the one before was held instead."""
        self._sampler = Sampler(env, plots, cfg.env, self._every, cfg.x)
        self.draws_random_numbers = self._sampler.has_functions
        self.needs_final_obs = self._sampler.needs_final_obs
        self.where = _where(cfg)
        """Where it draws: page, window, png or mp4."""
        self.page = ""
        """Address of the web page that it draws on, or did before it was closed."""
        self._backend: Backend | None = None
        self._worker: Worker[tuple[Samples, int, bool]] | None = None
        self._written: list[Path] = []
        self._frames = 0  # Frames of a video that were drawn, or will be.
        self._frames_due = 0

    def make_backend(self, panels: Sequence[Panel]) -> Backend:
        """What draws the panels."""
        cfg, title = self.cfg, f"{about(self._env)['task']}"
        if self.where == "page":
            from mjlab_rec.recorders.live_plot.page import PageBackend

            return PageBackend(panels, title, cfg.port, cfg.host)
        if self.where == "window":
            from mjlab_rec.recorders.live_plot.window import WindowBackend

            return WindowBackend(panels, title, cfg.size)
        from mjlab_rec.recorders.live_plot.file import Mp4Backend, PngBackend

        path = Path(cfg.path or "live_plot.png")
        if_exists = "number" if self._written or not cfg.path else cfg.if_exists
        if self.where == "png":
            return PngBackend(panels, title, cfg.size, path, if_exists)
        return Mp4Backend(panels, title, cfg.size, path, if_exists, cfg.fps)

    @property
    def files(self) -> list[Path]:
        """What was written so far."""
        return self._written + ([] if self._backend is None else list(self._backend.files))

    @property
    def nbytes(self) -> int:
        """Size of all that was written so far."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    # -- moments -----------------------------------------------------------------------------------

    def on_step(self, ended: torch.Tensor) -> None:
        """Raise what went wrong in the drawing thread."""
        if self._worker is not None:
            self._worker.check()

    def on_row_begins(self, has_row: bool) -> None:
        """Read what a sampled step starts from."""
        if has_row:
            self._sampler.before()

    def on_row_taken(self) -> None:
        """Read what came of the action."""
        self._sampler.after()

    def on_row_complete(self, was_reset: bool) -> None:
        """The sample is complete; hand a copy of all to the drawing thread if it is idle."""
        self._sampler.complete(self._env.common_step_counter - 1, was_reset)
        self.rows += 1
        self._offer()

    def on_flush(self) -> None:
        """Have everything drawn that was sampled so far."""
        if self._worker is not None and self._sampler.rows:
            self._worker.submit((self._sampler.samples(), self._copies(), True))

    def wait_until_written(self, timeout: float | None) -> None:
        """Wait until everything sampled so far is drawn."""
        if self._worker is not None:
            self._worker.wait(timeout)

    def on_finish(self) -> None:
        """Draw what is left and finish the file, or clear the page."""
        worker, self._worker = self._worker, None
        backend, self._backend = self._backend, None
        if worker is None or backend is None or worker.forked:
            return
        try:
            if worker.error is None and self._sampler.rows:
                worker.submit((self._sampler.samples(), self._copies(), True))
                worker.wait()
        finally:
            worker.finish()
            self._written += backend.files
        worker.check()

    def _offer(self) -> None:
        """Hand the samples to the drawing thread, if it would draw them now."""
        worker = self._worker
        assert worker is not None
        if self.where != "mp4":
            if self._live and worker.ready():
                worker.submit((self._sampler.samples(), 1, False))
            return
        seconds = self._sampler.rows * self._every * self._env.step_dt
        due = math.ceil(seconds * self.cfg.fps - 1e-9)
        new, self._frames_due = due - self._frames_due, due
        if new and worker.ready():
            worker.submit((self._sampler.samples(), self._copies(), False))
        else:
            self.dropped_rows += new

    def _copies(self) -> int:
        """Frames of a video that the next picture takes up."""
        copies, self._frames = self._frames_due - self._frames, self._frames_due
        return copies

    def on_open(self) -> None:
        """Allocate the rings and open the page, window or file, once all values can be read."""
        panels = self._sampler.prepare()
        self._frames = self._frames_due = 0
        backend = self._backend = self.make_backend(panels)
        page = getattr(backend, "page", None)
        if page is not None:
            self.page = page.url
        self._live = self.where in ("page", "window") or self.cfg.max_hz is not None

        def draw(item: tuple[Samples, int, bool]) -> None:
            samples, copies, final = item
            step = int(samples.steps[(samples.rows - 1) % len(samples.steps)])
            caption = f"step {step}, {step * self._env.step_dt:.2f} s"
            contents = self._sampler.contents(samples)
            backend.draw(Frame(caption=caption, contents=contents, copies=copies), final)

        is_video = self.where == "mp4"
        self._worker = Worker(
            type(self).__name__,
            draw,
            doing="drawing",
            finish=backend.close,
            capacity=_QUEUE if is_video else 1,
            max_hz=None if is_video else (self.cfg.max_hz or _LIVE_HZ),
        )


def _where(cfg: LivePlotRecorderCfg) -> str:
    """Where to draw: page, window, png or mp4; complains if that is not possible here."""
    user, kind = type(cfg).__name__.removesuffix("Cfg"), cfg.backend
    if kind == "auto":
        if cfg.path:
            kind = "file"
        elif importlib.util.find_spec("viser") is not None:
            kind = "page"
        elif why_no_display() is None and importlib.util.find_spec("matplotlib") is not None:
            kind = "window"
        else:
            kind = "file"
    if kind == "page":
        require("viser", "web", user)
        return "page"
    require("matplotlib", "plot", user)
    if kind == "window":
        if (reason := why_no_display()) is not None:
            raise ValueError(
                f'{user}: backend="window" cannot open one. {reason} Use "page", or "file" with a'
                " path."
            )
        return "window"
    if not cfg.path.lower().endswith(".mp4"):
        return "png"
    find_ffmpeg(user)
    return "mp4"
