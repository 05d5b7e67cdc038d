"""Drawing and encoding the clips that a recorder captures, in a separate thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.mp4 import Mp4Writer
from mjlab_rec.data.worker import WRITER_NICENESS, Worker
from mjlab_rec.recorders.video.clips import Clip, grid_shape
from mjlab_rec.recorders.video.overlay import Overlay, OverlayData
from mjlab_rec.sim.renderer import Renderer
from mjlab_rec.utils.bitmap_text import draw_label, draw_text, letter_scale

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 5.0
_LINE = 255  # White, between the images of a grid.

OpenFile = Callable[[Clip, int, int], Mp4Writer]
"""Opens the file of a clip, given the width and height of its frames."""


@dataclass(frozen=True)
class Capture:
    """What some environments looked like at one moment."""

    env_ids: tuple[int, ...]
    data: Any
    """The argument of the renderer's ``draw``."""
    note: OverlayData | None
    """Data for the overlay; None draws no overlay."""


@dataclass
class DrawRequest:
    """Frames to draw and append to clips, and clips that are complete with them."""

    frames: list[tuple[Capture, list[Clip]]] = field(default_factory=list)
    done: list[Clip] = field(default_factory=list)
    end: bool = False
    """Whether it is the last one."""


class ClipWriter:
    """Draws frames, adds the overlay and encodes them, in a thread next to the simulation.

    No frame is left out: if too many wait to be drawn, the simulation waits.

    Args:
        renderer: Draws the environments; the clip writer owns and closes it.
        overlay: Adds text to the frames.
        open_file: Opens the files of clips.
        columns: Environments side by side in a grid. None makes it about as high as wide.
        max_pending: Maximum number of frames that wait to be drawn.
        name: The recorder's name, for messages.
    """

    def __init__(
        self,
        renderer: Renderer,
        overlay: Overlay,
        open_file: OpenFile,
        columns: int | None,
        max_pending: int,
        name: str,
    ) -> None:
        self.files: list[Path] = []
        """The files so far, those being written included."""
        self.stalled_s = 0.0
        """Seconds that the simulation waited."""
        self._renderer = renderer
        self._overlay = overlay
        self._open_file = open_file
        self._columns = columns
        self._max_pending = max_pending
        self._pending = 0
        self._room = threading.Condition()
        self._writers: dict[Clip, Mp4Writer] = {}
        self._finished_bytes = 0
        self._thread = Worker(name, self._work, release=self._release, niceness=WRITER_NICENESS)

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that draws."""
        return self._thread.forked

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._finished_bytes + sum(w.nbytes for w in list(self._writers.values()))

    def check(self) -> None:
        """Raise the thread's error, if there is one."""
        self._thread.check()

    def submit(self, request: DrawRequest) -> None:
        """Hand over captures; wait if too many are pending."""
        self._thread.check()
        with self._room:
            if self._pending >= self._max_pending:
                began = time.perf_counter()
                self._room.wait_for(lambda: self._pending < self._max_pending)
                self.stalled_s += time.perf_counter() - began
            self._pending += len(request.frames)
        self._thread.submit(request)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything submitted is drawn and all complete clips are complete files."""
        with self._reporting():
            self._thread.wait(timeout)

    def close(self) -> None:
        """Finish all clips, and raise the thread's error. Idempotent."""
        if self._thread.forked:
            return
        if self._thread.error is None:
            self._thread.submit(DrawRequest(end=True))
        with self._reporting():
            self._thread.finish()
        self._thread.check()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Log how far the drawing is, every few seconds, while the caller waits for it."""
        total, began, done = self._pending, time.monotonic(), threading.Event()

        def report() -> None:
            while not done.wait(_REPORT_EVERY_S):
                left, spent = self._pending, time.monotonic() - began
                drawn = total - left
                if not 0 < left < total:
                    continue
                logger.warning(
                    "%s: %d of %d frames left to draw, about %.0f s.",
                    *(self._thread.name, left, total, spent / drawn * left),
                )

        if total > 1:
            threading.Thread(target=report, name="video progress", daemon=True).start()
        try:
            yield
        finally:
            done.set()

    # -- in the drawing thread ---------------------------------------------------------------------

    def _work(self, request: DrawRequest) -> None:
        try:
            while request.frames:
                self._draw(*request.frames[0])
                self._count_off(request, 1)
            for clip in request.done:
                self._finish(clip)
        except BaseException:
            # After an error nothing more is drawn, but the files are finished.
            self._end(quietly=True)
            raise
        if request.end:
            self._end(quietly=False)

    def _release(self, request: DrawRequest) -> None:
        self._count_off(request, len(request.frames))

    def _count_off(self, request: DrawRequest, count: int) -> None:
        del request.frames[:count]
        with self._room:
            self._pending -= count
            self._room.notify_all()

    def _draw(self, capture: Capture, clips: list[Clip]) -> None:
        images = self._renderer.draw(capture.data)
        if capture.note is not None:
            images = np.ascontiguousarray(images)
            for image, lines in zip(images, self._overlay.lines(capture.note), strict=True):
                draw_text(image, lines)
        for clip in clips:
            rows = [capture.env_ids.index(env_id) for env_id in clip.env_ids]
            image = arrange([images[row] for row in rows], self._columns, clip.env_ids)
            if clip not in self._writers:
                height, width = image.shape[:2]
                self._writers[clip] = writer = self._open_file(clip, width, height)
                if writer.path not in self.files:
                    self.files.append(writer.path)
            self._writers[clip].write(image)

    def _finish(self, clip: Clip) -> None:
        writer = self._writers.get(clip)
        if writer is not None:  # A clip that ended before its first frame has no file.
            writer.close()
            self._finished_bytes += writer.nbytes
            del self._writers[clip]

    def _end(self, quietly: bool) -> None:
        errors = []
        for close in [*(lambda c=c: self._finish(c) for c in self._writers), self._renderer.close]:
            try:
                close()
            except Exception as error:
                errors.append(error)
        if errors and not quietly:
            raise errors[0]


def arrange(
    images: Sequence[np.ndarray], columns: int | None = None, env_ids: Sequence[int] = ()
) -> np.ndarray:
    """Arrange images of equal size in a grid, row by row; free cells are black.

    Lines over the edges separate them, and a number in the lower right corner says which
    environment it is. A single image stays as it is.

    Args:
        images: The images, (height, width, 3).
        columns: Images in a row. None makes the grid about as high as wide.
        env_ids: The environments' numbers; without them none are drawn.
    """
    if len(images) == 1:
        return images[0]
    columns, rows = grid_shape(len(images), columns)
    height, width = images[0].shape[:2]
    whole = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    line = letter_scale(height)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        cell = whole[top : top + height, left : left + width]
        cell[:] = image
        if env_ids:
            draw_label(cell, str(env_ids[i]))
        # Only between images: the first row and the first column have none.
        cell[: line * (top > 0)] = _LINE
        cell[:, : line * (left > 0)] = _LINE
    return whole
