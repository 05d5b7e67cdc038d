"""Live plots in a PNG file that is replaced atomically, or in a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mjlab_rec.data.files import IfExists, PathLock
from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg, frame_rate
from mjlab_rec.recorders.live_plot.panels import Frame, Panel
from mjlab_rec.recorders.live_plot.window import FigureProcess


class PngBackend:
    """Draws a PNG file, which is a complete image at every moment.

    Args:
        panels: The panels of each frame.
        title: Title of the figure.
        size: Width and height in pixels.
        path: The file.
        if_exists: What to do if it exists.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        title: str,
        size: tuple[int, int],
        path: Path,
        if_exists: IfExists,
    ) -> None:
        self.files: list[Path] = []
        self._path_lock = PathLock(path, if_exists, can_append=False)
        try:
            self._process = FigureProcess(panels, title, size, window=False)
        except BaseException:
            self._path_lock.release()
            raise

    def draw(self, frame: Frame, final: bool) -> None:
        """Replace the file."""
        path = self._path_lock.path
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._process.draw(frame, str(part.absolute()))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        self.files = [path]

    def close(self) -> None:
        """End the drawing process."""
        try:
            self._process.close()
        finally:
            self._path_lock.release()


class Mp4Backend:
    """Draws a video that runs in simulated time.

    Args:
        panels: The panels of each frame.
        title: Title of the figure.
        size: Width and height in pixels.
        path: The file.
        if_exists: What to do if it exists.
        fps: Frames per second.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        title: str,
        size: tuple[int, int],
        path: Path,
        if_exists: IfExists,
        fps: float,
    ) -> None:
        width, height = size
        ffmpeg = find_ffmpeg("LivePlotRecorder")
        self._writer = Mp4Writer(
            path, width, height, frame_rate(1 / fps), ffmpeg, if_exists=if_exists
        )
        self.files = [self._writer.path]
        try:
            self._process = FigureProcess(panels, title, size, window=False)
        except BaseException:
            self._writer.close()
            raise

    def draw(self, frame: Frame, final: bool) -> None:
        """Append a frame, repeated for its duration."""
        if frame.copies:
            _, pixels = self._process.draw(frame)
            for _ in range(frame.copies):
                self._writer.write(pixels)

    def close(self) -> None:
        """Finish the file and end the drawing process."""
        try:
            self._process.close()
        finally:
            self._writer.close()
