"""Debug drawings in the viewers: what the page and the window are given, and who switches it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from debug_worlds import Goal, drawn_cfg, share
from test_viewer_native import photograph as photograph
from test_viewer_native import screen as screen
from test_viewer_web import Stage, button, changed, drawn
from test_viewer_web import canvas as canvas
from waiting import patiently, until
from worlds import cart_cfg

from mjlab_rec import cli
from mjlab_rec.commands import play
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.sim.debug_shapes import ARROW, KINDS
from mjlab_rec.sim.debug_visualizer import DebugVisualizer, shapes_of
from mjlab_rec.viewer.frame import FrameReader
from mjlab_rec.viewer.native_keys import NativeKeys
from mjlab_rec.viewer.playback import Playback
from mjlab_rec.viewer.web import WebViewer
from mjlab_rec.viewer.web_commands import request_action
from mjlab_rec.viewer.web_shapes import WebShapes

INSERT = 260
_SETTLED = 3  # pictures without a change
_LEFT_OF_PANEL = 0.88  # of a picture of the page


class Nodes:
    """As much of a viser server as shapes need; keeps what it was given."""

    def __init__(self) -> None:
        self.scene = self
        self.made: dict[str, Any] = {}

    def add_batched_meshes_simple(self, path: str, vertices: Any, faces: Any, **values: Any) -> Any:
        assert path not in self.made
        self.made[path] = SimpleNamespace(vertices=vertices, faces=faces, visible=True, **values)
        return self.made[path]

    def remove_by_name(self, name: str) -> None:
        self.made = {path: node for path, node in self.made.items() if not path.startswith(name)}

    @property
    def shown(self) -> set[str]:
        return {path for path, node in self.made.items() if node.visible}


def playback_of(num_envs: int = 3, **cfg: Any) -> Playback:
    return Playback(
        ManagerBasedRlEnv(drawn_cfg(num_envs, **cfg)), lambda _: torch.zeros(num_envs, 1)
    )


@pytest.fixture
def playing() -> Iterator[Callable[..., Playback]]:
    made: list[Playback] = []

    def playing(**options: Any) -> Playback:
        made.append(playback_of(**options))
        made[-1].run(lambda: True)
        return made[-1]

    yield playing
    for playback in made:
        playback.env.close()


# -- frames ----------------------------------------------------------------------------------------


def test_frames_have_shapes_only_while_they_are_shown(playing):
    playback = playing()
    reader = FrameReader(playback, max_envs=2)
    Goal.calls = 0
    assert reader.read().shapes is None and Goal.calls == 0
    playback.show_debug_vis()
    assert reader.read().shapes.env.tolist().count(0) > 3
    playback.show_all()
    playback.show(2)
    together = reader.read().shapes
    reader.apart = True
    apart = reader.read().shapes
    assert {ghost.env for ghost in apart.ghosts} == {1, 2}  # As many as are in the picture.
    assert len(apart) == len(together) and len(together.ghosts) == 2
    playback.debug_vis_hidden.update(("command goal", "event still"))
    assert len(reader.read().shapes.ghosts) == 0


def test_the_cfg_says_whether_it_is_shown_at_first(playing):
    cfg = drawn_cfg(1)
    cfg.viewer.debug_vis = True
    with ManagerBasedRlEnv(cfg) as env:
        assert Playback(env, lambda _: torch.zeros(1, 1)).shows_debug_vis


def test_a_key_of_the_window_switches_it(playing):
    playback = playing()
    keys = NativeKeys(playback, SimpleNamespace(visible=True, next_term=lambda: None))
    for on in (True, False):
        keys.press(INSERT)
        playback._serve()
        assert playback.shows_debug_vis == on


# -- the page's scene ------------------------------------------------------------------------------


def test_the_page_gets_a_node_per_kind_with_an_instance_per_shape(playing):
    pytest.importorskip("viser", reason="needs viser")
    env = playing().env
    nodes, offset = Nodes(), np.array([0.0, 0.0, 10.0])
    shapes = shapes_of(env, [0, 1, 2])
    page = WebShapes(nodes)
    page.draw(shapes, offset)
    assert nodes.shown == {
        *(f"/debug/{name}" for name in KINDS),
        *("/debug/ghosts/0/0", "/debug/ghosts/0/1"),
    }
    arrows, node = shapes.chosen(shapes.kind == ARROW), nodes.made["/debug/arrows"]
    np.testing.assert_allclose(node.batched_positions, arrows.pos + offset, rtol=1e-6)
    np.testing.assert_array_equal(node.batched_scales, arrows.size)
    np.testing.assert_allclose(node.batched_opacities, arrows.rgba[:, 3])
    cart = nodes.made["/debug/ghosts/0/0"]
    at = [[ghost.qpos[0], 0.0, 11.0] for ghost in shapes.ghosts]
    np.testing.assert_allclose(cart.batched_positions, at, rtol=1e-6)
    assert cart.batched_opacities.tolist() == [0.5] * 3

    # Fewer shapes, and kinds without any.
    few = DebugVisualizer()
    few.add_arrow((0, 0, 0), (0, 0, 1), (1, 0, 0, 1))
    page.draw(few.shapes(), np.zeros(3))
    assert nodes.shown == {"/debug/arrows"} and len(node.batched_positions) == 1
    page.draw(shapes, offset)
    assert len(nodes.shown) == 6 and len(node.batched_positions) == 9
    page.draw(None, offset)
    assert nodes.shown == set()
    page.close()
    assert nodes.made == {}


@pytest.mark.parametrize("count", [187 * 8])
def test_many_rays_are_two_nodes(count):
    pytest.importorskip("viser", reason="needs viser")
    places = np.random.default_rng(0).normal(size=(count, 3))
    draw, nodes = DebugVisualizer(), Nodes()
    for place in places[:187]:
        draw.add_arrow(place + (0, 0, 1), place, (1, 0, 0, 0.5))
        draw.add_sphere(place, 0.02, (0, 1, 0, 1))
    draw.add_arrow(places[187:] + (0, 0, 1), places[187:], (1, 0, 0, 0.5))
    draw.add_sphere(places[187:], 0.02, (0, 1, 0, 1))
    WebShapes(nodes).draw(draw.shapes(), np.zeros(3))
    assert {path: len(node.batched_positions) for path, node in nodes.made.items()} == {
        "/debug/arrows": count,
        "/debug/ellipsoids": count,
    }


# -- the page in a browser -------------------------------------------------------------------------


def bare_cfg(num_envs: int, **cfg: Any) -> Any:
    """Without ground and shadows, which a processor draws slowly."""
    drawn = drawn_cfg(num_envs, **cfg)
    drawn.scene.terrain = None
    return drawn


@pytest.fixture
def stage(monkeypatch) -> Iterator[Callable[..., Stage]]:
    pytest.importorskip("mjviser", reason="needs mjviser")
    monkeypatch.setattr("test_viewer_web.cart_cfg", bare_cfg)
    stages: list[Stage] = []

    def stage(**options: Any) -> Stage:
        stages.append(Stage(**options))
        return stages[-1]

    yield stage
    for made in stages:
        made.__exit__()


def checkbox(page: Any, name: str) -> Any:
    return page.get_by_label(name, exact=True)


def test_the_page_shows_drawings_when_they_are_switched_on(stage, visit, canvas, keep_screenshot):
    show = stage(num_envs=2)
    show.playback.pause()
    show.start()
    page = visit(show.viewer.url)
    button(page, "Resume").wait_for()

    def seen(name: str, expected: Callable[[np.ndarray], bool]) -> np.ndarray:
        before, same = None, 0
        for _ in patiently():  # The page draws when it has time, one thing after the other.
            image = canvas(page, name)
            image = image[:, : int(_LEFT_OF_PANEL * image.shape[1])]
            same = same + 1 if before is not None and changed(before, image) < 1e-5 else 0
            if same >= _SETTLED and expected(image):
                return image
            before = image
        raise AssertionError  # Never reached.

    plain = seen("debug_off", lambda image: drawn(image).mean() > 0.01)  # The robot is there.
    checkbox(page, "Show").click()
    until(lambda: show.playback.shows_debug_vis)
    shapes = seen("debug_on", lambda image: changed(plain, image) > 0.003)
    keep_screenshot(page, "debug_page")
    checkbox(page, "command goal").click()
    until(lambda: show.playback.debug_vis_hidden == {"command goal"})
    seen("debug_fewer", lambda image: 0.0 < changed(plain, image) < changed(plain, shapes))
    checkbox(page, "Show").click()
    until(lambda: not show.playback.shows_debug_vis)
    seen("debug_off_again", lambda image: changed(plain, image) < 2e-3)


# -- controls of commands --------------------------------------------------------------------------


class Scrubbed(Goal):
    """A command with controls of its own, as motion commands have."""

    def create_gui(
        self,
        name: str,
        server: Any,
        get_env_idx: Callable[[], int],
        on_change: Callable[[], None] | None = None,
        request_action: Callable[[str, Any], None] | None = None,
    ) -> None:
        assert on_change is not None and request_action is not None
        self.gui = name, server, get_env_idx, request_action
        self.pauses: list[bool] = []
        self.handle = server.gui.add_button("Start here")

    def on_viewer_pause(self, paused: bool) -> None:
        self.pauses.append(paused)

    def apply_gui_reset(self, env_ids: torch.Tensor) -> bool:
        self.placed = env_ids.tolist()
        self.goal[env_ids] = 0.75
        return False


@pytest.fixture
def page(monkeypatch) -> Iterator[Any]:
    """A viewer whose frames are drawn when asked for, without a browser, of such a command."""
    pytest.importorskip("mjviser", reason="needs mjviser")
    monkeypatch.setattr("debug_worlds.Goal", Scrubbed)
    env = ManagerBasedRlEnv(drawn_cfg(3, ghosts=False))
    viewer = WebViewer(env, port=18080)
    playback = Playback(env, lambda _: torch.zeros(3, 1), viewers=[viewer])
    playback.run(lambda: True)
    yield SimpleNamespace(
        env=env,
        viewer=viewer,
        playback=playback,
        term=env.command_manager.get_term("goal"),
        frame=lambda: viewer._draw(viewer._reader.read()),
    )
    playback.close()
    env.close()


def test_a_command_may_have_controls_of_its_own_in_place_of_sliders(page):
    name, server, get_env_idx, _ = page.term.gui
    assert name == "goal" and server is page.viewer._page.server and get_env_idx() == 0
    assert not page.viewer._commands._sliders
    page.playback.show(2)
    page.frame()
    assert get_env_idx() == 2


def test_its_term_hears_of_pauses(page):
    page.viewer.update()
    page.playback.pause()
    page.viewer._next = 0.0
    page.viewer.update()
    page.viewer._next = 0.0
    page.viewer.update()
    assert page.term.pauses == [False, True]


@pytest.mark.parametrize(("all_envs", "placed"), [(False, [1]), (True, [0, 1, 2])])
def test_its_controls_can_begin_episodes_in_a_state_that_they_choose(page, all_envs, placed):
    page.playback.show(1)
    page.env.step(torch.zeros(3, 1))
    request = page.term.gui[3]
    request("CUSTOM", {"type": "gui_reset", "all_envs": all_envs})
    page.playback._serve()
    assert page.term.placed == placed
    assert page.env.episode_length_buf[placed].tolist() == [0] * len(placed)
    assert page.term.command[placed].flatten().tolist() == [0.75] * len(placed)
    del page.term.placed
    page.playback.reset()
    page.playback._serve()
    assert not hasattr(page.term, "placed")  # Other resets are as usual.


def test_other_requests_of_controls(page, caplog):
    playback = page.playback
    request_action(playback, "TOGGLE_PAUSE")
    assert playback.paused
    request_action(playback, "TOGGLE_DEBUG_VIS")
    assert playback.shows_debug_vis
    request_action(playback, "TOGGLE_SHOW_ALL_ENVS")
    assert playback.shows_all
    request_action(playback, "RESET")
    request_action(playback, "SINGLE_STEP")
    assert len(playback._requests) == 2
    request_action(playback, "FLY", 3)
    assert "'FLY', 3" in caplog.text


def test_a_command_manager_passes_the_hooks_on_to_its_terms(page):
    manager = page.env.command_manager
    manager.on_viewer_pause(True)
    assert page.term.pauses[-1] and manager.apply_gui_reset(torch.tensor([2])) is False
    assert page.term.placed == [2]
    with ManagerBasedRlEnv(cart_cfg(1, commands={}, observations={})) as plain:
        plain.command_manager.create_gui(None, lambda: 0)
        assert plain.command_manager.apply_gui_reset(torch.tensor([0])) is False


def test_checkboxes_of_the_page_follow_the_key(page):
    controls = next(part for part in page.viewer._parts if type(part).__name__ == "DebugControls")
    assert not controls._all.value
    page.playback.show_debug_vis()
    page.frame()
    assert controls._all.value
    page.playback.show_all()
    page.frame()
    assert page.viewer._page.server.scene  # Nothing of it failed.


# -- the window ------------------------------------------------------------------------------------

PROGRAM = """
import sys
import time
import torch
from debug_worlds import drawn_cfg, world_picture
from waiting import PATIENCE_S
from mjlab_rec import cli
from mjlab_rec.commands import play
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.viewer import make_viewer
from mjlab_rec.viewer.playback import Playback

