"""Buttons, sliders and figures on the web page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from mjlab_rec.viewer.frame import Frame
from mjlab_rec.viewer.recording import describe, toggle_recorder

if TYPE_CHECKING:
    from mjlab_rec.viewer.playback import Playback
    from mjlab_rec.viewer.web_scene import WebScene

_SPEEDS: tuple[float | None, ...] = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, None)


class RunControls:
    """Pause, single step, speed, reset and the end of the run."""

    def __init__(self, gui: Any, playback: Playback, end: Callable[[], None]) -> None:
        self._playback = playback
        self._folder = gui.add_folder("Run")
        with self._folder:
            self._status = gui.add_markdown("Waiting for the first step.")
            self._pause = gui.add_button("Pause", hint="Stop stepping, or continue.")
            step = gui.add_button("Single step", hint="Take one step, then pause.")
            reset = gui.add_button(
                "Reset", hint="Start a new episode: here, or in all environments if all are shown."
            )
            speeds = dict.fromkeys([*_SPEEDS, playback.speed])
            self._speeds = {_speed_name(speed): speed for speed in speeds}
            self._speed = gui.add_dropdown(
                "Speed", list(self._speeds), initial_value=_speed_name(playback.speed)
            )
            finish = gui.add_button("End the run", color="red", hint="Like Ctrl-C in the terminal.")
        self._pause.on_click(lambda _: playback.toggle_pause())
        step.on_click(lambda _: playback.single_step())
        reset.on_click(lambda _: playback.reset_shown())
        self._speed.on_update(by_user(self._set_speed))
        finish.on_click(lambda _: end())

    def draw(self, frame: Frame) -> None:
        """Show the state of the run."""
        label = "Resume" if frame.paused else "Pause"
        if self._pause.label != label:
            self._pause.label = label
        pace = "paused" if frame.paused else f"{frame.measured_speed:.2f}× real time"
        if frame.where:
            content = f"**{frame.where}**  \n{pace}"
            if self._status.content != content:
                self._status.content = content
            return
        content = (
            f"**Step {frame.steps:,}** · {frame.seconds:,.2f} s · {pace}  \n"
            f"Environment {frame.shown}: step {frame.episode_step:,} of its episode"
        )
        if self._status.content != content:
            self._status.content = content

    def close(self) -> None:
        """Take it off the page."""
        self._folder.remove()

    def _set_speed(self) -> None:
        self._playback.speed = self._speeds[self._speed.value]


class ShowControls:
    """Choice of the environments shown and of the camera."""

    def __init__(self, gui: Any, playback: Playback, scene: WebScene, max_envs: int) -> None:
        count = playback.env.num_envs
        self._playback = playback
        self._folder: Any = None
        self._chooser: Any = None
        self._shown = playback.shown
        if count == 1 and not scene.can_follow:
            return
        self._folder = gui.add_folder("Show")
        with self._folder:
            if count > 1:
                self._chooser = gui.add_slider(
                    "Environment", min=0, max=count - 1, step=1, initial_value=playback.shown
                )
                self._chooser.on_update(by_user(lambda: playback.show(int(self._chooser.value))))
                label = "All environments" if count <= max_envs else f"{max_envs} environments"
                show_all = gui.add_checkbox(label, initial_value=playback.shows_all)
                show_all.on_update(by_user(lambda: playback.show_all(show_all.value)))
            if scene.can_follow:
                follow = gui.add_checkbox("Camera follows", initial_value=scene.follows)
                follow.on_update(by_user(lambda: scene.follow(follow.value)))

    def draw(self, frame: Frame) -> None:
        """Show the current choice."""
        # Only what changed elsewhere: the user may be dragging the slider.
        if self._chooser is not None and self._shown != self._playback.shown:
            self._shown = self._chooser.value = self._playback.shown

    def close(self) -> None:
        """Take it off the page."""
        if self._folder is not None:
            self._folder.remove()


class RecordControls:
    """A button for each recorder that starts and stops it."""

    def __init__(self, gui: Any, playback: Playback) -> None:
        self._playback = playback
        self._folder = gui.add_folder("Record")
        self._buttons: dict[str, Any] = {}
        self._texts: dict[str, Any] = {}
        self._errors: dict[str, str | None] = {}
        with self._folder:
            for name in playback.env.recorder_manager.active_terms:
                cfg = getattr(playback.env.recorder_manager.get_term(name), "cfg", None)
                path = getattr(cfg, "path", None)
                hint = f"Writes to {path}" if path else None
                self._buttons[name] = gui.add_button(f"Start {name}", hint=hint)
                self._buttons[name].on_click(self._on_click(name))
                self._texts[name] = gui.add_markdown("")
            if not self._buttons:
                gui.add_markdown("No recorder is configured for this run.")

    def draw(self, frame: Frame) -> None:
        """Show the progress of each recorder."""
        for name, progress in frame.recorders.items():
            button, text = self._buttons[name], self._texts[name]
            recording = progress.state == "recording"
            label = f"{'Stop' if recording else 'Start'} {name}"
            if button.label != label:
                button.label = label
                button.color = "red" if recording else "green"
            content = describe(progress)
            # Only the names, because paths do not fit.
            content += "".join(f"  \n`{file.name}`" for file in progress.files[-3:])
            if self._errors.get(name):
                content += f"  \n**Failed:** {self._errors[name]}"
            if text.content != content:
                text.content = content

    def close(self) -> None:
        """Take it off the page."""
        self._folder.remove()

    def _on_click(self, name: str) -> Callable[[Any], None]:
        def toggle() -> None:
            self._errors[name] = toggle_recorder(self._playback.env, name)

        return lambda _: self._playback.request(toggle)


def _speed_name(speed: float | None) -> str:
    if speed is None:
        return "as fast as possible"
    return "1× (real time)" if speed == 1.0 else f"{speed:g}×"


def by_user(func: Callable[[], None]) -> Callable[[Any], None]:
    """Make a callback for user input that ignores what the program itself sets."""

    def callback(event: Any) -> None:
        if event.client_id is not None:
            func()

    return callback


def at_once_by_user(func: Callable[[], None]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """As ``by_user``, but called before a frame can set the control again.

    The page calls other functions in a thread of a pool, which may begin after the next frame.
    """

    async def callback(event: Any) -> None:
        if event.client_id is not None:
            func()

    return callback
