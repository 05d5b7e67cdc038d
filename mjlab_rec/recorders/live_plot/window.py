"""Live plots in a matplotlib window, and the process that draws with matplotlib."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mjlab_rec.data.schema import DataError
from mjlab_rec.recorders.live_plot import figure
from mjlab_rec.recorders.live_plot.panels import Frame, Panel, arrow_scale

logger = logging.getLogger(__name__)

_NICENESS = 10
_PATIENCE_S = 10.0  # for the process to end after a request


class FigureProcess:
    """A process that draws frames with matplotlib while the caller waits.

    Args:
        panels: The panels of each frame.
        title: Title of the figure.
        size: Width and height in pixels.
        window: Whether it shows a window.
    """

    def __init__(
        self, panels: Sequence[Panel], title: str, size: tuple[int, int], window: bool
    ) -> None:
        self._panels = panels
        self._process = subprocess.Popen(
            # -P: do not import from its folder.
            [sys.executable, "-P", str(Path(figure.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C must reach only the simulation, which still has to draw.
            start_new_session=True,
        )
        with contextlib.suppress(OSError):  # The simulation has priority.
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        plain = [dataclasses.asdict(panel) for panel in panels]
        self._send({"panels": plain, "title": title, "size": size, "window": window})
        self._started = False

    def draw(self, frame: Frame, path: str | None = None) -> tuple[str, Any]:
        """Draw a frame, to a PNG file if a path is given.

        Returns:
            "ok" and the pixels, or "closed" if the user closed the window.
        """
        if not self._started:
            self._receive()
            self._started = True
        contents = [
            {**content, "scale": arrow_scale(content)} if panel.kind == "vectors" else content
            for panel, content in zip(self._panels, frame.contents, strict=True)
        ]
        self._send((frame.caption, contents, path))
        return self._receive()

    def close(self) -> None:
        """End the process. Idempotent."""
        process = self._process
        if process.returncode is not None and process.stdout is not None and process.stdout.closed:
            return
        assert process.stdin is not None and process.stdout is not None
        # Sent explicitly: a forked child may hold the other end of the pipe open.
        with contextlib.suppress(DataError):
            self._send(None)
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._ended() from None

    def _receive(self) -> tuple[str, Any]:
        assert self._process.stdout is not None
        try:
            word, value = pickle.load(self._process.stdout)
        except EOFError:
            raise self._ended() from None
        if word == "error":
            raise DataError(f"matplotlib failed:\n{value}")
        return word, value

    def _ended(self) -> DataError:
        return DataError(f"the drawing process ended (status {self._process.wait()}).")


class WindowBackend:
    """Draws in a window. Closing the window ends the drawing, not the rollout."""

    def __init__(self, panels: Sequence[Panel], title: str, size: tuple[int, int]) -> None:
        self.files: list[Path] = []
        self._process = FigureProcess(panels, title, size, window=True)
        self._open = True

    def draw(self, frame: Frame, final: bool) -> None:
        """Show a frame."""
        if not self._open:
            return
        word, _ = self._process.draw(frame)
        if word == "closed":
            self._open = False
            logger.info("The live plot's window was closed; nothing more is drawn.")

    def close(self) -> None:
        """Close the window."""
        self._process.close()
