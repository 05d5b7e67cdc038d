"""The viewer in a window: opened on a virtual screen, photographed, used by keys, and closed."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from browser import read_png
from waiting import PATIENCE_S, patiently
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import CsvRecorderCfg
from mjlab_rec.viewer import make_viewer
from mjlab_rec.viewer.native_figures import NativeFigures
from mjlab_rec.viewer.native_keys import NativeKeys
from mjlab_rec.viewer.playback import Playback

SIZE = (1280, 900)

# GLFW's numbers.
SPACE, MINUS, EQUAL = 32, 45, 61
ENTER, DELETE, RIGHT, LEFT, DOWN, UP = 257, 261, 262, 263, 264, 265
PAGE_UP, PAGE_DOWN, HOME, END = 266, 267, 268, 269
F8, F9, F10, F11, F12 = 297, 298, 299, 300, 301

# The window needs a process of its own: its library keeps the display that it began with.
PROGRAM = """
import sys
import time
import torch
from waiting import PATIENCE_S
from worlds import cart_cfg
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import CsvRecorderCfg
from mjlab_rec.viewer import make_viewer
from mjlab_rec.viewer.playback import Playback

env = ManagerBasedRlEnv(
    cart_cfg(4, steps=(1000,), recorders={"table": CsvRecorderCfg(path=sys.argv[1])})
)
viewer = make_viewer("auto", env)
playback = Playback(env, lambda _: torch.ones(4, 1), viewers=[viewer])

def say(*words):
    print(*words, flush=True)
    return sys.stdin.readline().strip()

def steps(count):
    goal = playback.steps + count
    return lambda: playback.steps == goal

playback.run(steps(20))
playback.pause()
asked = iter(range(1000))
playback.run(lambda: next(asked) == 20)  # The window gets frames in pauses too.
say("drawn", type(viewer).__name__)
for key in (262, 262, 268, 301, 299, 265):  # Two steps, all environments, keys, record, command.
    viewer.keys.press(key)
goal = env.command_manager.get_term("goal")
hangs = time.monotonic() + PATIENCE_S
playback.run(  # Until everything was done, and the window has a cart and a pole of three others.
    lambda: (viewer._window.user_scn.ngeom >= 3 * 2 and playback.steps >= 22 and goal.held[0])
    or time.monotonic() > hangs
)
say(
    "pressed", playback.steps, playback.shows_all, viewer._window.user_scn.ngeom,
    env.recorder_manager.get_term("table").state, goal.held.tolist(),
)
viewer._window.close()  # As its user does.
say("ended", playback.run())
playback.close()
playback.close()
env.close()
print("closed", flush=True)
"""


@pytest.fixture
def screen() -> Iterator[str]:
    """A virtual screen, by the name for DISPLAY."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb (apt install xvfb)")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24"],
        pass_fds=(writing,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], PATIENCE_S)
        number = os.read(reading, 16).decode().strip() if ready else ""
        assert number, "Xvfb did not start."
        yield f":{number}"
    finally:
        os.close(reading)
        server.terminate()
        server.wait(PATIENCE_S)


