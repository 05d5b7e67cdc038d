"""What is particular to drawing with MuJoCo-Warp: threads, engines, and what it shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import mujoco
import mujoco_warp
import numpy as np
import pytest
import torch
from render_worlds import BLUE, GREEN, RED, ball_scene, ball_sim, middle, need_gl, place
from waiting import PATIENCE_S

from mjlab_rec.sim import Simulation, SimulationCfg
from mjlab_rec.sim.gl_renderer import GlRenderer
from mjlab_rec.sim.warp_renderer import WarpRenderer
from mjlab_rec.viewer import ViewerConfig

KINDS = ViewerConfig.OriginType

# All that the ray tracer shows: ground with a texture, sky, a mesh, a height field, materials.
MUSEUM = """
<mujoco>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1="0 0 0.8" width="8" height="8"/>
    <texture name="check" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0.1 0.1 0.1"
      width="64" height="64"/>
    <material name="check" texture="check" texrepeat="2 2"/>
    <material name="paint" rgba="0 0.8 0 1"/>
    <material name="glass" rgba="1 0 0 0"/>
    <mesh name="wedge" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
    <hfield name="hill" nrow="3" ncol="3" size="0.5 0.5 0.5 0.1" elevation="0 0 0 0 1 0 0 0 0"/>
  </asset>
  <worldbody>
    <light pos="0 -1 4" dir="0 0.2 -1" diffuse="0.8 0.8 0.8"/>
    <geom type="plane" size="2 2 1" material="check"/>
    <geom type="hfield" hfield="hill" pos="-1 1 0.1" rgba="0.8 0.6 0.1 1"/>
    <geom type="box" size="0.3 0.3 0.3" pos="0 0 0.3" material="paint"/>
    <geom type="sphere" size="1.5" pos="0 0 0.5" material="glass"/>
    <body name="wedge" pos="1 0 0.1">
      <freejoint/>
      <geom type="mesh" mesh="wedge" rgba="0.7 0.1 0.7 1"/>
    </body>
  </worldbody>
</mujoco>
"""

EMPTY_SCENE: Any = SimpleNamespace(env_origins=torch.zeros(1, 3), entities={})

Make = Callable[..., WarpRenderer]


@pytest.fixture(params=["mjbatch", "warp"])
def sim(request: pytest.FixtureRequest) -> Simulation:
    return ball_sim(request.param)


@pytest.fixture
def make() -> Iterator[Make]:
    renderers = []

    def make(sim: Simulation, **fields: Any) -> WarpRenderer:
        scene = ball_scene(sim) if sim.num_envs > 1 else EMPTY_SCENE
        options: dict[str, Any] = dict(width=64, height=48, elevation=-30.0)
        cfg = ViewerConfig(**(options | fields))
        renderers.append(WarpRenderer(sim, cfg, scene))
        return renderers[-1]

    yield make
    for renderer in renderers:
        renderer.close()


@pytest.fixture
def drawing_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which MuJoCo-Warp drew, in order."""
    threads: list[int] = []
    real = mujoco_warp.render

    def render(*args: Any) -> None:
        threads.append(threading.get_ident())
        real(*args)

    monkeypatch.setattr(mujoco_warp, "render", render)
    return threads


def test_both_engines_give_the_same_pictures(make):
    images = []
    for engine in ("mjbatch", "warp"):
        sim = ball_sim(engine)
        place(sim, 1, 0.5, 0.25)
        renderer = make(sim)
        images.append(renderer.draw(renderer.capture([1, 0])))
    np.testing.assert_array_equal(*images)
    assert middle(images[0][0], RED) and middle(images[0][0], GREEN)


