"""Draw commands as plain numbers, MuJoCo's scenes that get them, and the environment's hooks."""

from __future__ import annotations

import logging
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from debug_worlds import SPHERE, Goal, Height, drawn_cfg, share, world_picture
from render_worlds import need_gl
from worlds import actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.sim import gl
from mjlab_rec.sim.debug_gl import ShapeDrawer
from mjlab_rec.sim.debug_shapes import (
    ALL_ENVS,
    ARROW,
    BOX,
    CYLINDER,
    ELLIPSOID,
    joined,
    no_shapes,
    turns_to,
)
from mjlab_rec.sim.debug_visualizer import shapes_of
from mjlab_rec.sim.ghosts import ghost_parts
from mjlab_rec.sim.meshes import geom_triangles, unit_triangles
from mjlab_rec.viewer.debug_visualizer import DebugVisualizer, NullDebugVisualizer
from mjlab_rec.viewer.viewer_config import ViewerConfig

RED = (1.0, 0.0, 0.0, 0.5)
# A mesh, two materials, and geoms that ghosts leave out: fixed, transparent and of group 3.
ROBOT = """
<mujoco>
  <asset>
    <mesh name="wedge" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/>
    <material name="blue" rgba="0 0 1 1"/>
  </asset>
  <worldbody>
    <geom name="ground" type="plane" size="1 1 1"/>
    <body pos="0 0 1">
      <freejoint/>
      <geom name="ball" size=".1" rgba="1 0 0 1" pos="0 0 .2"/>
      <geom name="rod" type="capsule" size=".05 .2" material="blue"/>
      <geom name="chip" type="mesh" mesh="wedge" material="blue" quat="0 1 0 0"/>
      <geom name="glass" size=".3" rgba="1 1 1 0"/>
      <geom name="hull" size=".3" group="3"/>
      <body pos="0 0 .5">
        <joint axis="0 1 0"/>
        <geom name="can" type="cylinder" size=".05 .1"/>
        <geom name="brick" type="box" size=".1 .2 .3"/>
      </body>
    </body>
    <body name="flag" mocap="true" pos="2 0 0"><geom name="egg" type="ellipsoid" size=".1 .2 .3"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(ROBOT)


# -- commands --------------------------------------------------------------------------------------


def test_shapes_are_rows_of_numbers():
    draw = DebugVisualizer(3)
    draw.add_arrow((0, 0, 1), torch.tensor([0.0, 2.0, 1.0]), RED, width=0.1, label="up")
    draw.add_cylinder([0, 0, 0], np.array([0, 0, 4.0]), 0.2, (0, 1, 0))
    draw.add_sphere(np.array([1.0, 2, 3]), 0.3, RED)
    draw.add_ellipsoid((0, 0, 0), (1, 2, 3), np.eye(3), RED)
    draw.add_box((0, 0, 0), (1, 2, 3), np.eye(3).ravel(), RED)
    shapes = draw.shapes()
    assert shapes.kind.tolist() == [ARROW, CYLINDER, ELLIPSOID, ELLIPSOID, BOX]
    assert shapes.env.tolist() == [3] * 5
    assert shapes.labels == ("up", None, None, None, None)
    np.testing.assert_allclose(shapes.pos[:3], [[0, 0, 1], [0, 0, 2], [1, 2, 3]])
    np.testing.assert_allclose(
        shapes.size[:3], [[0.1, 0.1, 2], [0.2, 0.2, 2], [0.3] * 3], rtol=1e-6
    )
    np.testing.assert_allclose(shapes.mat[0, :, 2], [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(shapes.rgba[:2], [RED, (0, 1, 0, 1)])
    draw.clear()
    assert len(draw.shapes()) == 0 and draw.shapes().ghosts == ()


def test_a_frame_is_three_arrows_along_its_columns():
    draw = DebugVisualizer()
    turn = turns_to(np.array([[0.6, 0.0, 0.8]]))[0]
    draw.add_frame((1, 2, 3), turn, scale=0.5, axis_radius=0.02, alpha=0.4)
    draw.add_frame((0, 0, 0), torch.eye(3), axis_colors=((1, 1, 0), (0, 1, 1), (1, 0, 1)))
    shapes = draw.shapes()
    np.testing.assert_allclose(shapes.mat[:3, :, 2], turn.T, atol=1e-6)
    np.testing.assert_allclose(shapes.size[:3], [[0.02, 0.02, 0.5]] * 3, rtol=1e-6)
    np.testing.assert_allclose(
        shapes.rgba[:3], [[0.9, 0, 0, 0.4], [0, 0.9, 0, 0.4], [0, 0, 0.9, 0.4]], rtol=1e-6
    )
    np.testing.assert_allclose(shapes.rgba[3:, :3], [[1, 1, 0], [0, 1, 1], [1, 0, 1]])


def test_values_are_copied_at_once():
    draw, place = DebugVisualizer(), torch.zeros(3)
    draw.add_sphere(place, 0.1, RED)
    place[2] = 5.0
    draw.add_sphere(place, 0.1, RED)
    assert draw.shapes().pos[:, 2].tolist() == [0.0, 5.0]


def test_many_shapes_in_one_call_are_those_of_many_calls():
    starts, ends = np.random.default_rng(0).normal(size=(2, 20, 3))
    colors = np.random.default_rng(1).uniform(size=(20, 4))
    one, many = DebugVisualizer(), DebugVisualizer()
    one.add_arrow(starts, torch.from_numpy(ends), colors, width=np.linspace(0.1, 1.0, 20))
    one.add_sphere(starts, 0.1, RED)
    for i in range(20):
        many.add_arrow(starts[i], ends[i], colors[i], width=np.linspace(0.1, 1.0, 20)[i])
    for start in starts:
        many.add_sphere(start, 0.1, RED)
    for name in ("kind", "pos", "mat", "size", "rgba"):
        np.testing.assert_array_equal(getattr(one.shapes(), name), getattr(many.shapes(), name))


def test_what_cannot_be_drawn_is_left_out():
    draw = DebugVisualizer()
    draw.add_arrow((0, 0, 0), (0, 0, 0), RED)  # no direction
    draw.add_arrow((0, 0, 0), (0, float("nan"), 1), RED)
    draw.add_sphere((float("inf"), 0, 0), 0.1, RED)
    draw.add_sphere((0, 0, 0), 0.0, RED)
    draw.add_sphere(np.zeros((0, 3)), 0.1, RED)
    draw.add_sphere((0, 0, 0), 0.1, RED, label="good")
    assert draw.shapes().labels == ("good",)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, m: v.add_sphere((0, 0), 0.1, RED), r"add_sphere: center must be .*got \(2,\)"),
        (lambda v, m: v.add_arrow((0, 0, 0), 1.0, RED), r"add_arrow: end must be \(3,\) or"),
        (lambda v, m: v.add_arrow((0, 0, 0), (0, 0, 1), 0.1), "a color is red, green, blue"),
        (lambda v, m: v.add_box((0, 0, 0), (1, 1, 1), np.eye(2), RED), r"mat must be .*\(2, 2\)"),
        (lambda v, m: v.add_sphere(np.zeros((3, 3)), 1, np.ones((2, 4))), "2 values do not fit 3"),
        (lambda v, m: v.add_ghost_mesh(np.zeros(3), m), "qpos has 3 numbers, but .* nq=8"),
        (lambda v, m: v.add_ghost_mesh(np.zeros(8), m, mocap_pos=(1, 2)), "mocap_pos has 2"),
        (lambda v, m: v.add_frame((0, 0, 0), np.eye(3), axis_colors=(RED,)), "has 1 colours"),
    ],
)
def test_wrong_values_are_explained(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(DebugVisualizer(), model)


def test_which_environments_are_drawn():
    assert DebugVisualizer(2).get_env_indices(4) == [2]
    assert DebugVisualizer(4).get_env_indices(4) == []
    assert DebugVisualizer(1, show_all_envs=True).get_env_indices(3) == [0, 1, 2]
    some = DebugVisualizer(1, show_all_envs=True, env_ids=(1, 2, 7))
    assert some.get_env_indices(4) == [1, 2]
    some.add_sphere((0, 0, 0), 0.1, RED)
    assert some.shapes().env.tolist() == [ALL_ENVS]


def test_the_null_visualizer_forgets_everything(model):
    draw = NullDebugVisualizer(1, meansize=0.4)
    draw.add_frame((0, 0, 0), np.eye(3))
    draw.add_ghost_mesh(np.zeros(8), model)
    assert not len(draw.shapes()) and not draw.shapes().ghosts
    assert draw.get_env_indices(2) == [1] and draw.meansize == 0.4


def test_shapes_move_with_their_environment():
    draw = DebugVisualizer(1)
    draw.add_sphere((0, 0, 0), 0.1, RED)
    other = DebugVisualizer(0, show_all_envs=True)
    other.add_sphere((0, 0, 1), 0.1, RED)
    offsets = np.array([[1.0, 0, 0], [0, 2.0, 0]])
    moved = joined([draw.shapes(), other.shapes()]).moved((0, 1), offsets)
    assert moved.pos.tolist() == [[0, 2, 0], [0, 0, 1]]
    assert no_shapes().moved((0, 1), offsets).pos.shape == (0, 3)


def test_what_is_drawn_twice_is_drawn_once():
    draw = DebugVisualizer(0)
    draw.add_sphere((0, 0, 0), 0.1, RED, label="a")
    other = DebugVisualizer(1)
    other.add_sphere((0, 0, 0), 0.1, RED, label="b")
    other.add_sphere((0, 0, 1), 0.1, RED, label="c")
    assert joined([draw.shapes(), other.shapes()]).labels == ("a", "c")


# -- surfaces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ARROW, CYLINDER, ELLIPSOID, BOX])
def test_surfaces_are_closed_and_face_outwards(kind):
    mesh = unit_triangles(kind)
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
    inside = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0
    volume = {
        BOX: 8.0,
        ELLIPSOID: 4 / 3 * np.pi,
        CYLINDER: 2 * np.pi,
        ARROW: np.pi * (0.75 + 4 / 12),
    }
    assert 0.9 * volume[kind] < inside <= volume[kind] * 1.001
    # Every edge has a triangle on both sides.
    corner = np.unique(mesh.vertices.round(4), axis=0, return_inverse=True)[1].ravel()[mesh.faces]
    edges = np.concatenate([corner[:, [0, 1]], corner[:, [1, 2]], corner[:, [2, 0]]])
    edges = {tuple(edge) for edge in edges if edge[0] != edge[1]}
    assert edges == {(b, a) for a, b in edges}
    assert np.allclose(np.linalg.norm(mesh.normals(), axis=1), 1.0, atol=1e-5)


def test_ghosts_show_what_moves_and_is_visible(model):
    parts = {(part.body, part.color): part for part in ghost_parts(model)}
    grey = (0.5, 0.5, 0.5)
    assert {body for body, _ in parts} == {1, 2, 3}
    assert set(parts) == {(1, (1.0, 0.0, 0.0)), (1, (0.0, 0.0, 1.0)), (2, grey), (3, grey)}
    ball = parts[1, (1.0, 0.0, 0.0)].mesh.vertices
    np.testing.assert_allclose(ball.mean(axis=0), [0, 0, 0.2], atol=0.02)
    blue = parts[1, (0.0, 0.0, 1.0)].mesh
    assert len(blue.faces) == sum(
        len(geom_triangles(model, model.geom(name).id).faces) for name in ("rod", "chip")
    )
    np.testing.assert_allclose(
        np.ptp(parts[2, grey].mesh.vertices, axis=0), [0.2, 0.4, 0.6], atol=1e-6
    )
    rod = geom_triangles(model, model.geom("rod").id).vertices
    np.testing.assert_allclose(np.ptp(rod, axis=0), [0.1, 0.1, 0.5], atol=1e-6)


# -- MuJoCo's scenes -------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [((1, 0, 1), (0.2, 0.3, 3)), ((0, 0, 1), (0, 0, -3))])
def test_mujoco_gets_the_geoms_that_it_would_make_itself(model, line):
    kinds = {
        "add_arrow": mujoco.mjtGeom.mjGEOM_ARROW,
        "add_cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    }
    for name, kind in kinds.items():
        own, ours = mujoco.MjvScene(model, 10), mujoco.MjvScene(model, 10)
        nothing = np.zeros(3), np.zeros(3), np.zeros(9), np.array(RED, np.float32)
        mujoco.mjv_initGeom(own.geoms[0], kind, *nothing)
        mujoco.mjv_connector(own.geoms[0], kind, 0.1, *(np.array(end, float) for end in line))
        draw = DebugVisualizer()
        if name == "add_arrow":
            draw.add_arrow(*line, RED, width=0.1)
        else:
            draw.add_cylinder(*line, 0.1, RED)
        ShapeDrawer(model).draw(ours, draw.shapes())
        a, b = own.geoms[0], ours.geoms[0]
        assert ours.ngeom == 1 and b.type == kind
        length = 1.0 if kind == mujoco.mjtGeom.mjGEOM_CYLINDER else 2.0  # See the next test.
        np.testing.assert_allclose(b.size, a.size * (1.0, 1.0, length), atol=1e-6)
        for part in ("pos", "rgba"):
            np.testing.assert_allclose(getattr(b, part), getattr(a, part), atol=1e-6)
        np.testing.assert_allclose(b.mat[:, 2], a.mat[:, 2], atol=1e-6)


def test_lines_are_drawn_from_end_to_end():
    """MuJoCo itself draws arrows half as long as it is told."""
    need_gl()
    size = 200
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    context = gl.GlContext(model, size, size, gl.find_backend())
    context.make_current()
    camera = mujoco.MjvCamera()
    camera.distance, camera.elevation, camera.azimuth = 10.0, 0.0, 90.0
    frame = mujoco.MjrRect(0, 0, size, size)
    pixels_per_metre = size / 2 / np.tan(np.radians(22.5)) / 10.0
    for name in ("add_arrow", "add_cylinder"):
        draw, scene = DebugVisualizer(), mujoco.MjvScene(model, 10)
        options = mujoco.MjvOption(), mujoco.MjvPerturb(), camera, mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, mujoco.MjData(model), *options, scene)
        if name == "add_arrow":
            draw.add_arrow((0, 0, -1), (0, 0, 2), (1, 1, 1, 1), width=0.2)
        else:
            draw.add_cylinder((0, 0, -1), (0, 0, 2), 0.2, (1, 1, 1, 1))
        ShapeDrawer(model).draw(scene, draw.shapes())
        image = np.zeros((size, size, 3), np.uint8)
        mujoco.mjr_render(frame, scene, context.mjr)
        mujoco.mjr_readPixels(image, None, frame, context.mjr)
        rows, _ = np.nonzero(image[..., 0] > 100)
        ends = (
            (rows.min() - size / 2) / pixels_per_metre,
            (rows.max() - size / 2) / pixels_per_metre,
        )
        np.testing.assert_allclose(ends, (-1.0, 2.0), atol=0.2, err_msg=name)
    context.close()


def test_a_ghost_is_the_models_moving_geoms_in_its_pose(model):
    scene = mujoco.MjvScene(model, 100)
    qpos = np.array([0, 0, 3.0, 1, 0, 0, 0, 0.5])
    draw = DebugVisualizer()
    draw.add_ghost_mesh(torch.from_numpy(qpos), model, mocap_pos=(5, 0, 0), alpha=0.25)
    ShapeDrawer(model).draw(scene, draw.shapes().moved((0,), np.array([[0, 1.0, 0]])))
    data = mujoco.MjData(model)
    data.qpos[:], data.mocap_pos[0] = qpos, (5, 0, 0)
    mujoco.mj_kinematics(model, data)
    shown = [
        geom for geom in scene.geoms[: scene.ngeom] if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM
    ]
    ids = {model.geom(name).id for name in ("ball", "rod", "chip", "can", "brick", "egg")}
    assert {geom.objid for geom in shown} == ids
    for geom in shown:
        np.testing.assert_allclose(geom.pos, data.geom_xpos[geom.objid] + (0, 1, 0), atol=1e-6)
        assert geom.rgba[3] == 0.25


def test_a_full_scene_and_a_foreign_ghost_are_said_once(model, caplog):
    draw, scene = DebugVisualizer(), mujoco.MjvScene(model, 5)
    draw.add_sphere(np.zeros((9, 3)), 0.1, RED)
    drawer = ShapeDrawer(model)
    for _ in range(2):
        scene.ngeom = 2
        drawer.draw(scene, draw.shapes())
        assert scene.ngeom == 5
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "room for 5 shapes" in caplog.text
    scene.ngeom = 0
    other = mujoco.MjModel.from_xml_string(ROBOT.replace("egg", "e").replace('name="hull"', ""))
    smaller = mujoco.MjModel.from_xml_string("<mujoco/>")
    draw.clear()
    draw.add_ghost_mesh(np.zeros(0), smaller)
    drawer = ShapeDrawer(other)
    drawer.draw(scene, draw.shapes())
    assert scene.ngeom == 0 and "a copy of env.sim.mj_model" in caplog.text


# -- the environment -------------------------------------------------------------------------------


@pytest.fixture
def env() -> Any:
    with ManagerBasedRlEnv(drawn_cfg(3)) as env:
        env.reset(seed=0)
        yield env


def test_everything_that_draws_is_asked_and_has_a_name(env):
    assert list(env.debug_vis_sources) == [
        *("command goal", "event still", "observation still", "reward height"),
    ]
    shapes = shapes_of(env, [1])
    assert shapes.kind.tolist() == [ELLIPSOID, *[ARROW] * 3, ELLIPSOID, CYLINDER, BOX]
    assert shapes.labels[0] == "goal_1" and len(shapes.ghosts) == 1
    hidden = shapes_of(env, [1], hidden={"command goal", "reward height"})
    assert hidden.kind.tolist() == [ELLIPSOID, CYLINDER] and not hidden.ghosts


def test_environments_are_drawn_together_or_each_for_itself(env):
    together, apart = shapes_of(env, [0, 2]), shapes_of(env, [0, 2], apart=True)
    assert set(together.env) == {ALL_ENVS} and set(apart.env) == {0, 2}
    assert len(together) == len(apart) == 12  # What belongs to no environment is there once.
    order = np.lexsort(together.pos.T), np.lexsort(apart.pos.T)
    np.testing.assert_array_equal(together.pos[order[0]], apart.pos[order[1]])
    assert [ghost.env for ghost in apart.ghosts] == [0, 2]


def test_a_command_draws_only_if_its_config_says_so(env):
    term = env.command_manager.get_term("goal")
    term.cfg.debug_vis = False
    assert "command goal" not in env.debug_vis_sources
    assert not (shapes_of(env, [0]).rgba == SPHERE).all(axis=1).any()


def test_drawing_changes_no_bit_of_the_rollout():
    def rollout(draws: bool) -> list[torch.Tensor]:
        trace = []
        torch.manual_seed(0)
        with ManagerBasedRlEnv(drawn_cfg(3)) as env:
            env.reset(seed=0)
            for action in actions(25, 3):
                if draws:
                    shapes_of(env, [0, 1, 2], apart=True)
                obs, *rest = env.step(action)
                trace += [obs["actor"], *rest[:3], env.sim.get_state().clone()]
        return [*trace, torch.rand(3)]

    assert all(torch.equal(a, b) for a, b in zip(rollout(True), rollout(False), strict=True))


def test_nothing_is_asked_while_nobody_watches():
    Goal.calls = Height.calls = 0
    with ManagerBasedRlEnv(drawn_cfg(2), render_mode="rgb_array") as env:
        assert not ViewerConfig().debug_vis and not env.cfg.viewer.debug_vis
        env.reset(seed=0)
        for action in actions(5, 2):
            env.step(action)
        assert Goal.calls == Height.calls == 0
        shapes_of(env, [0])
        assert Goal.calls == Height.calls == 1


def test_a_picture_of_the_environment_has_the_shapes():
    need_gl()

    pictures = {}
    for on in (False, True):
        cfg = drawn_cfg(2, viewer=world_picture(debug_vis=on))
        with ManagerBasedRlEnv(cfg, render_mode="rgb_array") as env:
            env.reset(seed=0)
            state = env.sim.get_state().clone()
            pictures[on] = env.render()
            assert torch.equal(state, env.sim.get_state())
    for color, least in ((0, 0.002), (1, 0.003)):  # the goal, and the ghost with the box
        assert share(pictures[False], color) == 0.0
        assert share(pictures[True], color) > least


# -- resets that the web page asks for -------------------------------------------------------------


class Placed(Goal):
    """Puts the cart where the page says."""

    at = None

    def apply_gui_reset(self, env_ids: torch.Tensor) -> bool:
        if Placed.at is None:
            return False
        robot = self._env.scene["robot"]
        place = torch.full((len(env_ids), 2), Placed.at)
        robot.write_joint_state_to_sim(place, torch.zeros_like(place), env_ids=env_ids)
        return True


def test_a_reset_from_the_page_is_seen_by_observations_and_recorders(monkeypatch):
    cfg = drawn_cfg(2)
    monkeypatch.setattr("debug_worlds.Goal", Placed)
    ids = torch.tensor([1])
    with ManagerBasedRlEnv(cfg) as env:
        env.reset(seed=0)
        env.step(torch.zeros(2, 1))
        monkeypatch.setattr(Placed, "at", 0.25)
        obs, _ = env.reset(env_ids=ids, options={"gui_reset": True})
        joints = env.scene["robot"].data.joint_pos
        assert joints[1].tolist() == [0.25, 0.25] and joints[0].tolist() != [0.25, 0.25]
        assert obs["critic"]["past"][1, -3].item() == pytest.approx(0.25 + np.sin(0.25), abs=1e-5)
        env.reset(env_ids=ids)
        assert env.scene["robot"].data.joint_pos[1].tolist() != [0.25, 0.25]


def test_plain_environments_have_nothing_that_draws():
    with ManagerBasedRlEnv(cart_cfg(1)) as env:
        env.reset()
        assert env.debug_vis_sources == {} and not len(shapes_of(env, [0]))
