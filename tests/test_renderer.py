"""What both renderers draw, and the choice between them; and what is said where none works."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from render_worlds import BLUE, GREEN, RED, ball_scene, ball_sim, middle, need_gl, place
from waiting import PATIENCE_S
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.rl.gymnasium_env import NumpyVectorEnv
from mjlab_rec.sim import Simulation, gl
from mjlab_rec.sim.gl_renderer import GlRenderer
from mjlab_rec.sim.renderer import Renderer, make_renderer
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.viewer import ViewerConfig

KINDS = ViewerConfig.OriginType

Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module", params=["gl", "warp"])
def name(request: pytest.FixtureRequest) -> str:
    """Both renderers."""
    if request.param == "gl":
        need_gl()
    return request.param


@pytest.fixture
def sim() -> Simulation:
    return ball_sim()


Make = Callable[..., Renderer]


@pytest.fixture
def make(sim: Simulation, name: str) -> Iterator[Make]:
    """Makes a renderer of a config with these fields."""
    renderers = []

    def make(**fields: Any) -> Renderer:
        options: dict[str, Any] = dict(width=64, height=48, max_extra_envs=0, elevation=-30.0)
        cfg = ViewerConfig(renderer=name, **(options | fields))  # type: ignore[arg-type]
        renderers.append(make_renderer(sim, cfg, ball_scene(sim)))
        return renderers[-1]

    yield make
    for renderer in renderers:
        renderer.close()


@pytest.fixture
def draw(make: Make) -> Draw:
    """Renders the scene once, as a config with these fields says."""
    return lambda env_idx=None, **fields: make(**fields).render(env_idx)


def test_image_has_the_configured_size(draw):
    image = draw(width=70, height=50)
    assert image.shape == (50, 70, 3)
    assert image.dtype == np.uint8


def test_camera_follows_the_moving_body(sim, draw):
    place(sim, 0, 3.0, -2.0)
    for fields in ({}, {"origin_type": KINDS.ASSET_ROOT}):
        row, column = middle(draw(**fields), RED) or (9, 9)
        assert abs(row) < 0.1 and abs(column) < 0.05
    fixed = draw(origin_type=KINDS.WORLD, lookat=(3.0, -2.0, 1.7))
    assert np.abs(middle(fixed, GREEN) or (9, 9)).max() < 0.1


def test_camera_can_follow_any_body(draw):
    image = draw(origin_type=KINDS.ASSET_BODY, entity_name="robot", body_name="arm")
    assert np.abs(middle(image, GREEN) or (9, 9)).max() < 0.05
    row, _ = middle(image, RED) or (-9, 0)
    assert row > 0.05, "the base lies below the arm"


def test_azimuth_zero_looks_along_x(sim, draw):
    place(sim, 0, 0.0, 0.5)
    _, column = middle(draw(origin_type=KINDS.WORLD, azimuth=0.0), RED) or (0, 9)
    assert column < 0.0, "+y is on the left"


def test_images_start_at_the_top(sim, draw):
    image = draw(origin_type=KINDS.WORLD, elevation=0.0, lookat=(0.0, 0.0, 0.0))
    row, _ = middle(image, GREEN) or (9, 0)
    assert row < 0.0, "what is above the point looked at comes first"


def test_each_env_is_drawn_by_its_index(sim, draw):
    place(sim, 2, 0.8, 0.0)
    at = [middle(draw(env_idx=i, origin_type=KINDS.WORLD), RED) for i in range(3)]
    assert at[0] == at[1] != at[2]
    assert middle(draw(env_idx=0, camera="above"), GREEN) is not None


def test_neighbours_are_drawn_too_by_opengl(sim, name, draw):
    place(sim, 1, 1.0, 0.0)
    place(sim, 2, -1.0, 0.0)
    reds = [
        (draw(origin_type=KINDS.WORLD, max_extra_envs=count)[..., 0] > 100).sum()
        for count in (0, 1, 2, 5)
    ]
    if name == "gl":
        assert reds[0] < reds[1] < reds[2] == reds[3]
    else:
        assert len(set(reds)) == 1


def test_camera_can_be_one_of_the_model(sim, draw):
    place(sim, 0, 0.5, 0.0)
    by_name, by_number = draw(camera="above"), draw(camera=0)
    np.testing.assert_array_equal(by_name, by_number)
    _, column = middle(by_name, RED) or (0, 9)
    assert column > 0.05, "it does not follow the ball"
    sim.data.mocap_pos[0, 0] = torch.tensor([0.5, 0.0, 0.3])
    _, column = middle(draw(camera="robot/eye"), GREEN) or (0, 9)
    assert abs(column) < 0.02, "it moves with the body that carries it"


def test_bodies_placed_by_hand_are_drawn_where_they_are(sim, draw):
    assert middle(draw(), BLUE) is None
    sim.data.mocap_pos[0, 0] = torch.tensor([0.0, 1.0, 1.0])
    _, column = middle(draw(), BLUE) or (0, -9)
    assert abs(column) < 0.05
    sim.data.mocap_pos[0, 0] = torch.tensor([1.0, 0.0, 1.0])
    _, column = middle(draw(), BLUE) or (0, -9)
    assert column > 0.1


def test_one_shot_holds_pictures_of_several_environments(sim, make):
    place(sim, 2, 0.8, 0.0)
    renderer = make(origin_type=KINDS.WORLD)
    images = renderer.draw(renderer.capture([2, 0]))
    assert images.shape == (2, 48, 64, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], renderer.render(2))
    np.testing.assert_array_equal(images[1], renderer.render(0))
    assert (images[0] != images[1]).any()


def test_shot_stays_valid_while_the_simulation_continues(sim, make):
    renderer = make(origin_type=KINDS.WORLD)
    sim.expand_model_fields(["geom_rgba"])
    expected = [renderer.render()]
    shots = [renderer.capture([0])]
    place(sim, 0, 0.5, 0.0)
    sim.model.geom_rgba[0, 1] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    shots.append(renderer.capture([0]))
    expected.append(renderer.render())
    sim.step(5)
    shots.append(renderer.capture([0]))
    sim.reset()
    assert middle(expected[1], BLUE) is not None
    first, second, _ = (renderer.draw(shot)[0] for shot in shots)
    np.testing.assert_array_equal(first, expected[0])
    np.testing.assert_array_equal(second, expected[1])
    np.testing.assert_array_equal(renderer.draw(shots[0])[0], expected[0])


def test_another_thread_can_draw(sim, make):
    here, there = make(), make()
    with ThreadPoolExecutor(1) as thread:
        for x in (0.0, 0.3):
            place(sim, 0, x, 0.0)
            shot = there.capture([0])
            image = thread.submit(there.draw, shot).result(timeout=PATIENCE_S)[0]
            np.testing.assert_array_equal(image, here.render())
        thread.submit(there.close).result(timeout=PATIENCE_S)


def test_images_of_a_shot_are_new_arrays(make):
    renderer = make()
    shot = renderer.capture([0])
    first = renderer.draw(shot)
    kept = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(renderer.draw(shot), kept)


def test_what_is_fully_transparent_is_not_drawn(draw):
    assert middle(draw(), RED) is not None
    assert (draw() < 250).all(axis=-1).sum() > 0.9 * 64 * 48


def test_an_empty_scene_is_black(draw):
    assert draw(geom_group=(0, 0, 0, 0, 0, 0)).max() == 0


def test_per_world_model_fields_show(sim, draw):
    sim.expand_model_fields(["geom_rgba", "geom_pos"])
    ball = sim.mj_model.geom("ball").id
    sim.model.geom_rgba[1, ball] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert middle(draw(env_idx=0), BLUE) is None
    assert middle(draw(env_idx=1), BLUE) is not None
    before = middle(draw(env_idx=0), RED)
    sim.model.geom_pos[0, ball, 2] = -0.4
    after = middle(draw(env_idx=0), RED)
    assert before and after and after[0] > before[0]


def test_geom_groups_can_be_hidden(draw):
    assert middle(draw(), BLUE) is None
    assert middle(draw(geom_group=(0, 0, 0, 1, 0, 0)), BLUE) is not None


def test_field_of_view_narrows(draw):
    wide, narrow = ((draw(fovy=fovy)[..., 0] > 100).sum() for fovy in (60.0, 20.0))
    assert narrow > 2 * wide


def test_rendering_does_not_change_the_simulation(sim, draw):
    sim.step(3)
    state = sim.get_state().clone()
    offset = sim.mj_model.vis.global_.offwidth
    draw(width=700)
    assert torch.equal(sim.get_state(), state)
    assert sim.mj_model.vis.global_.offwidth == offset


def test_two_renderers_do_not_disturb_each_other(make):
    small, large = make(width=32, height=24), make()
    first = small.render()
    assert large.render().shape == (48, 64, 3)
    np.testing.assert_array_equal(small.render(), first)
    large.close()
    np.testing.assert_array_equal(small.render(), first)
    small.close()
    small.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env_idx": 3}, "env_idx is 3, but there are 3.*0 to 2"),
        ({"width": 0}, "0 x 48"),
        ({"max_extra_envs": -1}, "must not be negative"),
        ({"camera": "abvoe"}, "Did you mean 'above'"),
        ({"origin_type": KINDS.ASSET_ROOT, "entity_name": "robto"}, "Did you mean 'robot'"),
        ({"origin_type": KINDS.ASSET_BODY, "body_name": "amr"}, "Did you mean 'arm'"),
    ],
)
def test_wrong_names_and_numbers_are_explained(draw, fields, message):
    with pytest.raises(ValueError, match=message):
        draw(**fields)


def only(*backends: str) -> Callable[[str], str | None]:
    """Stands in for trying a backend: only these work."""
    return lambda backend: None if backend in backends else "no such library"


@pytest.mark.skipif("sys.platform != 'linux'", reason="EGL and OSMesa are for Linux")
@pytest.mark.parametrize(
    ("variables", "working", "chosen"),
    [
        ({}, ["glfw", "egl", "osmesa"], "egl"),
        ({}, ["glfw", "osmesa"], "osmesa"),
        ({"DISPLAY": ":0"}, ["glfw", "egl"], "egl"),
        ({"DISPLAY": ":0"}, ["glfw", "osmesa"], "osmesa"),
        ({"DISPLAY": ":0"}, ["glfw"], "glfw"),
        ({"MUJOCO_GL": "osmesa"}, ["egl", "osmesa"], "osmesa"),
        ({"MUJOCO_GL": "GLFW"}, ["egl", "glfw"], "glfw"),
    ],
)
def test_what_draws_is_chosen_by_variables_and_what_works(monkeypatch, variables, working, chosen):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gl, "_why_not", only(*working))
    assert gl.find_backend() == chosen


def test_without_opengl_the_error_names_the_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(gl, "_why_not", only("osmesa"))
    message = "egl: no such library.*MUJOCO_GL=egl.*unset it.*libegl1.*libosmesa6"
    with pytest.raises(RuntimeError, match=message):
        gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16)


def test_a_failing_backend_says_why(monkeypatch):
    need_gl()
    gl._probe.cache_clear()
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    reason = gl._why_not("egl")
    gl._probe.cache_clear()
    assert reason is not None and "PYOPENGL_PLATFORM" in reason
    monkeypatch.undo()
    gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()


def test_both_renderers_show_the_same(sim):
    need_gl()
    place(sim, 0, 0.4, -0.3)
    fields: dict[str, Any] = dict(max_extra_envs=0, origin_type=KINDS.WORLD, elevation=-25.0)
    for more in ({}, {"azimuth": 40.0, "fovy": 30.0, "lookat": (0.3, 0.0, 1.0)}, {"camera": 0}):
        cfg = ViewerConfig(width=160, height=120, **(fields | more))
        images = []
        for name in ("gl", "warp"):
            renderer = make_renderer(sim, cfg, ball_scene(sim), name)
            images.append(renderer.render())
            renderer.close()
        for color in (RED, GREEN):
            at = [middle(image, color) or (9, 9) for image in images]
            np.testing.assert_allclose(at[0], at[1], atol=0.005)
            areas = [(image[..., color] > 100).sum() for image in images]
            assert areas[0] == pytest.approx(areas[1], rel=0.05)


@pytest.fixture
def chosen(sim: Simulation) -> Callable[..., Renderer]:
    """The renderer that a choice leads to."""
    cfg = ViewerConfig(width=16, height=16)
    return lambda *name: make_renderer(sim, cfg, ball_scene(sim), *name)


def test_auto_uses_opengl_if_it_works(monkeypatch, chosen):
    monkeypatch.setattr(gl, "_why_not", only("egl", "osmesa", "glfw", ""))
    assert isinstance(chosen(), GlRenderer)
    assert isinstance(chosen("auto"), GlRenderer)


def test_auto_falls_back_to_warp_and_says_why(monkeypatch, chosen, caplog):
    monkeypatch.setattr(gl, "_why_not", only())
    with caplog.at_level(logging.WARNING, "mjlab_rec"):
        renderer = chosen()
    assert type(renderer).__name__ == "WarpRenderer"
    assert renderer.render().shape == (16, 16, 3)
    (record,) = caplog.records
    assert "renderer 'warp'" in record.getMessage() and "no such library" in record.getMessage()


def test_opengl_that_was_asked_for_is_not_replaced(monkeypatch, chosen):
    monkeypatch.setattr(gl, "_why_not", only())
    with pytest.raises(RuntimeError, match="no such library"):
        chosen("gl")


def test_where_no_renderer_works_the_error_names_both_cures(monkeypatch, chosen):
    monkeypatch.setattr(gl, "_why_not", only())
    monkeypatch.setitem(sys.modules, "mjlab_rec.sim.warp_renderer", None)
    with pytest.raises(RuntimeError, match="neither works.*libegl1.*--upgrade 'mujoco-warp"):
        chosen()
    with pytest.raises(UnavailableError, match="'warp' needs MuJoCo-Warp.*--upgrade 'mujoco-warp"):
        chosen("warp")


def test_wrong_camera_is_explained_where_opengl_does_not_work(monkeypatch, sim):
    monkeypatch.setattr(gl, "_why_not", only())
    with pytest.raises(ValueError, match="Did you mean 'above'"):
        make_renderer(sim, ViewerConfig(camera="abvoe"), ball_scene(sim))


def test_unknown_renderer_is_explained(sim, chosen):
    with pytest.raises(ValueError, match="Unknown renderer 'wrap'.*Did you mean 'warp'"):
        chosen("wrap")
    cfg = ViewerConfig(renderer="opengl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown renderer 'opengl'.*Known: auto, gl, warp"):
        make_renderer(sim, cfg, ball_scene(sim))


def test_environments_draw_with_the_renderer_of_their_config(name):
    cfg = cart_cfg()
    cfg.viewer = ViewerConfig(width=32, height=24, max_extra_envs=0, env_idx=1, renderer=name)  # type: ignore[arg-type]
    cfg.sim.engine = "mjbatch"
    env = ManagerBasedRlEnv(cfg, render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image is not None and image.shape == (24, 32, 3) and image.any()
    wrapped = NumpyVectorEnv(env)
    images = wrapped.render()
    assert images is not None and len(images) == 4
    np.testing.assert_array_equal(images[1], image)
    assert any((images[0] != other).any() for other in images[1:])
    assert type(env._renderer).__name__.lower() == f"{name}renderer"
    wrapped.close()
    env.close()


@pytest.mark.parametrize(("size", "shadows"), [((84, 60), 256), ((640, 480), 2048)])
def test_map_of_shadows_fits_the_picture(sim, size, shadows):
    need_gl()
    cfg = ViewerConfig(width=size[0], height=size[1])
    renderer = GlRenderer(sim, cfg, ball_scene(sim))
    assert renderer._posed.model.vis.quality.shadowsize == shadows
    assert sim.mj_model.vis.quality.shadowsize == 4096
