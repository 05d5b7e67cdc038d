"""The choice of a checkpoint on the web page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mjlab_rec.viewer.frame import Frame
from mjlab_rec.viewer.web_controls import by_user

if TYPE_CHECKING:
    from mjlab_rec.viewer.playback import Playback


class CheckpointControls:
    """A list of the run's checkpoints, if the policy is from one; new ones appear."""

    def __init__(self, gui: Any, playback: Playback) -> None:
        self._playback = playback
        self._checkpoints = playback.checkpoints
        self._folder: Any = None
        if self._checkpoints is None:
            return
        self._state = (self._checkpoints.current, self._checkpoints.error)
        self._folder = gui.add_folder("Policy")
        with self._folder:
            self._choice = gui.add_dropdown(
                "Checkpoint",
                self._options(),
                initial_value=self._checkpoints.current,
                hint="Play another one from here on. Those of a running training appear here.",
            )
            self._text = gui.add_markdown("", visible=False)
        self._choice.on_update(by_user(self._switch))

    def draw(self, frame: Frame) -> None:
        """Show new checkpoints, and the one that plays."""
        checkpoints = self._checkpoints
        if checkpoints is None:
            return
        options = self._options()
        if list(self._choice.options) != options:
            self._choice.options = options
        # Only if something happened: the user may just have chosen another one.
        if self._state != (now := (checkpoints.current, checkpoints.error)):
            self._state = now
            self._choice.value = checkpoints.current
            self._text.content = f"**Failed:** {checkpoints.error}" if checkpoints.error else ""
            self._text.visible = checkpoints.error is not None

    def close(self) -> None:
        """Take it off the page."""
        if self._folder is not None:
            self._folder.remove()

    def _options(self) -> list[str]:
        assert self._checkpoints is not None
        names = self._checkpoints.names()
        return names if self._checkpoints.current in names else [*names, self._checkpoints.current]

    def _switch(self) -> None:
        # A second failure is news, even if it says the same.
        self._state = (self._state[0], None)
        self._playback.switch(self._choice.value)
