"""The live plot: lines, images and vector fields of a running rollout, drawn in another thread."""

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
_QUEUE = 32  # Maximum number of video frames that wait to be drawn.


class LivePlotRecorder(RowClock):
    """Draws the running rollout on a web page, in a window, or to a PNG or mp4 file.

    A step only copies its values into a ring buffer on the device. Another thread draws the newest
    samples at its own rate. Samples in between still appear in the lines, but get no drawing of
    their own. If no more steps are taken, ``flush()`` shows the last ones.

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
        """Video frames that were not drawn in time and show the previous frame instead."""
        taken = lambda: self.counters.length  # noqa: E731
        self._sampler = Sampler(env, plots, cfg.env, self._every, cfg.x, taken)
        self.draws_random_numbers = self._sampler.has_functions
        self.needs_final_obs = self._sampler.needs_final_obs
        self.where = _where(cfg)
        """Where it draws: page, window, png or mp4."""
        self.page = ""
        """Address of the web page that it draws on, also after it is closed."""
        self._backend: Backend | None = None
        self._worker: Worker[tuple[Samples, int, bool]] | None = None
        self._written: list[Path] = []
        self._frames = 0  # Video frames drawn or submitted.
        self._frames_due = 0

    def make_backend(self, panels: Sequence[Panel]) -> Backend:
        """Create the backend that draws the panels."""
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
        """Files written so far."""
        return self._written + ([] if self._backend is None else list(self._backend.files))

    @property
    def nbytes(self) -> int:
        """Size of the files written so far."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    # -- moments -----------------------------------------------------------------------------------

    def on_step(self, ended: torch.Tensor) -> None:
        """Raise the drawing thread's error, if there is one."""
        if self._worker is not None:
            self._worker.check()

    def on_row_begins(self, has_row: bool) -> None:
        """Read the values at a sampled step's start."""
        if has_row:
            self._sampler.before()

    def on_row_taken(self) -> None:
        """Read the action's results."""
        self._sampler.after()

    def on_row_complete(self, was_reset: bool) -> None:
        """Complete the sample; if the drawing thread is idle, hand it a copy of all samples."""
        self._sampler.complete(self._env.common_step_counter - 1, was_reset)
        self.rows += 1
        self._offer()

    def on_flush(self) -> None:
        """Start drawing everything sampled so far."""
        if self._worker is not None and self._sampler.rows:
            self._worker.submit((self._sampler.samples(), self._copies(), True))

    def wait_until_written(self, timeout: float | None) -> None:
        """Wait until everything sampled so far is drawn."""
        if self._worker is not None:
            self._worker.wait(timeout)

    def on_finish(self) -> None:
        """Draw the rest and finish the file, or clear the page."""
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
        """Hand the samples to the drawing thread if it would draw them now."""
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
        """Number of video frames that the next drawing fills."""
        copies, self._frames = self._frames_due - self._frames, self._frames_due
        return copies

    def on_open(self) -> None:
        """Allocate the ring buffers and open the page, window or file."""
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
    """Where to draw: page, window, png or mp4; raise if that is not possible here."""
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
                f'{user}: backend="window" cannot open a window. {reason} Use "page", or "file"'
                " with a path."
            )
        return "window"
    if not cfg.path.lower().endswith(".mp4"):
        return "png"
    find_ffmpeg(user)
    return "mp4"
