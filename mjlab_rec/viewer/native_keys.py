"""The keys of the native window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mjlab_rec.viewer.commands import (
    CommandAxis,
    command_axes,
    hold_command,
    read_commands,
    release_command,
)
from mjlab_rec.viewer.recording import toggle_recorder

if TYPE_CHECKING:
    from mjlab_rec.viewer.native_figures import NativeFigures
    from mjlab_rec.viewer.playback import Playback

# GLFW's numbers of keys that MuJoCo's own window does not use.
_SPACE, _MINUS, _EQUAL = 32, 45, 61
_SIX, _SEVEN, _EIGHT, _NINE = 54, 55, 56, 57
_ENTER, _RIGHT, _LEFT, _DOWN, _UP = 257, 262, 263, 264, 265
_INSERT = 260
_PAGE_UP, _PAGE_DOWN, _HOME, _END, _DELETE = 266, 267, 268, 269, 261
_F8, _F9, _F10, _F11, _F12 = 297, 298, 299, 300, 301

_NUDGES = 20
"""A key press changes a command by this part of its range."""


class NativeKeys:
    """Keys that control a run. They arrive in the window's thread and act in the run's.

    Args:
        playback: What is controlled.
        figures: The plots in the window.
    """

    def __init__(self, playback: Playback, figures: NativeFigures) -> None:
        self._playback = playback
        self._recorder = self._axis = 0
        self._lists_keys = False
        self.actions: dict[int, tuple[str, str, Callable[[], None]]] = {
            _F12: ("F12", "show or hide the keys", self._toggle_list),
            _SPACE: ("Space", "pause or continue", playback.toggle_pause),
            _RIGHT: ("Right", "single step", playback.single_step),
            _ENTER: ("Enter", "reset", playback.reset_shown),
            _EQUAL: ("=", "twice as fast", lambda: self._scale_speed(2.0)),
            _MINUS: ("-", "half as fast", lambda: self._scale_speed(0.5)),
            _END: ("End", "as fast as possible, or real time", self._toggle_speed),
            _PAGE_UP: ("Page up", "previous environment", lambda: self._go(-1)),
            _PAGE_DOWN: ("Page down", "next environment", lambda: self._go(1)),
            _HOME: (
                *("Home", "show all environments, or one"),
                lambda: playback.show_all(not playback.shows_all),
            ),
            _INSERT: (
                *("Insert", "show or hide what terms and sensors draw"),
                lambda: playback.show_debug_vis(not playback.shows_debug_vis),
            ),
            _F8: ("F8", "show or hide the plots", lambda: _toggle_figures(figures)),
            _F9: ("F9", "plot another observation", figures.next_term),
            _F10: ("F10", "start or stop the recorder", self._record),
            _F11: ("F11", "choose another recorder", self._next_recorder),
        }
        if playback.env.command_manager.active_terms:
            self.actions |= {
                _UP: ("Up", "greater command", lambda: self._nudge(1)),
                _DOWN: ("Down", "smaller command", lambda: self._nudge(-1)),
                _LEFT: ("Left", "choose another number of the command", self._next_axis),
                _DELETE: ("Delete", "let the task choose the command", self._release),
            }

        if (timeline := playback.timeline) is not None:
            for key in (_F10, _F11, _INSERT):  # MuJoCo cuts off longer lists.
                del self.actions[key]
            seek, tenth = playback.seek, max(1, timeline.length // 10)
            self.actions |= {
                _LEFT: (
                    *("Left", "single step back"),
                    lambda: seek(lambda t: t.position - 1, pause=True),
                ),
                _UP: ("Up", "start of this episode, or the one before", lambda: self._jump(-1)),
                _DOWN: ("Down", "next episode", lambda: self._jump(1)),
                _SIX: ("6", "back by a tenth", lambda: seek(lambda t: t.position - tenth)),
                _SEVEN: ("7", "ahead by a tenth", lambda: seek(lambda t: t.position + tenth)),
                _EIGHT: ("8", "backwards or forwards", self._turn),
                _NINE: ("9", "at the end begin again, or stop", self._loop),
            }
        if playback.checkpoints is not None:
            self.actions |= {
                _EIGHT: ("8", "play the checkpoint before", lambda: self._switch(-1)),
                _NINE: ("9", "play the checkpoint after", lambda: self._switch(1)),
            }

    def press(self, key: int) -> None:
        """Handle a key press. Called in the window's thread, so nothing here may fail."""
        if key in self.actions:
            self._playback.request(self.actions[key][2])

    def help(self) -> list[tuple[str, str]]:
        """Return the keys and their actions, and the recorder and command that they act on."""
        plays = self._plays()
        if not self._lists_keys:
            return [("F12", "list the keys"), *plays]
        lines = [(name, what) for name, what, _ in self.actions.values()]
        if (recorder := self._recorder_name()) is not None:
            lines.append(("F10 records", recorder))
        if axes := self._axes():
            term, _, axis = axes[self._axis % len(axes)]
            lines.append(("Up, Down change", f"{term} {axis.label}"))
        return lines + plays

    def _jump(self, by: int) -> None:
        self._playback.seek(lambda timeline: timeline.jump(by))

    def _turn(self) -> None:
        if (timeline := self._playback.timeline) is not None:
            timeline.backwards = not timeline.backwards

    def _loop(self) -> None:
        if (timeline := self._playback.timeline) is not None:
            timeline.loop = not timeline.loop

    def _toggle_list(self) -> None:
        self._lists_keys = not self._lists_keys

    def _scale_speed(self, factor: float) -> None:
        self._playback.speed = (self._playback.speed or 1.0) * factor

    def _toggle_speed(self) -> None:
        self._playback.speed = 1.0 if self._playback.speed is None else None

    def _go(self, by: int) -> None:
        self._playback.show((self._playback.shown + by) % self._playback.env.num_envs)

    def _plays(self) -> list[tuple[str, str]]:
        """The checkpoint that plays, and why another one does not."""
        checkpoints = self._playback.checkpoints
        if checkpoints is None:
            return []
        failed = [("failed", checkpoints.error)] if checkpoints.error else []
        return [("plays", checkpoints.current), *failed]

    def _switch(self, by: int) -> None:
        checkpoints = self._playback.checkpoints
        assert checkpoints is not None
        if (name := checkpoints.neighbour(by)) is not None:
            self._playback.switch(name)

    def _recorder_name(self) -> str | None:
        names = self._playback.env.recorder_manager.active_terms
        return names[self._recorder % len(names)] if names else None

    def _record(self) -> None:
        if (name := self._recorder_name()) is not None:
            toggle_recorder(self._playback.env, name)

    def _next_recorder(self) -> None:
        self._recorder += 1

    def _axes(self) -> list[tuple[str, int, CommandAxis]]:
        manager = self._playback.env.command_manager
        return [
            (name, index, axis)
            for name in read_commands(self._playback.env, self._playback.shown)
            for index, axis in enumerate(command_axes(manager.get_term(name)))
        ]

    def _next_axis(self) -> None:
        self._axis += 1

    def _nudge(self, direction: int) -> None:
        env, shown = self._playback.env, self._playback.shown
        if axes := self._axes():
            term, index, axis = axes[self._axis % len(axes)]
            values = list(read_commands(env, shown)[term].values)
            value = values[index] + direction * (axis.high - axis.low) / _NUDGES
            values[index] = min(max(value, axis.low), axis.high)
            hold_command(env, term, shown, values)

    def _release(self) -> None:
        env, shown = self._playback.env, self._playback.shown
        for name in read_commands(env, shown):
            release_command(env, name, shown)


def _toggle_figures(figures: NativeFigures) -> None:
    figures.visible = not figures.visible
