"""The seek bar on the web page, for recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mjlab_rec.viewer.frame import Frame
from mjlab_rec.viewer.web_controls import at_once_by_user, by_user

if TYPE_CHECKING:
    from mjlab_rec.viewer.playback import Playback
    from mjlab_rec.viewer.timeline import Timeline

_MOST_MARKS = 12


class TimelineControls:
    """A bar of all states, buttons to neighbouring episodes and states, direction and loop."""

    def __init__(self, gui: Any, playback: Playback) -> None:
        self._playback = playback
        self._folder: Any = None
        self._timeline = timeline = playback.timeline
        self._shown = 0 if timeline is None else timeline.position
        self._asked = 0  # Seeks that were asked for and not yet done.
        if timeline is None:
            return
        self._folder = gui.add_folder("Recording")
        with self._folder:
            self._bar = gui.add_slider(
                "Seek",
                min=0,
                max=max(timeline.length - 1, 1),
                step=1,
                initial_value=timeline.position,
                marks=self._marks(timeline),
            )
            jumps = gui.add_button_group("Episode", ("previous", "start", "end", "next"))
            steps = gui.add_button_group("State", ("back", "forward"))
            self._backwards = gui.add_checkbox("Backwards", initial_value=timeline.backwards)
            self._loop = gui.add_checkbox("Loop", initial_value=timeline.loop)
        self._bar.on_update(at_once_by_user(self._slide))
        jumps.on_click(by_user(lambda: self._jump(jumps.value)))
        steps.on_click(by_user(lambda: self._move(-1 if steps.value == "back" else 1)))
        self._backwards.on_update(by_user(self._turn))
        self._loop.on_update(by_user(self._set_loop))

    def draw(self, frame: Frame) -> None:
        """Show the position, unless the user is moving the bar."""
        timeline = self._timeline
        if timeline is None or self._asked:
            return
        # Not the frame's, which may be older than what the user has done since. And only what has
        # changed, because the user may have moved the bar, which is not known here yet.
        if timeline.position != self._shown:
            self._shown = self._bar.value = timeline.position
        for handle, value in (
            (self._backwards, timeline.backwards),
            (self._loop, timeline.loop),
        ):
            if handle.value != value:
                handle.value = value

    def close(self) -> None:
        """Take it off the page."""
        if self._folder is not None:
            self._folder.remove()

    def _slide(self) -> None:
        position = int(self._bar.value)
        self._asked += 1

        def find(timeline: Timeline) -> int:
            self._asked -= 1
            return position

        self._playback.seek(find)

    def _jump(self, where: str) -> None:
        finds: dict[str, Callable[[Timeline], int]] = {
            "previous": lambda timeline: timeline.jump(-1),
            "start": lambda timeline: timeline.jump(0),
            "end": lambda timeline: timeline.section_end,
            "next": lambda timeline: timeline.jump(1),
        }
        self._playback.seek(finds[where])

    def _move(self, by: int) -> None:
        self._playback.seek(lambda timeline: timeline.position + by, pause=True)

    def _turn(self) -> None:
        if self._timeline is not None:
            self._timeline.backwards = self._backwards.value

    def _set_loop(self) -> None:
        if self._timeline is not None:
            self._timeline.loop = self._loop.value

    @staticmethod
    def _marks(timeline: Timeline) -> tuple[int, ...] | None:
        """Where episodes begin, if that is few places."""
        few = 1 < len(timeline.starts) <= _MOST_MARKS
        return tuple(timeline.starts) if few else None
