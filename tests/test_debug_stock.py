"""What stock terms, sensors and the ground draw, and shapes over ray-traced pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mdp_worlds import make_env, robot_cfg
from render_worlds import ball_scene, ball_sim, need_gl, place
from test_mdp_commands import command_cfg
from test_mdp_events import impulse_env
from test_sensor_contact import EVERYTHING, FEET, standing

from mjlab_rec.envs.mdp import apply_body_impulse
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sensor import ContactMatch, ContactSensorCfg
from mjlab_rec.sim.debug_shapes import ARROW, ELLIPSOID, Shapes
from mjlab_rec.sim.debug_visualizer import DebugVisualizer, shapes_of
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.utils.math import quat_apply
from mjlab_rec.viewer import ViewerConfig


def arrows(shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """Starts and vectors of arrows."""
    some = shapes.chosen(shapes.kind == ARROW)
    return some.pos, some.mat[:, :, 2] * some.size[:, 2:]


def test_a_velocity_command_draws_what_is_wanted_and_what_is():
    env = make_env(3, seed=3, commands={"twist": command_cfg(debug_vis=True)})
    env.step(torch.zeros(3, 0))
    data, wanted = env.scene["robot"].data, env.command_manager.get_command("twist")
    starts, vectors = arrows(shapes_of(env, [2]))
    quat = data.root_link_quat_w[2]
    base = data.root_link_pos_w[2] + quat_apply(quat, torch.tensor([0.0, 0.0, 0.1]))
    np.testing.assert_allclose(starts, base.expand(len(starts), 3), atol=1e-5)
    flat, up = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    expected = [0.5 * quat_apply(quat, wanted[2] * axes) for axes in (flat, up)]
    np.testing.assert_allclose(vectors[:2], torch.stack(expected), atol=1e-5)
    actual = data.root_link_lin_vel_b[2] * flat
    if actual.norm() > 1e-3:
        np.testing.assert_allclose(vectors[2], 0.5 * quat_apply(quat, actual), atol=1e-5)
    assert len(arrows(shapes_of(env, [0, 1, 2]))[0]) >= 6


def test_an_impulse_is_drawn_while_it_acts():
    env = impulse_env(force_range=(100.0, 200.0))
    counts = []
    for _ in range(9):
        env.step(torch.zeros(env.num_envs, 0))
        starts, vectors = arrows(shapes_of(env, [0]))
        counts.append(len(starts))
        if len(starts):
            data = env.scene["robot"].data
            force = data.body_external_wrench[0, :, :3].sum(dim=0)
            np.testing.assert_allclose(vectors[0], 0.005 * force, rtol=1e-4)
            base = env.scene["robot"].body_names.index("base")
            np.testing.assert_allclose(starts[0], data.body_com_pos_w[0, base], atol=1e-5)
    assert counts == [0] * 4 + [1] * 3 + [0] * 2
    cfg = apply_body_impulse.VizCfg(min_force=1e6)
    env = impulse_env(force_range=(100.0, 200.0), viz_cfg=cfg)
    for _ in range(6):
        env.step(torch.zeros(env.num_envs, 0))
    assert not len(shapes_of(env, [0]))


@pytest.mark.parametrize("where", ["pos", "origin"])
def test_contacts_are_drawn_with_their_forces(where):
    fields = EVERYTHING if where == "pos" else ("found", "force", "normal", "tangent")
    cfg = ContactSensorCfg("feet", FEET, None, fields, global_frame=True, debug_vis=True)
    scene, sim = standing(cfg)
    sensor, data = scene["feet"], scene["feet"].data
    draw = DebugVisualizer(1, meansize=0.1)
    sensor.debug_vis(draw)
    shapes = draw.shapes()
    found = data.found[1] > 0
    spheres = shapes.pos[shapes.kind == ELLIPSOID]
    assert len(spheres) == int(found.sum()) > 0
    if where == "pos":
        np.testing.assert_allclose(spheres, data.pos[1][found], atol=1e-6)
    else:
        ids = [sim.mj_model.geom(f"dog/{name}").id for name in sensor.primary_names]
        np.testing.assert_allclose(spheres, sim.data.geom_xpos[1, ids][found], atol=1e-6)
    model = sim.mj_model
    scale = model.vis.map.force / model.stat.meanmass
    np.testing.assert_allclose(arrows(shapes)[1], data.force[1][found] * scale, rtol=1e-4)
    # In the last world the dog is in the air.
    draw = DebugVisualizer(2)
    sensor.debug_vis(draw)
    assert not len(draw.shapes())


def test_contacts_are_not_drawn_unless_asked():
    scene, _ = standing(ContactSensorCfg("feet", FEET, None, EVERYTHING))
    draw = DebugVisualizer(0)
    scene["feet"].debug_vis(draw)
    assert not len(draw.shapes())


def test_sensors_and_ground_are_sources_if_their_cfg_says_so():
    def sources(on: bool) -> list[str]:
        scene = SceneCfg(
            num_envs=2,
            terrain=TerrainEntityCfg(debug_vis=on),
            entities={"robot": robot_cfg()},
            sensors=(
                ContactSensorCfg("touch", ContactMatch("geom", ".*_foot", "robot"), debug_vis=on),
            ),
        )
        env = make_env(2, {"robot": robot_cfg()}, scene=scene)
        if on:
            centers = shapes_of(env, [1], hidden={"sensor touch"}).pos
            np.testing.assert_allclose(centers[0], env.scene.env_origins[1])
        return list(env.debug_vis_sources)

    assert sources(True) == ["sensor touch", "terrain"] and sources(False) == []


# -- ray-traced pictures ---------------------------------------------------------------------------


def drawn() -> Shapes:
    """A blue sphere next to the ball, and one under the floor, which must not be seen."""
    draw = DebugVisualizer()
    draw.add_sphere((1.2, 0.0, 0.6), 0.4, (0, 0, 1, 1))
    draw.add_arrow((-1.0, 0.0, 0.5), (-1.0, 0.8, 0.5), (1, 1, 1, 0.5), width=0.1)
    draw.add_sphere((-1.2, 0.0, -1.0), 0.4, (0, 0, 1, 1))
    return draw.shapes()


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
@pytest.mark.parametrize("camera", [None, "above"])
def test_both_renderers_draw_shapes_in_the_same_pixels(engine, camera):
    pytest.importorskip("mujoco_warp", reason="needs mujoco_warp")
    need_gl()
    from mjlab_rec.sim.gl_renderer import GlRenderer
    from mjlab_rec.sim.warp_renderer import WarpRenderer

    sim = ball_sim(engine)
    place(sim, 1, 0.3, 0.0)
    cfg = ViewerConfig(
        width=120, height=90, camera=camera, debug_vis=True, enable_shadows=False, max_extra_envs=0
    )
    pictures = {}
    for kind in (GlRenderer, WarpRenderer):
        renderer = kind(sim, cfg, ball_scene(sim))
        shot = renderer.capture([1, 0], [drawn(), DebugVisualizer().shapes()])
        pictures[kind] = renderer.draw(shot)
        assert (renderer.draw(renderer.capture([0]))[0] == pictures[kind][1]).all()
        renderer.close()

    def where(image: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis(image.astype(int), 2, 0)
        return (blue > 90) & (red < 60) & (green < 60)

    gl, warp = (where(picture[0]) for picture in pictures.values())
    assert gl.sum() > 60
    assert (gl & warp).sum() > 0.9 * (gl | warp).sum()
    assert not any(where(picture[1]).any() for picture in pictures.values())


def test_shapes_behind_things_are_hidden_and_others_shine_through():
    from mjlab_rec.sim.shape_overlay import Lens, ShapeOverlay

    def picture(depth: float, alpha: float = 1.0, **lens: Any) -> np.ndarray:
        image = np.full((40, 60, 3), 100, np.uint8)
        draw = DebugVisualizer()
        draw.add_box((0, 0, -5.0), (1, 1, 1), np.eye(3), (1, 0, 0, alpha))
        lens = Lens(**{"focal": (60.0, 60.0), "center": (30.0, 20.0), **lens})
        overlay = ShapeOverlay()
        where = np.full((40, 60), depth, np.float32), lens, np.zeros(3), np.eye(3)
        overlay.draw(image, *where, draw.shapes())
        return image

    front = picture(0.0)  # nothing else in the picture
    assert front[20, 30].tolist() == pytest.approx([250, 0, 0], abs=6)
    columns = np.flatnonzero(front[20, :, 1] == 0)
    assert (columns.min(), columns.max()) == (15, 44)  # 60 pixels * 1 m / 4 m on both sides
    assert (picture(3.9) == 100).all() and (picture(4.1) == front).all()
    assert picture(0.0, alpha=0.5)[20, 30].tolist() == pytest.approx([175, 50, 50], abs=4)
    flat = picture(0.0, focal=(10.0, 10.0), orthographic=True)
    assert np.flatnonzero(flat[20, :, 1] == 0).tolist() == list(range(20, 40))
