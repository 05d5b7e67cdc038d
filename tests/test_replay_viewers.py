"""The seek bars of both viewers: what they show of a recording, and what they ask for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import PATIENCE_S, patiently
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import MemoryRecorderCfg
from mjlab_rec.replay.recorded_env import RecordedEnv
from mjlab_rec.viewer.native_figures import NativeFigures, seek_bar
from mjlab_rec.viewer.native_keys import NativeKeys
from mjlab_rec.viewer.playback import Playback
from mjlab_rec.viewer.timeline import Timeline

LEFT, UP, DOWN, SIX, SEVEN, EIGHT, NINE, F10 = 263, 265, 264, 54, 55, 56, 57, 299


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    recorders: Any = {"log": MemoryRecorderCfg(channels=("action", "reward", "state"))}
    with ManagerBasedRlEnv(cart_cfg(2, steps=(6, 9), recorders=recorders)) as env:
        env.reset()
        for action in actions(30, 2):
            env.step(action)
        return env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture
def shown(rollouts) -> Any:
    """A recording of three episodes that is played, paused at first."""
    env: Any = RecordedEnv(rollouts, [0, 1, 2])
    env.reset()
    playback = Playback(env, lambda obs: obs, wait=lambda _: None)
    playback.pause()
    return playback


def at(playback: Playback) -> int:
    assert isinstance(playback.timeline, Timeline)
    return playback.timeline.position


def test_keys_move_in_a_recording(shown):
    keys = NativeKeys(shown, NativeFigures(shown.timeline))
    starts, length = shown.timeline.starts, shown.timeline.length

    def press(*pressed: int) -> int:
        for key in pressed:
            keys.press(key)
            shown._serve()
            shown._serve()  # What the first request asks for.
        return at(shown)

    assert press(DOWN) == starts[1]
    assert press(DOWN, LEFT) == starts[2] - 1
    assert press(UP) == starts[1] and press(UP) == starts[0]
    assert press(SEVEN, SEVEN) == 2 * (length // 10)
    assert press(SIX) == length // 10
    press(EIGHT, NINE)
    assert shown.timeline.backwards and shown.timeline.loop
    assert F10 not in keys.actions


def test_the_window_draws_the_part_that_is_over(shown):
    shown.timeline.seek(5)
    figure = seek_bar(shown.timeline)
    assert figure.linedata[0, :4].tolist() == pytest.approx([0, 0.5, 5, 0.5])
    marks = [figure.linedata[2 + i, 0] for i in range(2)]
    assert marks == shown.timeline.starts[1:]
    placed = NativeFigures(shown.timeline).placed(800, 600)
    assert len(placed) == 3 and placed[0][0].width > 700
    assert placed[1][0].bottom > placed[0][0].bottom + placed[0][0].height


class Page:
    """Makes controls as viser does, without a page; `user` sets what a user would."""

    def __init__(self) -> None:
        self.handles: dict[str, Any] = {}

    def add_folder(self, name: str) -> Any:
        class Folder:
            removed = False

            def __enter__(self) -> None: ...
            def __exit__(self, *_: object) -> None: ...
            def remove(self) -> None:
                self.removed = True

        self.handles["folder"] = Folder()
        return self.handles["folder"]

    def _add(self, name: str, value: Any, **given: Any) -> Any:
        handle = SimpleNamespace(value=value, callbacks=[], **given)
        handle.on_update = handle.on_click = handle.callbacks.append
        self.handles[name] = handle
        return handle

    def add_slider(self, name: str, *, initial_value: int, **given: Any) -> Any:
        return self._add(name, initial_value, **given)

    def add_checkbox(self, name: str, *, initial_value: bool) -> Any:
        return self._add(name, initial_value)

    def add_button_group(self, name: str, options: tuple[str, ...]) -> Any:
        return self._add(name, options[0])

    def user(self, name: str, value: Any) -> None:
        handle = self.handles[name]
        handle.value = value
        for callback in handle.callbacks:
            called = callback(SimpleNamespace(client_id=0))
            if called is not None:  # It must not wait for anything.
                with pytest.raises(StopIteration):
                    called.send(None)


def test_the_page_seeks_and_follows(shown):
    from mjlab_rec.viewer.web_timeline import TimelineControls

    page = Page()
    controls = TimelineControls(page, shown)
    frame: Any = None
    bar, starts = page.handles["Seek"], shown.timeline.starts
    assert bar.max == shown.timeline.length - 1 and bar.marks == tuple(starts)
    page.user("Seek", 7)
    bar.value = 9  # The user drags on, before the first wish is fulfilled.
    controls.draw(frame)
    assert bar.value == 9
    shown._serve()
    assert at(shown) == 7
    controls.draw(frame)
    assert bar.value == 7
    for button, position in (("next", starts[2]), ("previous", starts[1])):
        page.user("Episode", button)
        shown._serve()
        assert at(shown) == position
    page.user("Episode", "end")
    shown._serve()
    assert at(shown) == starts[2] - 1
    page.user("State", "back")
    shown._serve()
    assert at(shown) == starts[2] - 2 and shown.paused
    page.user("Loop", True)
    page.user("Backwards", True)
    assert shown.timeline.loop and shown.timeline.backwards
    controls.close()
    assert page.handles["folder"].removed


def test_a_click_is_not_undone_by_a_frame_before_it_is_known(shown):
    from mjlab_rec.viewer.web_timeline import TimelineControls

    page = Page()
    controls = TimelineControls(page, shown)
    bar, frame = page.handles["Seek"], SimpleNamespace()
    bar.value = 11  # The page has taken the click over, and not yet called what it leads to.
    controls.draw(frame)  # pyright: ignore[reportArgumentType]
    page.user("Seek", bar.value)
    shown._serve()
    assert at(shown) == 11
    controls.draw(frame)  # pyright: ignore[reportArgumentType]
    assert bar.value == 11


def test_an_environment_has_no_seek_bar(shown):
    from mjlab_rec.viewer.web_timeline import TimelineControls

    page = Page()
    playback: Any = SimpleNamespace(timeline=None)
    controls = TimelineControls(page, playback)
    controls.draw(None)  # type: ignore[arg-type]
    controls.close()
    assert not page.handles


def test_at_the_end_it_pauses_and_resuming_begins_again(shown):
    shown.resume()
    shown.run(lambda: shown.paused)
    assert shown.timeline.at_end
    shown.resume()
    shown._serve()
    assert at(shown) == 0 and not shown.paused


@pytest.fixture
def watched(rollouts) -> Iterator[Any]:
    """A page of a recording that is paused, in a thread."""
    pytest.importorskip("mjviser", reason="needs mjviser")
    from mjlab_rec.viewer.web import WebViewer

    env: Any = RecordedEnv(rollouts, [0, 1, 2])
    env.reset()
    viewer = WebViewer(env, port=18180)
    playback = Playback(env, lambda obs: obs, viewers=[viewer], speed=1.0)
    playback.pause()
    stop = threading.Event()
    thread = threading.Thread(target=playback.run, args=(stop.is_set,))
    thread.start()
    yield playback
    stop.set()
    thread.join(PATIENCE_S)
    playback.close()


def until(true: Callable[[], bool], act: Callable[[], None]) -> None:
    """Act until it has the effect: a page that has just opened may miss what comes too early."""
    for _ in patiently(pause_s=1.0):
        if true():
            return
        act()


def test_the_bar_in_a_browser(watched, visit, keep_screenshot):
    page = visit(watched.viewers[0].url)
    bar = page.get_by_role("slider").first
    until(lambda: at(watched) == watched.timeline.length - 1, lambda: bar.press("End"))
    start = page.get_by_role("button", name="start", exact=True)
    until(lambda: at(watched) == watched.timeline.starts[2], start.click)
    page.get_by_text("Episode 2 (environment").wait_for()
    until(lambda: at(watched) == 0, lambda: bar.press("Home"))
    keep_screenshot(page, "replay")
