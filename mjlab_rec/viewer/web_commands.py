"""Controls of commands on the web page: sliders that set them by hand, or a term's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mjlab_rec.managers.command_manager import CommandTerm
from mjlab_rec.utils.string import nearest
from mjlab_rec.viewer.commands import command_axes, hold_command, release_command
from mjlab_rec.viewer.frame import Frame
from mjlab_rec.viewer.web_controls import at_once_by_user

if TYPE_CHECKING:
    from mjlab_rec.viewer.playback import Playback

logger = logging.getLogger(__name__)


class CommandControls:
    """Sliders that set the command of the environment shown, or what the term's class puts there.

    Args:
        server: The ``viser.ViserServer``.
        playback: What is controlled.
        names: The command terms.
    """

    def __init__(self, server: Any, playback: Playback, names: list[str]) -> None:
        gui = server.gui
        self._playback = playback
        self._paused: bool | None = None
        self._folder: Any = None
        self._held: dict[str, Any] = {}
        self._sliders: dict[str, list[Any]] = {}
        self._errors: dict[str, Any] = {}
        self._shown: int | None = None
        # The user's last change to each environment's term, until a frame shows it: frames read
        # before that would move the sliders back while the user drags them.
        self._wanted: dict[tuple[int, str], bool] = {}
        if not names:
            return
        self._folder = gui.add_folder("Commands")
        with self._folder:
            for name in names:
                term = playback.env.command_manager.get_term(name)
                if type(term).create_gui is not CommandTerm.create_gui:
                    term.create_gui(
                        *(name, server, lambda: playback.shown),
                        on_change=lambda: None,  # What is drawn is read again all the time.
                        request_action=lambda *action: request_action(playback, *action),
                    )
                    continue
                with gui.add_folder(name):
                    self._add(gui, name)

    def draw(self, frame: Frame) -> None:
        """Make the sliders follow the command where it is not set by hand."""
        is_another = frame.shown != self._shown
        self._shown = frame.shown
        for name, state in frame.commands.items():
            if name not in self._held:
                continue
            key = frame.shown, name
            if self._wanted.get(key, state.held) != state.held:
                continue
            self._wanted.pop(key, None)
            if self._held[name].value != state.held:
                self._held[name].value = state.held
            if is_another or not state.held:
                for slider, value in zip(self._sliders[name], state.values, strict=True):
                    value = min(max(value, slider.min), slider.max)
                    if abs(value - slider.value) >= slider.step:
                        slider.value = value

    def follow_pause(self) -> None:
        """Tell the terms if the run was paused or continues. Call it in the stepping thread."""
        if self._paused != self._playback.paused:
            self._paused = self._playback.paused
            self._playback.env.command_manager.on_viewer_pause(self._paused)

    def close(self) -> None:
        """Remove it from the page."""
        if self._folder is not None:
            self._folder.remove()

    def _add(self, gui: Any, name: str) -> None:
        term = self._playback.env.command_manager.get_term(name)
        held = gui.add_checkbox("Set by hand", initial_value=False)
        held.on_update(at_once_by_user(lambda: self._ask(name, hold=held.value)))
        self._held[name] = held
        self._sliders[name] = []
        for axis in command_axes(term):
            slider = gui.add_slider(
                *(axis.label, axis.low, axis.high),
                step=(axis.high - axis.low) / 200,
                initial_value=min(max(0.0, axis.low), axis.high),
            )
            slider.on_update(at_once_by_user(lambda: self._ask(name, hold=True)))
            self._sliders[name].append(slider)
        self._errors[name] = gui.add_markdown("", visible=False)

    def _ask(self, name: str, hold: bool) -> None:
        env, shown = self._playback.env, self._playback.shown
        self._wanted[shown, name] = hold
        values = [float(slider.value) for slider in self._sliders[name]]

        def set_command() -> None:
            if not hold:
                release_command(env, name, shown)
            elif (error := hold_command(env, name, shown, values)) is not None:
                self._wanted.pop((shown, name), None)
                self._errors[name].content = error
                self._errors[name].visible = True

        self._playback.request(set_command)


def request_action(playback: Playback, name: str, payload: Any = None) -> None:
    """Do what the controls of a command ask the viewer for; any thread may call it.

    Args:
        playback: What is controlled.
        name: "CUSTOM" with a payload ``{"type": "gui_reset", "all_envs": bool}``, or "RESET",
            "TOGGLE_PAUSE", "SINGLE_STEP", "TOGGLE_DEBUG_VIS", "TOGGLE_SHOW_ALL_ENVS".
        payload: See there.
    """
    if isinstance(payload, dict) and payload.get("type") == "gui_reset":
        all_envs = payload.get("all_envs", False)
        playback.reset(None if all_envs else [playback.shown], from_gui=True)
        return
    actions: dict[str, Callable[[], None]] = {
        "RESET": playback.reset_shown,
        "TOGGLE_PAUSE": playback.toggle_pause,
        "SINGLE_STEP": playback.single_step,
        "TOGGLE_DEBUG_VIS": lambda: playback.show_debug_vis(not playback.shows_debug_vis),
        "TOGGLE_SHOW_ALL_ENVS": lambda: playback.show_all(not playback.shows_all),
    }
    if name in actions:
        actions[name]()
    else:
        logger.warning(
            "The controls of a command asked for %r, which this viewer does not know. %s",
            *((name, payload), nearest(name, [*actions, "CUSTOM"])),
        )
