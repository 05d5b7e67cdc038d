"""Checkboxes on the web page for what terms, sensors and the terrain draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mjlab_rec.viewer.frame import Frame

if TYPE_CHECKING:
    from mjlab_rec.viewer.playback import Playback


class DebugControls:
    """A checkbox for all such drawings, and one for each thing that draws."""

    def __init__(self, gui: Any, playback: Playback) -> None:
        self._playback = playback
        self._folder: Any = None
        self._shown = playback.shows_debug_vis
        sources = playback.env.debug_vis_sources
        if not sources:
            return
        self._folder = gui.add_folder("Debug drawings")
        with self._folder:
            self._all = gui.add_checkbox(
                "Show", initial_value=playback.shows_debug_vis, hint="Arrows, frames and ghosts."
            )
            self._all.on_update(self._switch)
            for name in sources:
                self._add(gui, name)

    def draw(self, frame: Frame) -> None:
        """Follow what was switched elsewhere."""
        del frame
        # Only what changed elsewhere: the user may just have clicked.
        if self._folder is not None and self._shown != self._playback.shows_debug_vis:
            self._shown = self._all.value = self._playback.shows_debug_vis

    def close(self) -> None:
        """Take it off the page."""
        if self._folder is not None:
            self._folder.remove()

    def _switch(self, event: Any) -> None:
        if event.client_id is not None:
            self._shown = self._all.value
            self._playback.show_debug_vis(self._shown)

    def _add(self, gui: Any, name: str) -> None:
        hidden = self._playback.debug_vis_hidden
        box = gui.add_checkbox(name, initial_value=name not in hidden)
        box.on_update(lambda _: hidden.discard(name) if box.value else hidden.add(name))
