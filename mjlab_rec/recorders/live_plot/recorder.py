"""The live plot: lines, images and vector fields of a running rollout, drawn beside it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mjlab_rec.data.mp4 import find_ffmpeg
from mjlab_rec.data.worker import Worker
from mjlab_rec.managers.recorder_manager import RecorderTerm
from mjlab_rec.recorders.about import about
from mjlab_rec.recorders.cfg import typed
from mjlab_rec.recorders.live_plot.cfg import LivePlotRecorderCfg
from mjlab_rec.recorders.live_plot.panels import Backend, Frame, Panel
from mjlab_rec.recorders.live_plot.sampler import Sampler, Snapshot
from mjlab_rec.recorders.shutdown import close_at_exit, closed
from mjlab_rec.utils.display import why_no_display
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

_LIVE_HZ = 10.0
_QUEUE = 32  # Frames of a video that may wait to be drawn.


class LivePlotRecorder(RecorderTerm):
    """Draws what happens while it happens: on a web page, in a window, or to a PNG or mp4 file.

    A step only copies its values into a ring on the device. Another thread draws, at its own rate,
    what is newest when it gets to it; what comes in between is not lost from the lines, only never
    drawn by itself. If no more steps are taken, ``flush()`` shows the very last ones.

    Subclasses may override ``make_backend`` to draw elsewhere.
    """

    cfg: LivePlotRecorderCfg

    rows_unit = "steps"

    def __init__(self, cfg: LivePlotRecorderCfg, env: ManagerBasedRlEnv) -> None:
        cfg = typed(cfg, LivePlotRecorderCfg)
        super().__init__(cfg, env)
        plots = cfg.check()
        self.rows = 0
        """Steps that were sampled."""
        self.dropped_rows = 0
        """Frames of a video that could not be drawn in time: the one before was held instead."""
        self._every = cfg.stride(env.step_dt)
        self._sampler = Sampler(env, plots, cfg.env, self._every, cfg.x)
        self.draws_random_numbers = self._sampler.has_functions
        self.where = _where(cfg)
        """Where it draws: page, window, png or mp4."""
        self.page = ""
        """Address of the web page that it draws on, or did before it was closed."""
        self._backend: Backend | None = None
        self._drawer: Worker[tuple[Snapshot, int, bool]] | None = None
        self._written: list[Path] = []
        self._ready = False  # Whether the next step continues what was read ahead.
        self._due = False  # Whether the step to come is sampled.
        self._mid_step = False
        self._frames = 0  # Frames of a video that were drawn, or will be.
        self._frames_due = 0
        if not cfg.autostart:
            super().stop()

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

    # -- what the environment calls ----------------------------------------------------------------

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """The last step of some episodes: read what the reset is about to wipe out."""
        if self._ready:
            self._after()
        self._mid_step = True

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """New episodes begin because the user says so; those within a step come later."""
        if not self._mid_step:
            self._look_ahead()

    def record_post_step(self) -> None:
        """A sample is complete; hand a copy of all to the drawing thread if it is idle."""
        was_reset, self._mid_step = self._mid_step, False
        if self._ready:
            if not was_reset:
                self._after()
            if self._due:
                self._sampler.complete(self._env.common_step_counter - 1, was_reset)
                self.rows += 1
                self._offer()
        self._look_ahead()

    def record_exception(self, error: BaseException) -> None:
        """A step failed: its sample is left out."""
        self._ready = self._mid_step = False

    def close(self) -> None:
        """Draw what is left and finish the file, or clear the page."""
        closed(self)
        drawer, self._drawer = self._drawer, None
        backend, self._backend = self._backend, None
        self._ready = False
        if drawer is None or backend is None or drawer.forked:
            return
        try:
            if drawer.error is None and self._sampler.rows:
                drawer.submit((self._sampler.snapshot(), self._copies(), True))
                drawer.wait()
        finally:
            drawer.finish()
            self._written += backend.files
        drawer.check()

    # -- what the user may call --------------------------------------------------------------------

    @torch.no_grad()
    def start(self) -> None:
        """Sample from the next step on: go on after ``pause()``, or begin a new recording."""
        super().start()
        if not self._env.obs_buf or self._mid_step or self._ready:
            return
        # Called by the user, so nobody keeps apart what the user's functions draw.
        rng = getattr(self._env, "rng", None) if self.draws_random_numbers else None
        with nullcontext() if rng is None else rng.rewound():
            self._look_ahead()

    def pause(self) -> None:
        """Leave out the steps from now on, until ``start()``: a gap in the lines."""
        super().pause()
        self._ready = False

    def stop(self) -> None:
        """Finish the file or clear the page. A later ``start()`` begins anew."""
        super().stop()
        self.close()

    def flush(self) -> None:
        """Draw everything sampled so far, and wait until it is done."""
        if self._drawer is not None and self._sampler.rows:
            self._drawer.submit((self._sampler.snapshot(), self._copies(), True))
            self._drawer.wait()

    @property
    def files(self) -> list[Path]:
        """What was written so far."""
        return self._written + ([] if self._backend is None else list(self._backend.files))

    @property
    def nbytes(self) -> int:
        """Size of all that was written so far."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    # -- samples -----------------------------------------------------------------------------------

    def _after(self) -> None:
        assert self._drawer is not None
        self._drawer.check()
        if self._due:
            self._sampler.after()

    def _look_ahead(self) -> None:
        """Decide whether the next step is sampled, and read what it starts from."""
        if self._drawer is None:
            self._prepare()
        self._ready = True
        self._due = self._env.common_step_counter % self._every == 0
        if self._due:
            self._sampler.before()

    def _offer(self) -> None:
        """Hand the samples to the drawing thread, if it would draw them now."""
        drawer = self._drawer
        assert drawer is not None
        if self.where != "mp4":
            if self._live and drawer.ready():
                drawer.submit((self._sampler.snapshot(), 1, False))
            return
        seconds = self._sampler.rows * self._every * self._env.step_dt
        due = math.ceil(seconds * self.cfg.fps - 1e-9)
        new, self._frames_due = due - self._frames_due, due
        if new and drawer.ready():
            drawer.submit((self._sampler.snapshot(), self._copies(), False))
        else:
            self.dropped_rows += new

    def _copies(self) -> int:
        """Frames of a video that the next picture takes up."""
        copies, self._frames = self._frames_due - self._frames, self._frames_due
        return copies

    def _prepare(self) -> None:
        """Allocate the rings and open the page, window or file, once all values can be read."""
        panels = self._sampler.prepare()
        self._frames = self._frames_due = 0
        backend = self._backend = self.make_backend(panels)
        page = getattr(backend, "page", None)
        if page is not None:
            self.page = page.url
        self._live = self.where in ("page", "window") or self.cfg.max_hz is not None

        def draw(item: tuple[Snapshot, int, bool]) -> None:
            snapshot, copies, final = item
            step = int(snapshot.steps[(snapshot.rows - 1) % len(snapshot.steps)])
            caption = f"step {step}, {step * self._env.step_dt:.2f} s"
            contents = self._sampler.contents(snapshot)
            backend.draw(Frame(caption=caption, contents=contents, copies=copies), final)

        film = self.where == "mp4"
        self._drawer = Worker(
            type(self).__name__,
            draw,
            doing="drawing",
            finish=backend.close,
            capacity=_QUEUE if film else 1,
            max_hz=None if film else (self.cfg.max_hz or _LIVE_HZ),
        )
        close_at_exit(self)


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
