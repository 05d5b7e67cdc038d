"""Debug drawings in the viewers: what the page and the window are given, and who switches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from debug_worlds import Goal, drawn_cfg
from test_viewer_native import photograph as photograph
from test_viewer_native import screen as screen
from test_viewer_web import Stage, button, changed, until
from test_viewer_web import canvas as canvas

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.sim.debug_shapes import ARROW, KINDS
from mjlab_rec.sim.debug_visualizer import DebugVisualizer, shapes_of
from mjlab_rec.viewer.frame import FrameReader
from mjlab_rec.viewer.native_keys import NativeKeys
from mjlab_rec.viewer.playback import Playback
from mjlab_rec.viewer.web_shapes import WebShapes

INSERT = 260


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
    plain = canvas(page, "debug_off")
    checkbox(page, "Show").click()
    until(lambda: show.playback.shows_debug_vis)
    drawn = canvas(page, "debug_on")
    keep_screenshot(page, "debug_page")
    assert changed(plain, drawn) > 0.003
    checkbox(page, "command goal").click()
    until(lambda: show.playback.debug_vis_hidden == {"command goal"})
    fewer = canvas(page, "debug_fewer")
    assert 0.0 < changed(plain, fewer) < changed(plain, drawn)
    checkbox(page, "Show").click()
    until(lambda: not show.playback.shows_debug_vis)
    assert changed(plain, canvas(page, "debug_off_again")) < 2e-3