def test_pose_is_the_states_where_the_simulations_own_lags_behind(sim, make):
    lagging = sim.data.xpos  # of the step's beginning, also after the ball is moved
    sim.step(2)
    renderer = make(sim, origin_type=KINDS.WORLD, lookat=(0.0, 0.0, 1.0))
    place(sim, 0, 0.8, 0.0)
    left_behind = lagging.clone()
    _, column = middle(renderer.render(), RED) or (0, 0)
    assert column > 0.1
    assert torch.equal(lagging, left_behind)


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_drawing_changes_no_bit(engine, make):
    logs = []
    for draws in (False, True):
        sim = ball_sim(engine)
        xpos = sim.data.xpos
        sim.data.qvel[:, 0] = torch.tensor([0.5, 1.0, -1.0])
        log, renderer = [], make(sim)
        torch.manual_seed(0)
        for i in range(6):
            if i == 3:
                sim.expand_model_fields(["geom_pos"])
            sim.step(20)
            log += [sim.get_state(), xpos.clone(), torch.rand(1)]
            if draws:
                renderer.draw(renderer.capture([0, 2]))
                renderer.render(1)
        logs.append(torch.cat([values.flatten().double() for values in log]))
    assert torch.equal(*logs)


def test_fields_that_differ_between_worlds_show_also_later(sim, make):
    renderer = make(sim)
    blue = torch.tensor([0.0, 0.0, 1.0, 1.0])
    ball = sim.mj_model.geom("ball").id
    assert middle(renderer.render(1), RED) is not None
    sim.expand_model_fields(["geom_rgba", "geom_size", "site_pos"])
    sim.model.geom_rgba[1, ball] = blue
    images = renderer.draw(renderer.capture([1, 2]))
    assert middle(images[0], BLUE) and not middle(images[0], RED)
    assert middle(images[1], RED) and not middle(images[1], BLUE)
    sim.model.geom_size[2, ball, 0] = 0.6
    grown = renderer.draw(renderer.capture([1, 2]))
    np.testing.assert_array_equal(grown[0], images[0])
    assert (grown[1][..., 0] > 100).sum() > 2 * (images[1][..., 0] > 100).sum()


def test_field_of_view_of_each_worlds_camera_shows(sim, make):
    renderer = make(sim, camera="above")
    before = renderer.render(2)
    sim.expand_model_fields(["cam_fovy"])
    sim.model.cam_fovy[2, 0] = 20.0
    np.testing.assert_array_equal(renderer.render(0), before)
    narrow = renderer.render(2)
    assert (narrow[..., 1] > 100).sum() > 2 * (before[..., 1] > 100).sum()


def test_many_sizes_of_shots_take_turns(sim, make):
    renderer = make(sim)
    for env_id in range(3):
        place(sim, env_id, 0.1 * env_id, 0.0)
    alone = [renderer.render(env_id) for env_id in range(3)]
    for env_ids in ([0, 1], [0, 1, 2], [2, 0, 1, 2], [1] * 5, [0] * 6, [2]):
        images = renderer.draw(renderer.capture(env_ids))
        for env_id, image in zip(env_ids, images, strict=True):
            np.testing.assert_array_equal(image, alone[env_id])


def test_the_thread_that_draws_works_with_the_engine_mjbatch(make, drawing_threads):
    renderer = make(ball_sim("mjbatch"))
    shot = renderer.capture([0])
    assert not drawing_threads
    with ThreadPoolExecutor(1) as thread:
        thread.submit(renderer.draw, shot).result(timeout=PATIENCE_S)
        assert drawing_threads == [thread.submit(threading.get_ident).result(timeout=PATIENCE_S)]


def test_the_thread_that_steps_works_with_the_engine_warp(make, drawing_threads):
    sim = ball_sim("warp")
    renderer = make(sim)
    shot = renderer.capture([0])
    assert drawing_threads == [threading.get_ident()]
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(renderer.draw, shot)
        sim.step(5)
        image = future.result(timeout=PATIENCE_S)[0]
    assert len(drawing_threads) == 1
    assert middle(image, RED) is not None


def test_two_renderers_may_draw_in_two_threads(make):
    sim = ball_sim("mjbatch")
    renderers = [make(sim, azimuth=azimuth) for azimuth in (0.0, 90.0)]
    place(sim, 0, 0.3, 0.6)
    expected = [renderer.render() for renderer in renderers]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            shots = [renderer.capture([0]) for renderer in renderers]
            futures = [
                threads.submit(renderer.draw, shot)
                for renderer, shot in zip(renderers, shots, strict=True)
            ]
            for future, image in zip(futures, expected, strict=True):
                np.testing.assert_array_equal(future.result(timeout=PATIENCE_S)[0], image)