env = ManagerBasedRlEnv(drawn_cfg(2, steps=(1000,), viewer=world_picture()))
viewer = make_viewer("native", env)
playback = Playback(env, lambda _: torch.ones(2, 1), viewers=[viewer])
playback.pause()

def say(*words):
    print(*words, flush=True)
    return sys.stdin.readline().strip()

def count():
    with viewer._window.lock():  # While nothing is added.
        return viewer._window.user_scn.ngeom

def shapes(at_least):
    hangs = time.monotonic() + PATIENCE_S
    playback.run(lambda: count() >= at_least or time.monotonic() > hangs)
    return count()

say("off", shapes(0))
viewer.keys.press(260)
say("on", shapes(9))
playback.show_all()
say("all", shapes(19))
playback.close()
env.close()
print("closed", flush=True)
"""


def test_the_window_shows_drawings_when_a_key_is_pressed(screen, photograph):
    environment = {**os.environ, "DISPLAY": screen, "MUJOCO_GL": "glfw"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        counts, pictures = {}, {}
        for name in ("off", "on", "all"):
            word, _, count = process.stdout.readline().partition(" ")
            assert word == name
            counts[name] = int(count)
            for _ in patiently():  # The window draws when it has time.
                pictures[name] = photograph(f"debug_{name}")
                if name == "off" or share(pictures[name], 0) > share(pictures["off"], 0) + 5e-4:
                    break
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    # Seven shapes and a ghost of two geoms; then those of both, and the other robot with its site.
    assert counts == {"off": 0, "on": 9, "all": 2 * 5 + 2 + 2 * 2 + 3}
    assert share(pictures["off"], 0) + 5e-4 < share(pictures["on"], 0)


def test_play_has_an_option_that_switches_it_on():
    for options, on in (([], False), (["--debug-vis"], True)):
        task = ["--task", "cartpole-balance", *options]
        args, cfg = cli.parse(play.PlayArgs, "", task)
        play.apply(args, cfg)
        assert cfg.viewer.debug_vis == on
