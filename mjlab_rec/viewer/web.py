"""The viewer in a browser: robots, controls, plots and record buttons on a web page."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.worker import Worker
from mjlab_rec.utils.extras import UnavailableError, require
from mjlab_rec.utils.page import open_page
from mjlab_rec.viewer.frame import Frame, FrameReader

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.playback import Playback

logger = logging.getLogger(__name__)

_USER = "The web viewer"
_in_use: weakref.WeakSet[Any] = weakref.WeakSet()  # Servers that show an environment.


class WebViewer:
    """Shows an environment on a web page, which also works on machines without a display.

    While no browser has it open, it does nothing. Otherwise it copies poses and numbers a few times
    a second, between steps; everything else happens in its own thread, which skips frames that it
    has no time for.

    Args:
        env: The environment.
        port: Where the page is served; if that is taken, the next free port is used.
        host: Address to listen on. By default only this machine reaches the page.
        rate_hz: The highest rate at which the page is updated.
        max_envs: The most environments that are shown at once.
    """

    def __init__(
        self,
        env: ManagerBasedRlEnv,
        port: int = 8080,
        host: str = "127.0.0.1",
        rate_hz: float = 30.0,
        max_envs: int = 256,
    ) -> None:
        require("viser", "web", _USER)
        require("mjviser", "web", _USER)
        self._env = env
        self._page = open_page(_USER, port, host)
        if self._page.server in _in_use:
            self._page.close()
            raise UnavailableError(
                f"There is another viewer on the page at port {port}. Choose another port."
            )
        _in_use.add(self._page.server)
        self._period = 1.0 / rate_hz
        self._max_envs = max_envs
        self._next = 0.0
        self._watched = False
        self._parts: list[Any] = []
        self._worker: Worker[Frame] | None = None
        self._ended = self._closed = False

    @property
    def url(self) -> str:
        """Address of the page for a browser."""
        return self._page.url

    @property
    def closed_by_user(self) -> bool:
        """Whether "End the run" was pressed."""
        return self._ended

    def open(self, playback: Playback) -> None:
        """Put everything on the page."""
        from mjlab_rec.viewer.web_cameras import WebCameras
        from mjlab_rec.viewer.web_checkpoints import CheckpointControls
        from mjlab_rec.viewer.web_commands import CommandControls
        from mjlab_rec.viewer.web_controls import RecordControls, RunControls, ShowControls
        from mjlab_rec.viewer.web_debug import DebugControls
        from mjlab_rec.viewer.web_plots import WebPlots
        from mjlab_rec.viewer.web_scene import WebScene
        from mjlab_rec.viewer.web_timeline import TimelineControls

        server = self._page.server
        self._clock = playback.clock
        self._reader = FrameReader(playback, self._max_envs)
        first = self._reader.read()
        self._scene = scene = WebScene(server, playback, first, _USER)
        self._parts = [
            scene,
            RunControls(server.gui, playback, end=self._end),
            TimelineControls(server.gui, playback),
            CheckpointControls(server.gui, playback),
            ShowControls(server.gui, playback, scene, self._max_envs),
            DebugControls(server.gui, playback),
            RecordControls(server.gui, playback),
        ]
        self._commands = CommandControls(server, playback, list(first.commands))
        self._parts.append(self._commands)
        self._plots = WebPlots(server.gui)
        self._parts += [self._plots, WebCameras(server.gui, playback.env, self._reader)]
        self._draw(first)
        self._worker = Worker("WebViewer", self._draw, doing="drawing", capacity=1)
        logger.info("The viewer is at %s", self.url)

    def update(self) -> None:
        """Show the current state, if it is time and a browser has the page open."""
        if self._worker is None or (now := self._clock()) < self._next:
            return
        self._next = now + self._period
        self._commands.follow_pause()
        was_watched, self._watched = self._watched, bool(self._page.server.get_clients())
        if self._watched and not was_watched:
            self._plots.restart()  # Not watched for a while: no line may cross the gap.
        self._worker.check()
        if self._watched and self._worker.ready():
            self._worker.submit(self._reader.read())

    def close(self) -> None:
        """Remove everything from the page; its last user closes it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._worker is not None:
                self._worker.finish()
            if self._page.shared:
                for part in self._parts:
                    part.close()
        finally:
            _in_use.discard(self._page.server)
            self._page.close()
        if self._worker is not None:
            self._worker.check()

    def _draw(self, frame: Frame) -> None:
        server = self._page.server
        with server.atomic():
            for part in self._parts:
                part.draw(frame)
        self._reader.apart = self._scene.apart

    def _end(self) -> None:
        self._ended = True