@pytest.fixture
def photograph(screen: str, tmp_path: Path) -> Callable[[str], np.ndarray]:
    """Takes a picture of the screen."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg (apt install ffmpeg)")

    def photograph(name: str) -> np.ndarray:
        path = tmp_path / f"{name}.png"
        size = f"{SIZE[0]}x{SIZE[1]}"
        grab = ["-f", "x11grab", "-video_size", size, "-i", screen, "-frames:v", "1", str(path)]
        command = ["ffmpeg", "-y", "-loglevel", "error", *grab]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
        if folder := os.environ.get("MJLAB_REC_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
        return read_png(path)

    return photograph


def test_the_window_opens_draws_listens_to_keys_and_closes(screen, photograph, tmp_path):
    environment = {**os.environ, "DISPLAY": screen, "LIBGL_ALWAYS_SOFTWARE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    errors = (tmp_path / "errors").open("w")
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "table.csv")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert program.stdin is not None and program.stdout is not None

    def heard() -> str:
        assert program.stdout is not None
        return program.stdout.readline().strip() or (tmp_path / "errors").read_text()

    def go_on() -> None:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()

    try:
        assert heard() == "drawn NativeViewer"
        for _ in patiently():  # The window draws when it has time.
            first = photograph("native_start")
            # Text, figures and a cart: not one colour.
            if 0.005 < (first.max(axis=2) > 60).mean() < 0.5:
                break
        go_on()
        pressed = heard().split(maxsplit=5)
        assert pressed[:3] == ["pressed", "22", "True"]
        assert int(pressed[3]) >= 3 * 2
        assert pressed[4:] == ["stopped", "[True, False, False, False]"]
        for _ in patiently():
            second = photograph("native_keys")
            if (np.abs(first.astype(int) - second.astype(int)).max(axis=2) > 40).mean() > 0.005:
                break
        go_on()
        assert heard() == "ended closed"
        go_on()
        assert heard() == "closed"
        assert program.wait(PATIENCE_S) == 0, (tmp_path / "errors").read_text()
    finally:
        program.kill()
        program.wait(PATIENCE_S)
        program.stdin.close()
        program.stdout.close()
        errors.close()


def test_without_a_display_the_window_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(RuntimeError, match='There is no display.*choose the viewer "web"'):
        make_viewer("native", None)  # type: ignore[arg-type]


@pytest.fixture
def keyboard(tmp_path: Path) -> Iterator[Any]:
    """Keys without a window: `press` presses one and lets what it asks for happen."""
    recorders: Any = {
        name: CsvRecorderCfg(path=str(tmp_path / f"{name}.csv")) for name in ("a", "b")
    }
    with ManagerBasedRlEnv(cart_cfg(3, recorders=recorders)) as env:
        playback = Playback(env, lambda _: torch.zeros(3, 1), speed=1.0, wait=lambda _: None)
        playback.pause()
        figures = NativeFigures()
        keys = NativeKeys(playback, figures)

        def press(*pressed: int) -> None:
            for key in pressed:
                keys.press(key)
                rounds = iter(range(5))
                playback.run(lambda r=rounds: next(r) == 4)

        yield SimpleNamespace(env=env, playback=playback, keys=keys, figures=figures, press=press)


def test_keys_pause_step_reset_and_set_the_speed(keyboard):
    playback, press = keyboard.playback, keyboard.press
    press(RIGHT, RIGHT)
    assert playback.steps == 2
    press(ENTER)
    assert keyboard.env.episode_length_buf.tolist() == [0, 2, 2]
    press(EQUAL, EQUAL)
    assert playback.speed == 4.0
    press(MINUS)
    assert playback.speed == 2.0
    press(END)
    assert playback.speed is None
    press(END)
    assert playback.speed == 1.0
    press(SPACE)
    assert not playback.paused
    press(SPACE)
    assert playback.paused


def test_keys_go_through_the_environments(keyboard):
    playback, press = keyboard.playback, keyboard.press
    press(PAGE_DOWN)
    assert playback.shown == 1
    press(PAGE_UP, PAGE_UP)
    assert playback.shown == 2
    press(HOME)
    assert playback.shows_all
    press(RIGHT, ENTER)
    assert keyboard.env.episode_length_buf.tolist() == [0, 0, 0]


def test_keys_start_and_stop_the_recorder_that_was_chosen(keyboard):
    manager, press = keyboard.env.recorder_manager, keyboard.press
    press(F10)
    assert [manager.get_term(name).state for name in "ab"] == ["stopped", "recording"]
    press(F11, F10)
    assert [manager.get_term(name).state for name in "ab"] == ["stopped", "stopped"]
    press(F11, F10)
    assert [manager.get_term(name).state for name in "ab"] == ["recording", "stopped"]


def test_keys_change_and_release_a_command(keyboard):
    term, press = keyboard.env.command_manager.get_term("goal"), keyboard.press
    before = float(term.command[0, 0])
    press(UP)
    assert float(term.command[0, 0]) > before
    press(DOWN, LEFT)
    assert float(term.command[0, 0]) == pytest.approx(before, abs=1e-6)
    assert term.held.tolist() == [True, False, False]
    press(DELETE)
    assert not term.held.any()


def test_keys_that_mean_nothing_are_ignored_and_the_others_are_listed(keyboard):
    keyboard.press(88)
    assert keyboard.keys.help() == [("F12", "list the keys")]
    keyboard.press(F12, F8)
    assert not keyboard.figures.visible
    listed = dict(keyboard.keys.help())
    assert listed["Space"] == "pause or continue"
    assert listed["F10 records"] == "a"
    assert listed["Up, Down change"] == "goal 0"


def test_figures_hold_the_values_of_the_frames_and_go_into_the_corners(keyboard):
    from mjlab_rec.viewer.frame import FrameReader

    reader = FrameReader(keyboard.playback, 1)
    for _ in range(4):
        keyboard.press(RIGHT)
        keyboard.figures.add(reader.read())
    (left, rewards), (right, _) = keyboard.figures.placed(900, 600)
    assert left.left + left.width < right.left
    assert right.left + right.width <= 900
    assert list(rewards.linepnt[:3]) == [4, 4, 0]
    assert rewards.linedata[0, :8:2].tolist() == [1, 2, 3, 4]
    last = reader.read().rewards["height"]
    assert rewards.linedata[0, 7] == pytest.approx(last)
    keyboard.press(F8)
    assert keyboard.figures.placed(900, 600) == []