def test_close_frees_and_may_be_repeated(sim, make):
    renderer = make(sim)
    shot = renderer.capture([0])
    image = renderer.draw(shot)
    renderer.close()
    renderer.close()
    assert not renderer._batches
    np.testing.assert_array_equal(renderer.draw(shot), image)


def test_shots_do_not_share_their_pictures(sim, make):
    renderer = make(sim, origin_type=KINDS.WORLD)
    before = renderer.render()
    shot = renderer.capture([0])
    place(sim, 0, 0.6, 0.0)
    assert (renderer.render() != before).any()
    np.testing.assert_array_equal(renderer.draw(shot)[0], before)


def test_inference_mode_does_not_matter(sim, make):
    renderer = make(sim)
    with torch.inference_mode():
        inside = renderer.draw(renderer.capture([0]))
    np.testing.assert_array_equal(renderer.draw(renderer.capture([0])), inside)


def museum() -> Simulation:
    model = mujoco.MjModel.from_xml_string(MUSEUM)
    return Simulation(num_envs=1, cfg=SimulationCfg(engine="mjbatch"), model=model)


MUSEUM_VIEW: dict[str, Any] = dict(
    width=160,
    height=120,
    origin_type=KINDS.WORLD,
    lookat=(0.0, 0.0, 0.8),
    elevation=-20.0,
    distance=4.0,
    enable_reflections=False,
    max_extra_envs=0,
)


def test_meshes_fields_textures_and_sky_look_as_with_opengl(make):
    need_gl()
    sim = museum()
    traced = make(sim, **MUSEUM_VIEW).render().astype(int)
    renderer = GlRenderer(sim, ViewerConfig(**MUSEUM_VIEW), EMPTY_SCENE)
    drawn = renderer.render().astype(int)
    renderer.close()
    assert (np.abs(traced - drawn).max(axis=-1) < 40).mean() > 0.9
    for name, color in {"sky": (0, 0, 204), "mesh": (178, 26, 178), "paint": (0, 204, 0)}.items():
        share = np.array(color) / max(color)
        areas = [
            (np.abs(image / image.max(axis=-1, keepdims=True).clip(1) - share).max(axis=-1) < 0.1)
            .mean()
            .item()
            for image in (traced, drawn)
        ]
        assert areas[0] > 0.01 and areas[0] == pytest.approx(areas[1], rel=0.2), name


def test_shadows_can_be_switched_off(make):
    sim = museum()
    dark, bright = (
        make(sim, **MUSEUM_VIEW, enable_shadows=shadows).render().astype(int).sum()
        for shadows in (True, False)
    )
    assert dark < bright


def test_options_that_mujoco_warp_lacks_do_not_matter(make):
    model = mujoco.MjModel.from_xml_string(MUSEUM)
    cfg = SimulationCfg(engine="mjbatch")
    cfg.mujoco.solver = "pgs"
    model.opt.noslip_iterations = 3
    sim = Simulation(num_envs=1, cfg=cfg, model=model)
    assert make(sim, **MUSEUM_VIEW).render().any()
    assert sim.mj_model.opt.noslip_iterations == 3


def test_model_that_cannot_be_drawn_is_refused_before_anything_is_drawn(monkeypatch, make):
    def put_model(*_: Any) -> None:
        raise NotImplementedError("Body plugins not supported.")

    monkeypatch.setattr(mujoco_warp, "put_model", put_model)
    with pytest.raises(RuntimeError, match="cannot draw this model: Body plugins.*renderer='gl'"):
        make(ball_sim("mjbatch"))


@pytest.mark.cuda
def test_on_a_gpu_capture_waits_for_nothing_and_the_pictures_are_the_same(make):
    fields: dict[str, Any] = dict(origin_type=KINDS.ASSET_ROOT)
    sims = [ball_sim("mjbatch"), ball_sim("warp", device="cuda")]
    for sim in sims:
        place(sim, 2, 0.4, 0.2)
    here, there = (make(sim, **fields) for sim in sims)
    there.draw(there.capture([2, 0]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        shot = there.capture([2, 0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    sims[1].step(3)
    with ThreadPoolExecutor(1) as thread:
        images = thread.submit(there.draw, shot).result(timeout=PATIENCE_S)
    expected = here.draw(here.capture([2, 0]))
    assert (np.abs(images.astype(int) - expected).max(axis=-1) < 8).mean() > 0.99
