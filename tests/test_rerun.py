"""What the Rerun recorder writes, read back from its files."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections import defaultdict
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from ports import free_port
from waiting import PATIENCE_S, until
from worlds import CART, actions, cart_cfg

from mjlab_rec.actuator import XmlActuatorCfg
from mjlab_rec.data.schema import DataError
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders.progress import progress
from mjlab_rec.recorders.rerun import RerunRecorder, RerunRecorderCfg, scene
from mjlab_rec.recorders.rerun import viewer as viewer_module
from mjlab_rec.recorders.rerun.blueprint import default_blueprint
from mjlab_rec.recorders.rerun.viewer import RerunViewer, listens
from mjlab_rec.recorders.triggers import trigger_from, when
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg
from mjlab_rec.utils.extras import MissingExtraError

ROOT = Path(__file__).parents[1]

# Every shape that may move, on the cart; none collides but the foot, which stands on the ground.
ZOO = CART.replace(
    "<worldbody>",
    """<asset>
      <mesh name="wedge" vertex="0 0 0  0.3 0 0  0 0.2 0  0 0 0.1"/>
      <material name="red" rgba="1 0 0 1"/>
    </asset>
    <worldbody>""",
).replace(
    '<body name="pole">',
    """<geom name="ball" type="sphere" size="0.11" pos="0.1 0 0.3" contype="0" conaffinity="0"/>
      <geom name="egg" type="ellipsoid" size="0.1 0.2 0.05" euler="10 20 30" contype="0"
        conaffinity="0" rgba="0 1 0 0.5"/>
      <geom name="can" type="cylinder" size="0.07 0.2" euler="40 0 0" contype="0" conaffinity="0"
        material="red"/>
      <geom name="rod" type="capsule" size="0.03 0.2" euler="30 40 50" contype="0"
        conaffinity="0"/>
      <geom name="chip" type="mesh" mesh="wedge" pos="0 0.3 0" contype="0" conaffinity="0"/>
      <geom name="hidden" type="box" size="0.01 0.01 0.01" group="3" contype="0" conaffinity="0"/>
      <geom name="foot" type="box" size="0.02 0.02 0.02" pos="0 0 -0.985"/>
      <camera name="eye" pos="0 -2 0.5" xyaxes="1 0 0 0 0.2 1" fovy="50"/>
      <body name="pole">""",
)
MOVED = ("ball", "egg", "can", "rod", "chip", "foot", "cart", "pole")


def zoo_cfg(num_envs=4, xml=ZOO, **overrides):
    robot = EntityCfg(
        spec_fn=lambda: mujoco.MjSpec.from_string(xml),
        articulation=EntityArticulationInfoCfg(
            actuators=(XmlActuatorCfg(target_names_expr=("slider",)),)
        ),
    )
    scene = SceneCfg(
        num_envs=num_envs,
        terrain=TerrainEntityCfg(terrain_type="plane", env_spacing=0.0),
        entities={"robot": robot},
    )
    return cart_cfg(num_envs, scene=scene, sim=sim_cfg(), **overrides)


def sim_cfg():
    return SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine="mjbatch")


class TruePoses(RecorderTerm):
    """Notes where the simulation itself has its geoms after each step, before any reset."""

    def __init__(self, cfg, env):
        super().__init__(cfg, env)
        self.frames, self.resets, self.last = [], [], None

    def record_pre_reset(self, env_ids):
        mask = torch.zeros(self._env.num_envs, dtype=torch.bool)
        mask[env_ids] = True
        self._env.sim.forward(mask)
        self.last = (env_ids, *self.now())
        self.resets.append((self._env.common_step_counter, env_ids.tolist()))

    def record_post_step(self):
        place, turn = self.now()
        if self.last is not None:
            env_ids, final_place, final_turn = self.last
            place[env_ids], turn[env_ids] = final_place[env_ids], final_turn[env_ids]
            self.last = None
        self.frames.append((place.numpy(), turn.numpy()))

    def now(self):
        data = self._env.sim.data
        return data.geom_xpos.clone(), data.geom_xmat.clone().reshape(self._env.num_envs, -1, 3, 3)


@pytest.fixture(scope="module", autouse=True)
def strict():
    rerun = pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    rerun.set_strict_mode(True)
    rerun.set_global_data_recording(None)  # A test elsewhere may have left one.
    yield
    rerun.set_strict_mode(False)


def recorded(tmp_path, steps=30, num_envs=4, cfg=None, then=None, **fields):
    """Run with a recorder and a log of the truth; returns the file read, the log and the model."""
    path = tmp_path / "run.rrd"
    rec = RerunRecorderCfg(**{"path": str(path), "block_steps": 8, "trigger": None, **fields})
    cfg = cfg or zoo_cfg(num_envs)
    cfg.recorders = {"truth": RecorderTermCfg(func=TruePoses), "rerun": rec}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        term, truth = (env.recorder_manager.get_term(name) for name in ("rerun", "truth"))
        for k, action in enumerate(actions(steps, num_envs)):
            if then is not None:
                then(k, env, term)
            env.step(action)
        model = env.sim.mj_model
    return (read(path) if path.exists() else None), truth, model


class Entity:
    """All that a file says of an entity: components by name, at their times."""

    def __init__(self):
        self.static, self.rows = {}, defaultdict(list)

    def column(self, name):
        """Values of a component in the order of time, and the two times of each."""
        rows = sorted(self.rows[name], key=lambda row: row[0]["step"])
        values = [value for _, value in rows]
        return values, [t["step"] for t, _ in rows], [t["time"] / 1e9 for t, _ in rows]

    def first_static(self, name):
        return np.array(self.static[name])


def test_there_may_be_fewer_environments_than_are_wanted(tmp_path):
    """So that a preset with many serves a small run too."""
    file, truth, model = recorded(tmp_path, envs=16, num_envs=2, steps=3)
    assert len(truth.frames[0][0]) == 2
    assert any(file[path].rows for path in file)


def read(path):
    from rerun.chunk import RrdReader

    entities = defaultdict(Entity)
    for chunk in RrdReader(str(path)).stream():
        batch = chunk.to_record_batch()
        names = batch.schema.names
        timelines = [name for name in names if name in chunk.timeline_names]
        for name in names:
            if ":" not in name or name == "rerun.controls:RowId" or name.startswith("rerun."):
                continue
            values = batch.column(name).to_pylist()
            entity = entities[str(chunk.entity_path)]
            if chunk.is_static:
                entity.static[name] = values[-1]
                continue
            times = {t: batch.column(t).cast("int64").to_pylist() for t in timelines}
            for row, value in enumerate(values):
                entity.rows[name].append(({t: times[t][row] for t in timelines}, value))
    return entities


def shown(entity, component, at, timeline="step"):
    """What a viewer shows at a time of a timeline: the latest value on it."""
    rows = [(t[timeline], value) for t, value in entity.rows[component] if timeline in t]
    known = [row for row in rows if row[0] <= at]
    return max(known, key=lambda row: row[0])[1] if known else entity.static.get(component)


def own_times(entity, component="InstancePoses3D:translations"):
    """Numbers on each timeline of steps, in the order of time."""
    found = defaultdict(list)
    for times, _ in sorted(entity.rows[component], key=lambda row: row[0]["step"]):
        for name, at in times.items():
            if name.endswith("_timestamp"):
                assert at == times[name.replace("_timestamp", "_step")] * 40_000_000
            elif name.endswith("_step"):
                found[name].append((times["step"], at))
    return dict(found)


def geom_path(name):
    return "/world/robot/pole/pole" if name == "pole" else f"/world/robot/cart/{name}"


def poses_of(entity):
    places, steps, times = entity.column("InstancePoses3D:translations")
    turns, *_ = entity.column("InstancePoses3D:quaternions")
    return np.array(places), np.array(turns), steps, times


def turned(quat, vector):
    """Vectors turned by quaternions whose real part comes last."""
    xyz, w = quat[..., :3], quat[..., 3:]
    t = 2 * np.cross(xyz, vector)
    return vector + w * t + np.cross(xyz, t)


def check_poses(file, truth, model, steps, env_indices=slice(None)):
    """Each geom is where the simulation had it, in the frames of these steps."""
    for name in MOVED:
        places, turns, at, times = poses_of(file[geom_path(name)])
        assert at == list(steps), name
        np.testing.assert_allclose(times, np.array(steps) * 0.04, rtol=1e-12)
        index = model.geom(f"robot/{name}").id
        true_place = np.stack([truth.frames[s - 1][0][env_indices, index] for s in steps])
        true_turn = np.stack([truth.frames[s - 1][1][env_indices, index] for s in steps])
        if name in ("pole", "rod"):  # Rerun's capsules begin at their origin.
            places = places + turned(turns, np.array([0, 0, model.geom_size[index, 1]]))
        np.testing.assert_allclose(places, true_place, atol=2e-6, err_msg=name)
        axes = np.stack([turned(turns, axis) for axis in np.eye(3)], axis=-1)
        np.testing.assert_allclose(axes, true_turn, atol=4e-6, err_msg=name)


def test_frames_show_where_each_step_led_also_at_the_last_of_an_episode(tmp_path):
    file, truth, model = recorded(tmp_path)
    assert len(truth.resets) > 5
    check_poses(file, truth, model, range(1, 31))


def test_chosen_environments_are_the_instances(tmp_path):
    file, truth, model = recorded(tmp_path, envs=(3, 1))
    check_poses(file, truth, model, range(1, 31), env_indices=[3, 1])


def test_every_so_many_steps(tmp_path):
    file, truth, model = recorded(tmp_path, every=4)
    check_poses(file, truth, model, range(1, 31, 4))


def test_poses_are_right_where_worlds_differ_in_their_model(tmp_path):
    events = {
        "start": zoo_cfg().events["start"],
        "shift": EventTermCfg(
            func=mdp.dr.geom_pos,
            mode="reset",
            params={
                "ranges": (-0.2, 0.2),
                "operation": "add",
                "asset_cfg": SceneEntityCfg("robot", geom_names=("ball", "egg")),
            },
        ),
    }
    events["turn"] = EventTermCfg(
        func=mdp.dr.geom_quat,
        mode="reset",
        params={
            "roll_range": (-1.0, 1.0),
            "yaw_range": (-1.0, 1.0),
            "asset_cfg": SceneEntityCfg("robot", geom_names=("egg", "rod")),
        },
    )
    file, truth, model = recorded(tmp_path, cfg=zoo_cfg(events=events))
    index = model.geom("robot/ball").id
    ball = np.stack([place[:, index] - place[:, 0] for place, _ in truth.frames])
    assert len(np.unique(ball[..., 1].round(5))) > 6
    check_poses(file, truth, model, range(1, 31))


def test_sizes_and_colours_of_worlds_are_written_when_they_change(tmp_path):
    events = {
        name: EventTermCfg(
            func=func,
            mode="reset",
            params={
                "ranges": ranges,
                "operation": "abs",
                "asset_cfg": SceneEntityCfg("robot", geom_names=("ball",)),
            },
        )
        for name, func, ranges in (
            ("size", mdp.dr.geom_size, {0: (0.1, 0.3)}),
            ("color", mdp.dr.geom_rgba, (0.1, 1.0)),
        )
    }
    seen = []

    def note(k, env, term):
        seen.append(env.sim.model.geom_size[:, ball(env), 0].tolist())

    def ball(env):
        return env.sim.mj_model.geom("robot/ball").id

    file, truth, _ = recorded(tmp_path, cfg=zoo_cfg(events=events), then=note, block_steps=2)
    sizes, steps, _ = file[geom_path("ball")].column("Ellipsoids3D:half_sizes")
    # Between steps k and k + 1 worlds have what the frame of step k + 1 shows.
    changed = [k + 1 for k in range(30) if k == 0 or seen[k] != seen[k - 1]]
    assert steps == changed and len(changed) > 5
    for size, step in zip(sizes, steps, strict=True):
        expected = np.repeat(np.array(seen[step - 1])[:, None], 3, axis=1)
        np.testing.assert_allclose(size, expected, rtol=1e-6)


def test_each_geom_is_one_entity_with_its_shape_size_and_colour(tmp_path):
    file, _, model = recorded(tmp_path, steps=10)
    half = [0.2, 0.15, 0.1]
    expected = {
        "cart": {"Boxes3D:half_sizes": [half] * 4},
        "ball": {"Ellipsoids3D:half_sizes": [[0.11] * 3] * 4},
        "egg": {"Ellipsoids3D:half_sizes": [[0.1, 0.2, 0.05]] * 4},
        "can": {"Cylinders3D:lengths": [0.4] * 4, "Cylinders3D:radii": [0.07] * 4},
        "pole": {"Capsules3D:lengths": [1.0] * 4, "Capsules3D:radii": [0.045] * 4},
    }
    for name, parts in expected.items():
        for component, value in parts.items():
            found = file[geom_path(name)].first_static(component)
            np.testing.assert_allclose(found, value, rtol=1e-6, err_msg=name)
    color = {name: file[geom_path(name)].static for name in ("can", "egg")}
    assert color["can"]["Cylinders3D:colors"] == [0xFF0000FF] * 4
    assert color["egg"]["Ellipsoids3D:colors"] == [0x00FF0080] * 4
    shapes = [p for p, e in file.items() if p.startswith("/world/") and e.static]
    drawn = [f"/world/{n}" for n in ("cameras/robot/eye",)]
    drawn += [geom_path(name) for name in MOVED]
    assert set(drawn) < set(shapes)
    assert geom_path("hidden") not in file
    assert len(shapes) == len(drawn) + 1  # and the ground


def test_a_mesh_has_the_models_triangles(tmp_path):
    file, _, model = recorded(tmp_path, steps=3)
    chip = file[geom_path("chip")]
    vertices = chip.first_static("Mesh3D:vertex_positions")
    triangles = chip.first_static("Mesh3D:triangle_indices")
    corners = np.sort(vertices[triangles].reshape(-1, 9), axis=0)
    truth = np.sort(model.mesh_vert[model.mesh_face].reshape(-1, 9), axis=0)
    np.testing.assert_allclose(corners, truth, atol=1e-7)


def test_unmoved_things_are_there_once_and_for_all(tmp_path):
    file, _, model = recorded(tmp_path, steps=10)
    meshes = [path for path, e in file.items() if "Mesh3D:vertex_positions" in e.static]
    ground = [path for path in meshes if "robot" not in path]
    assert len(ground) == 1
    assert file[ground[0]].static["InstancePoses3D:translations"] == [[0.0, 0.0, 0.0]]
    assert not file[ground[0]].rows


def scene_model():
    return mujoco.MjModel.from_xml_string(
        """<mujoco>
          <asset>
            <hfield name="hill" nrow="2" ncol="3" size="3 2 0.5 0.1" elevation="0 0 0  1 0.5 0"/>
            <texture name="dots" type="2d" builtin="flat" rgb1="1 0.5 0" width="8" height="8"/>
            <material name="dotted" texture="dots"/>
          </asset>
          <worldbody>
            <geom name="hill" type="hfield" hfield="hill" pos="0 0 1"/>
            <geom name="floor" type="plane" size="4 5 0.1" material="dotted"/>
            <geom type="plane" size="0 0 1"/>
            <body name="a/b" mocap="true"><geom name="c" size="0.1"/><geom name="c/c" size="0.1"/>
            </body>
          </worldbody>
        </mujoco>"""
    )


def test_a_height_field_has_its_heights_and_a_plane_its_sides():
    model = scene_model()
    hill = scene.mesh_of(model, model.geom("hill").id)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for x, y, z in hill.vertices:
        above = np.array([x, y, 9.0]) * 0.999  # a ray at the very edge would miss
        fall = mujoco.mj_rayHfield(model, data, 0, above, np.array([0, 0, -1.0]), None)
        assert 1.0 + z == pytest.approx(above[2] - fall, abs=2e-3)
    assert sorted(hill.vertices[:, 2].round(5).tolist()) == [0, 0, 0, 0, 0.25, 0.5]
    assert len(hill.triangles) == 4
    corners = hill.vertices[hill.triangles]
    up = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (up[:, 2] > 0).all() and (hill.normals[:, 2] > 0).all()
    floor = scene.mesh_of(model, model.geom("floor").id)
    assert np.abs(floor.vertices).max(axis=0).tolist() == [4.0, 5.0, 0.0]
    endless = scene.mesh_of(model, 2)
    assert np.abs(endless.vertices).max() >= 10.0


def test_geoms_have_paths_of_their_own_and_mocap_bodies_move():
    geoms = scene.drawn_geoms(scene_model(), (0,), ())
    assert [g.path for g in geoms] == [
        "/world/hill",
        "/world/floor",
        "/world/geom_2",
        "/world/a/b/c",
        "/world/a/b/c_4",
    ]
    assert [g.moves for g in geoms] == [False, False, False, True, True]
    assert all(g.moves for g in scene.drawn_geoms(scene_model(), (0,), ("body_pos",)))


def test_a_textured_material_has_its_textures_mean_colour():
    model = scene_model()
    floor = model.geom("floor").id
    color = scene.colors_of(
        model.geom_rgba[floor][None],
        model.geom_matid[floor : floor + 1],
        model.mat_rgba[None],
        scene.texture_means(model),
    )
    np.testing.assert_allclose(color[0], [255, 128, 0, 255], atol=1)


def test_numbers_are_lines_per_environment_at_their_own_times(tmp_path):
    log = []

    def note(k, env, term):
        log.append((env.obs_buf["actor"].clone(), env.reward_buf.clone()))

    channels = ("reward", "reward_terms", "action", "obs/actor", "next_obs/actor")
    file, *_ = recorded(tmp_path, then=note, channels=channels)
    given = actions(30)
    values, steps, times = file["/action/push.slider"].column("Scalars:scalars")
    assert steps == list(range(1, 31))
    np.testing.assert_allclose(times, np.arange(1, 31) * 0.04)
    np.testing.assert_array_equal(values, torch.stack(given)[:, :, 0])
    # What the policy saw before step k + 1 it saw at step k.
    values, steps, _ = file["/obs/actor/joints.0"].column("Scalars:scalars")
    assert steps == list(range(30))
    np.testing.assert_array_equal(values, torch.stack([obs[:, 0] for obs, _ in log]))
    values, steps, _ = file["/reward"].column("Scalars:scalars")
    assert steps == list(range(1, 31))
    np.testing.assert_array_equal(values[:29], torch.stack([r for _, r in log[1:]]))
    parts = [file[f"/reward_terms/{n}"].column("Scalars:scalars")[0] for n in ("height", "effort")]
    np.testing.assert_allclose(np.add(*parts), values, rtol=1e-5)
    assert len(file["/next_obs/actor/joints.0"].column("Scalars:scalars")[0]) == 30
    assert file["/reward"].static["SeriesLines:names"] == [f"reward, env {i}" for i in range(4)]
    assert not [path for path in file if path.startswith("/summary")]


def test_an_environment_has_the_same_colour_in_all_plots(tmp_path):
    file, *_ = recorded(tmp_path, num_envs=8, steps=2)
    lines = ("/reward", "/reward_terms/height", "/action/push.slider")
    colors = [file[path].static["SeriesLines:colors"] for path in lines]
    assert colors[0] == colors[1] == colors[2]
    assert len(set(colors[0])) == 8
    alone, *_ = recorded(tmp_path / "alone", envs=(2,), steps=2)
    assert len({tuple(alone[path].static["SeriesLines:colors"]) for path in lines}) == 3
    assert alone["/reward"].static["SeriesLines:names"] == ["reward, env 2"]


def test_many_environments_are_summed_up_by_mean_least_and_most(tmp_path):
    trigger = "at_episodes(0, 2)"
    file, *_ = recorded(
        tmp_path, num_envs=12, steps=20, trigger=trigger, channels=("obs", "reward")
    )
    for path in ("/obs/actor/joints.0", "/reward"):
        lines, steps, _ = file[path].column("Scalars:scalars")
        found, at, _ = file[f"/summary{path}"].column("Scalars:scalars")
        assert at == steps
        assert np.isnan(lines).any()  # There are environments that the trigger does not pick.
        expected = [(np.nanmean(row), np.nanmin(row), np.nanmax(row)) for row in lines]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    names = file["/summary/reward"].static["SeriesLines:names"]
    assert names == ["reward, mean", "reward, min", "reward, max"]


@pytest.mark.parametrize("many", [False, True])
def test_the_plots_show_lines_or_statistics(many):
    model = mujoco.MjModel.from_xml_string(CART)
    names = ("reward", "reward_terms/height", "action", "terminated", "obs/actor")
    blueprint = default_blueprint(model, names, 0.0, many)
    scene_view, plots = blueprint.root_container.contents
    shown = {view.name: view.contents for view in plots.contents}
    lines = {
        "Rewards": ["/reward/**", "/reward_terms/**"],
        "Actions": ["/action/**"],
        "obs": ["/obs/**"],
    }
    summary = {name: [f"/summary{path}" for path in own] for name, own in lines.items()}
    assert shown == ({name: summary[name] + lines[name] for name in lines} if many else lines)
    for view in plots.contents:
        hidden = [path.removesuffix("/**") for path in lines[view.name]] if many else []
        assert list(view.visualizer_overrides) == hidden


def test_ends_of_episodes_are_text(tmp_path):
    file, truth, _ = recorded(tmp_path)
    texts, steps, _ = file["/episodes"].column("TextLog:text")
    expected = [(s, f"env {i}: ") for s, ids in truth.resets for i in ids]
    found = [(s, text[0][:7]) for s, text in zip(steps, texts, strict=True)]
    assert found[: len(expected)] == expected
    running = found[len(expected) :]  # Those that still ran are cut by the end.
    assert running and {step for step, _ in running} == {max(steps)}
    assert all(" cut after " in text[0] for text in texts[len(expected) :])
    assert "episode 0 terminated after 4 steps" in texts[0][0]


def test_contacts_are_where_the_foot_stands(tmp_path):
    file, *_ = recorded(tmp_path, contacts=True, channels=())
    points, steps, _ = file["/world/contacts"].column("Points3D:positions")
    assert steps == list(range(1, 31))
    feet, *_ = poses_of(file[geom_path("foot")])
    for found, foot in zip(points, feet, strict=True):
        assert len(found) == 16  # four corners in each of four worlds
        middles = np.array(found).reshape(4, 4, 3).mean(axis=1)
        np.testing.assert_allclose(middles[:, :2], foot[:, :2], atol=1e-4)
        assert np.abs(np.array(found)[:, 2]).max() < 0.01


def test_contacts_of_worlds_whose_geoms_have_grown(tmp_path):
    """The foot hangs in the air as compiled; randomized it reaches the ground."""
    high = ZOO.replace("0 0 -0.985", "0 0 -0.7")
    size = {
        "ranges": dict.fromkeys(range(3), (0.5, 0.5)),
        "operation": "abs",
        "asset_cfg": SceneEntityCfg("robot", geom_names=("foot",)),
    }
    cfg = zoo_cfg(
        events={"size": EventTermCfg(func=mdp.dr.geom_size, mode="reset", params=size)}, xml=high
    )
    file, *_ = recorded(tmp_path, cfg=cfg, contacts=True, channels=(), steps=6)
    points, *_ = file["/world/contacts"].column("Points3D:positions")
    assert [len(found) for found in points] == [16] * 6


def test_cameras_look_from_where_they_are(tmp_path):
    file, truth, model = recorded(tmp_path, envs=(2, 0))
    camera = file["/world/cameras/robot/eye"]
    places, steps, _ = camera.column("Transform3D:translation")
    cart = model.geom("robot/cart").id
    true = np.stack([truth.frames[s - 1][0][2, cart] for s in steps]) + [0, -2, 0.5]
    np.testing.assert_allclose(np.array(places)[:, 0], true, atol=1e-5)
    turns = np.array(camera.column("Transform3D:quaternion")[0])[:, 0]
    ahead = turned(turns, np.array([0, 0, -1.0]))
    np.testing.assert_allclose(ahead, [[0, 0.98058, -0.19612]] * 30, atol=1e-4)
    focal = np.array(camera.static["Pinhole:image_from_camera"][0])
    assert focal[0] == pytest.approx(240 / np.tan(np.radians(25)), rel=1e-5)


def test_no_cameras_if_none_are_wanted(tmp_path):
    file, *_ = recorded(tmp_path, steps=3, cameras=False)
    assert not [path for path in file if "cameras" in path]


def test_environments_can_be_set_apart(tmp_path):
    plain, *_ = recorded(tmp_path / "a", steps=5)
    apart, *_ = recorded(tmp_path / "b", steps=5, spacing_m=3.0)
    moved = np.subtract(
        poses_of(apart[geom_path("ball")])[0], poses_of(plain[geom_path("ball")])[0]
    )
    assert np.ptp(moved, axis=0).max() < 1e-6
    distances = np.linalg.norm(moved[0][:, None] - moved[0][None], axis=-1)
    assert np.isclose(distances[~np.eye(4, dtype=bool)].min(), 3.0)


def test_a_second_recording_is_complete(tmp_path):
    def again(k, env, term):
        if k == 10:
            term.stop()
        if k == 20:
            term.start()

    first, truth, model = recorded(tmp_path, then=again)
    check_poses(first, truth, model, range(1, 11))
    second = read(tmp_path / "run_1.rrd")
    check_poses(second, truth, model, range(21, 31))
    assert {p for p, e in first.items() if e.static} == {p for p, e in second.items() if e.static}
    for path, entity in first.items():
        if path.startswith("/world"):
            assert entity.static == second[path].static


def test_a_pause_leaves_steps_out(tmp_path):
    def pause(k, env, term):
        if k == 10:
            term.pause()
        if k == 20:
            term.start()

    file, truth, model = recorded(tmp_path, then=pause)
    check_poses(file, truth, model, [*range(1, 11), *range(21, 31)])


@pytest.mark.parametrize("length", [1, 5, 8])
def test_a_stretch_has_exactly_so_many_frames_and_may_begin_again(tmp_path, length):
    file, truth, model = recorded(tmp_path, trigger="every_n_steps(10)", length=length)
    steps = [k + i + 1 for k in (0, 10, 20) for i in range(length)]
    check_poses(file, truth, model, steps)


def test_a_trigger_while_recording_begins_anew(tmp_path):
    file, truth, model = recorded(tmp_path, trigger="at_steps(3, 6)", length=5)
    check_poses(file, truth, model, range(4, 12))


def test_a_trigger_of_episodes_shows_only_the_environments_that_it_picks(tmp_path):
    file, truth, model = recorded(tmp_path, trigger="at_episodes(1)", steps=20)
    # Episodes take 7, 4, 9 and 5 steps.
    wanted = {0: range(8, 15), 1: range(5, 9), 2: range(10, 19), 3: range(6, 11)}
    entity = file[geom_path("ball")]
    _, _, steps, _ = poses_of(entity)
    assert steps == sorted({s for own in wanted.values() for s in own})
    index = model.geom("robot/ball").id
    for step, places in zip(steps, poses_of(entity)[0], strict=True):
        scale = shown(entity, "InstancePoses3D:scales", step)
        drawn = [int(scale[i][0]) for i in range(4)]
        assert drawn == [int(step in wanted[i]) for i in range(4)]
        for i in np.flatnonzero(drawn):
            true = truth.frames[step - 1][0][i, index]
            np.testing.assert_allclose(places[i], true, atol=2e-6)
    values, steps, _ = file["/reward"].column("Scalars:scalars")
    for step, value in zip(steps, values, strict=True):
        assert [v == v for v in value] == [step in wanted[i] for i in range(4)]
    places, steps, _ = file["/world/cameras/robot/eye"].column("Transform3D:translation")
    assert steps == list(wanted[0])
    np.testing.assert_allclose(np.array(places)[:, 0, 1:], [[-2.0, 1.5]] * len(steps), atol=1e-5)
    texts, steps, _ = file["/episodes"].column("TextLog:text")
    ends = [(s, text[0][:16]) for s, text in zip(steps, texts, strict=True)]
    assert sorted(ends) == sorted((own[-1], f"env {i}: episode 1") for i, own in wanted.items())


def test_episodes_of_a_single_environment_have_timelines_of_their_own(tmp_path):
    file, truth, model = recorded(tmp_path, envs=(1,), trigger="every_n_episodes(2)", steps=14)
    rows = file[geom_path("ball")].rows["InstancePoses3D:translations"]
    own = [{k: v for k, v in times.items() if k not in ("step", "time")} for times, _ in rows]
    assert own == [
        {f"episode_{n}_step": k, f"episode_{n}_timestamp": k * 40_000_000}
        for n, last in ((0, 4), (2, 4))
        for k in range(1, last + 1)
    ]
    assert [times["step"] for times, _ in rows] == [1, 2, 3, 4, 9, 10, 11, 12]
    check_poses(file, truth, model, [1, 2, 3, 4, 9, 10, 11, 12], env_indices=[1])


def test_episodes_of_each_environment_have_timelines_of_their_own(tmp_path):
    file, *_ = recorded(tmp_path, envs=(3, 1), trigger="at_episodes(1, 2)", steps=14)
    # Episodes take 5 and 4 steps.
    assert own_times(file[geom_path("ball")]) == {
        "env_3_episode_1_step": [(5 + k, k) for k in range(1, 6)],
        "env_3_episode_2_step": [(10 + k, k) for k in range(1, 5)],
        "env_1_episode_1_step": [(4 + k, k) for k in range(1, 5)],
        "env_1_episode_2_step": [(8 + k, k) for k in range(1, 5)],
    }
    values = own_times(file["/reward"], "Scalars:scalars")
    assert values == own_times(file[geom_path("ball")])


def test_many_environments_do_not_flood_the_list_of_timelines(tmp_path):
    file, *_ = recorded(tmp_path, num_envs=10, trigger="at_episodes(0)", steps=5)
    names = set(own_times(file[geom_path("ball")]))
    assert names == {f"env_{i}_episode_0_step" for i in range(8)}


def test_a_timeline_of_its_own_shows_everything_from_its_start(tmp_path):
    """Sizes that do not change, and environments that are hidden on another timeline."""
    size = {
        "ranges": {0: (0.1, 0.3)},
        "operation": "abs",
        "asset_cfg": SceneEntityCfg("robot", geom_names=("ball",)),
    }
    events = {"size": EventTermCfg(func=mdp.dr.geom_size, mode="startup", params=size)}
    file, *_ = recorded(
        tmp_path, cfg=zoo_cfg(2, events=events), num_envs=2, trigger="at_episodes(0, 1, 2)"
    )
    ball = file[geom_path("ball")]
    count = 0
    for times, _ in ball.rows["InstancePoses3D:translations"]:
        values = file["/reward"].rows["Scalars:scalars"]
        line = next(value for t, value in values if t["step"] == times["step"])
        for timeline, at in times.items():
            scale = shown(ball, "InstancePoses3D:scales", at, timeline) or [[1.0]] * 2
            assert [side[0] for side in scale] == [float(v == v) for v in line], (timeline, at)
            assert shown(ball, "Ellipsoids3D:half_sizes", at, timeline), (timeline, at)
            count += 1
    assert count > 100


def test_a_hidden_environment_is_shown_again(tmp_path):
    def odd_steps(env):
        step = env.common_step_counter
        return torch.tensor([step % 2 == 1, step == 3])

    fields = {"num_envs": 2, "trigger": when(odd_steps), "length": 2, "block_steps": 1}
    file, *_ = recorded(tmp_path, steps=7, **fields)
    ball = file[geom_path("ball")]
    drawn = [shown(ball, "InstancePoses3D:scales", step) for step in range(2, 8)]
    assert [[side[0] for side in scale] for scale in drawn] == [
        *([1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0])
    ]
    assert not own_times(ball)


def test_clips_of_steps_have_timelines_that_are_named_after_their_start(tmp_path):
    file, *_ = recorded(tmp_path, trigger="at_steps(3, 6, 20)", length=5)
    assert own_times(file[geom_path("ball")]) == {
        "step_3_step": [(3 + k, k) for k in range(1, 4)],  # Another one begins after three steps.
        "step_6_step": [(6 + k, k) for k in range(1, 6)],
        "step_20_step": [(20 + k, k) for k in range(1, 6)],
    }


def test_without_a_trigger_clips_of_a_length_follow_each_other(tmp_path):
    def again(k, env, term):
        if k == 25:
            term.stop()
        if k == 27:
            term.start()

    file, truth, model = recorded(tmp_path, trigger="auto", length=10, then=again, steps=32)
    check_poses(file, truth, model, range(1, 26))
    assert own_times(file[geom_path("ball")]) == {
        "step_0_step": [(k, k) for k in range(1, 11)],
        "step_10_step": [(10 + k, k) for k in range(1, 11)],
        "step_20_step": [(20 + k, k) for k in range(1, 6)],
    }
    second = read(tmp_path / "run_1.rrd")
    check_poses(second, truth, model, range(28, 33))
    assert own_times(second[geom_path("ball")]) == {
        "step_27_step": [(27 + k, k) for k in range(1, 6)]
    }


@pytest.mark.parametrize(
    ("trigger", "rest"),
    [
        ("manual", []),
        ("at_episodes(9)", []),
        ("at_steps(1)", [2, 3, 4]),
        (None, None),
    ],
)
def test_a_clip_by_hand_has_a_timeline_of_its_own(tmp_path, trigger, rest):
    names = []

    def by_hand(k, env, term):
        if k == 5:
            term.start_recording("first")
        if k == 9:
            term.start_recording("second")  # ends the first
        if k == 12:
            term.stop_recording()
        names.append((term.sequence_timeline_name, term.timestamp_timeline_name))

    length = 3 if rest else None
    file, truth, model = recorded(tmp_path, trigger=trigger, length=length, then=by_hand, steps=20)
    first = range(6, 9 if length else 10)
    steps = range(1, 21) if rest is None else [*rest, *first, 10, 11, 12]
    check_poses(file, truth, model, steps)
    own = own_times(file[geom_path("ball")])
    assert own.pop("first_step") == [(s, s - 5) for s in first]
    assert own.pop("second_step") == [(s, s - 9) for s in (10, 11, 12)]
    assert list(own) == (["step_1_step"] if rest else [])
    named = [k for k, name in enumerate(names) if name == ("first_step", "first_timestamp")]
    assert named == [s - 1 for s in first]
    assert names[9:12] == [("second_step", "second_timestamp")] * 3
    assert names[4] == names[12] == names[19] == (None, None)
    if rest:
        assert names[1:4] == [("step_1_step", "step_1_timestamp")] * 3


def test_the_current_timeline_is_the_running_episodes(tmp_path):
    names = []

    def note(k, env, term):
        if k == 10:
            term.stop_recording()
        names.append(term.sequence_timeline_name)

    fields = {"trigger": "every_n_episodes(2)", "envs": (1, 3), "then": note, "steps": 18}
    file, *_ = recorded(tmp_path, **fields)
    # Episodes take 4 and 5 steps; what runs before step 10 is ended by hand.
    expected = ["env_1_episode_0_step"] * 4 + ["env_3_episode_0_step"] + [None] * 3
    expected += ["env_1_episode_2_step"] * 2 + [None] * 6 + ["env_1_episode_4_step"] * 2
    assert names == expected
    steps = {name: [s for s, _ in at] for name, at in own_times(file[geom_path("ball")]).items()}
    assert steps["env_1_episode_2_step"] == [9, 10]


def test_a_clip_by_hand_starts_a_recorder_and_ends_with_its_file(tmp_path):
    def by_hand(k, env, term):
        if k == 3:
            term.start_recording("mine")
        if k == 6:
            term.stop()
        if k == 8:
            term.start()

    file, truth, model = recorded(tmp_path, autostart=False, then=by_hand, steps=12)
    check_poses(file, truth, model, [4, 5, 6])
    assert list(own_times(file[geom_path("ball")])) == ["mine_step"]
    second = read(tmp_path / "run_1.rrd")
    check_poses(second, truth, model, range(9, 13))
    assert not own_times(second[geom_path("ball")])


def test_a_trigger_does_not_end_a_clip_by_hand(tmp_path):
    def by_hand(k, env, term):
        if k == 1:
            term.start_recording("mine")

    file, *_ = recorded(tmp_path, trigger="at_steps(3, 9)", length=5, then=by_hand, steps=16)
    assert own_times(file[geom_path("ball")]) == {
        "mine_step": [(1 + k, k) for k in range(1, 6)],
        "step_3_step": [(3 + k, k) for k in range(4, 6)],
        "step_9_step": [(9 + k, k) for k in range(1, 6)],
    }


def test_an_episode_goes_on_after_a_clip_by_hand(tmp_path):
    def by_hand(k, env, term):
        if k == 4:
            term.start_recording("mine")

    fields = {"trigger": "at_episodes(0)", "envs": (2,), "length": 7, "then": by_hand}
    file, *_ = recorded(tmp_path, steps=14, **fields)
    assert own_times(file[geom_path("ball")]) == {
        "episode_0_step": [(k, k) for k in range(1, 5)],
        "mine_step": [(4 + k, k) for k in range(1, 8)],
    }
    shorter, *_ = recorded(tmp_path / "b", steps=14, **{**fields, "length": 3})
    assert own_times(shorter[geom_path("ball")]) == {
        "episode_0_step": [(k, k) for k in range(1, 4)],
        "mine_step": [(4 + k, k) for k in range(1, 4)],
    }

    def stop(k, env, term):
        if k == 2:
            term.start_recording("mine")
        if k == 5:
            term.stop()
            term.start()

    recorded(tmp_path / "c", steps=9, **{**fields, "length": None, "then": stop})
    second = read(tmp_path / "c" / "run_1.rrd")
    assert own_times(second[geom_path("ball")]) == {
        "episode_0_step": [(k, k) for k in range(6, 10)]
    }


@pytest.mark.parametrize("name", ["", None, "mine"])
def test_a_clip_by_hand_needs_a_name_that_is_new(tmp_path, name):
    def by_hand(k, env, term):
        term.start_recording("mine")
        with pytest.raises(ValueError, match="name that was not used before"):
            term.start_recording(name)

    recorded(tmp_path, trigger="manual", then=by_hand, steps=1)


def test_clips_may_be_started_from_a_hook_and_from_another_thread(tmp_path):
    def by_hand(k, env, term):
        truth = env.recorder_manager.get_term("truth")
        if k == 0:
            now = truth.now

            def in_hook():
                if len(truth.frames) == 2:  # in the third step
                    term.start_recording("hook")
                return now()

            truth.now = in_hook
        if k == 6:
            other = threading.Thread(target=term.start_recording, args=("thread",))
            other.start()
            other.join()

    file, *_ = recorded(tmp_path, trigger="manual", length=2, then=by_hand, steps=10)
    assert own_times(file[geom_path("ball")]) == {
        "hook_step": [(4, 1), (5, 2)],
        "thread_step": [(7, 1), (8, 2)],
    }


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"path": "a.rrd"}, "capped_cubic_episodes"),
        ({"recording_stream": "a stream"}, "capped_cubic_episodes"),
        ({"connect": "rerun+http://127.0.0.1:9876/proxy"}, None),
        ({"serve": True}, None),
        ({"spawn": True, "path": "a.rrd"}, None),
        ({"path": "a.rrd", "length": 1000}, None),
        ({"path": "a.rrd", "autostart": False}, None),
        ({"path": "a.rrd", "trigger": None}, None),
        ({"serve": True, "trigger": "every_n_steps(5)"}, "every_n_steps"),
        ({"path": "a.rrd", "length": 5, "trigger": "every_n_steps(5)"}, "every_n_steps"),
    ],
)
def test_what_is_recorded_by_default(fields, kind):
    trigger = RerunRecorderCfg(**fields).chosen_trigger
    assert (None if trigger is None else trigger_from(trigger).kind) == kind


def test_start_recording_records_everything_unless_told_when():
    assert RerunRecorderCfg(path="a.rrd").started_by_hand().trigger is None
    assert RerunRecorderCfg(path="a.rrd", trigger="manual").started_by_hand().trigger == "manual"


def test_by_default_a_file_has_the_episodes_of_the_cubic_schedule(tmp_path):
    path = tmp_path / "run.rrd"
    cfg = zoo_cfg(recorders={"r": RerunRecorderCfg(path=str(path), envs=(1,))})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for action in actions(40):
            env.step(action)
    names = list(own_times(read(path)[geom_path("ball")]))
    assert names == ["episode_0_step", "episode_1_step", "episode_8_step"]


def test_fire_begins_a_stretch(tmp_path):
    def fire(k, env, term):
        if k == 7:
            term.fire()

    file, truth, model = recorded(tmp_path, trigger="manual", length=4, then=fire)
    check_poses(file, truth, model, range(8, 12))


def test_max_steps(tmp_path):
    file, truth, model = recorded(tmp_path, max_steps=13)
    check_poses(file, truth, model, range(1, 14))


def test_a_given_stream_is_used_and_stays_open(tmp_path):
    import rerun

    path = tmp_path / "own.rrd"
    stream = rerun.RecordingStream("mine")
    stream.save(path)
    _, truth, model = recorded(tmp_path, path="", recording_stream=stream)
    stream.log("/mine", rerun.TextLog("afterwards"), static=True)
    stream.disconnect()
    file = read(path)
    check_poses(file, truth, model, range(1, 31))
    assert "/mine" in file
    assert not (tmp_path / "run.rrd").exists()


@pytest.mark.parametrize("scope", ["global", "thread_local"])
def test_reruns_own_recording_is_used_if_nothing_else_is_given(tmp_path, scope):
    import rerun

    path = tmp_path / "own.rrd"
    stream = rerun.RecordingStream("mine")
    stream.save(path)
    before = getattr(rerun, f"set_{scope}_data_recording")(stream)
    assert before is None
    try:
        _, truth, model = recorded(tmp_path, path="")
        rerun.log("/mine", rerun.TextLog("afterwards"), static=True)
    finally:
        getattr(rerun, f"set_{scope}_data_recording")(None)
    stream.disconnect()
    file = read(path)
    check_poses(file, truth, model, range(1, 31))
    assert "/mine" in file


def test_a_path_comes_before_a_stream(tmp_path):
    import rerun

    stream = rerun.RecordingStream("mine")
    stream.save(tmp_path / "own.rrd")
    file, truth, model = recorded(tmp_path, recording_stream=stream)
    check_poses(file, truth, model, range(1, 31))
    stream.disconnect()
    assert not [path for path in read(tmp_path / "own.rrd") if path.startswith("/world")]


def test_a_closed_file_has_its_footer_and_is_not_written_any_more(tmp_path):
    from rerun.chunk import RrdReader

    sizes = []

    def stop(k, env, term):
        if k == 10:
            term.stop()
            sizes.append((tmp_path / "run.rrd").stat().st_size)

    recorded(tmp_path, steps=12, then=stop)
    path = tmp_path / "run.rrd"
    RrdReader(str(path)).store()  # Needs the footer.
    assert path.stat().st_size == sizes[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.rrd"]


def test_the_file_can_be_read_after_a_kill(tmp_path):
    program = f"""
        import os, signal, sys
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from test_rerun import actions, zoo_cfg, ManagerBasedRlEnv, RerunRecorderCfg
        path = {str(tmp_path / "run.rrd")!r}
        cfg = zoo_cfg(recorders={{"r": RerunRecorderCfg(path=path, block_steps=8, block_seconds=1e9,
                                                   trigger=None)}})
        env = ManagerBasedRlEnv(cfg)
        env.reset()
        for k, action in enumerate(actions(27)):
            env.step(action)
        env.recorder_manager.get_term("r")._store._thread.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.warns(Warning, match="footer"):
        file = read(tmp_path / "run.rrd")
    _, _, steps, _ = poses_of(file[geom_path("ball")])
    assert steps == list(range(1, 25))  # three chunks of eight
    assert "Boxes3D:half_sizes" in file[geom_path("cart")].static


@pytest.mark.parametrize("contacts", [False, True])
def test_recording_changes_no_bit_of_the_rollout(tmp_path, contacts):
    def run(recorders):
        trace = []
        with ManagerBasedRlEnv(zoo_cfg(recorders=recorders)) as env:
            env.reset()
            for k, action in enumerate(actions(20)):
                if recorders and k in (3, 12):
                    env.recorder_manager.get_term("c").start_recording(f"from_{k}")
                obs, *rest = env.step(action)
                trace += [obs["actor"], *rest[:3], env.sim.get_state().clone()]
        return [value.clone() for value in trace]

    rec = RerunRecorderCfg(
        path=str(tmp_path / "a.rrd"), contacts=contacts, block_steps=4, trigger=None
    )
    triggered = RerunRecorderCfg(path=str(tmp_path / "b.rrd"), trigger="every_n_episodes(2)")
    by_hand = RerunRecorderCfg(path=str(tmp_path / "c.rrd"), trigger="manual", length=4)
    with_it, without = run({"a": rec, "b": triggered, "c": by_hand}), run({})
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


def test_what_it_says_of_itself(tmp_path):
    seen = {}

    def note(k, env, term):
        if k == 29:
            term.flush()
            seen["progress"], seen["stalled"] = progress(term), term.stalled_s

    recorded(tmp_path, then=note)
    state = seen["progress"]
    assert (state.state, state.rows, state.dropped) == ("recording", 29, 0)
    assert state.files == (tmp_path / "run.rrd",)
    assert state.nbytes > 10_000 and seen["stalled"] >= 0.0


def test_an_existing_file_is_not_replaced_unasked(tmp_path):
    (tmp_path / "run.rrd").write_bytes(b"mine")
    with pytest.raises(DataError, match="already exists"):
        recorded(tmp_path, steps=1)
    assert (tmp_path / "run.rrd").read_bytes() == b"mine"
    recorded(tmp_path, steps=1, if_exists="overwrite")
    recorded(tmp_path, steps=2, if_exists="number")
    _, _, steps, _ = poses_of(read(tmp_path / "run_1.rrd")[geom_path("ball")])
    assert steps == [1, 2]


def test_a_full_disk_comes_back_as_an_error(tmp_path, monkeypatch):
    import rerun

    real = rerun.FileSink
    monkeypatch.setattr(rerun, "FileSink", lambda path: real("/dev/full"))
    with pytest.raises(DataError, match="No space left"):
        recorded(tmp_path, steps=20)


def local_listeners(pid_ports):
    """Addresses at which somebody listens on these ports."""
    found = defaultdict(set)
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                host, port = local.split(":")
                if state == "0A" and int(port, 16) in pid_ports:
                    found[int(port, 16)].add(host)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/net/tcp")
def test_a_served_page_is_on_loopback_only_and_ends_with_the_environment():
    cfg = zoo_cfg(recorders={"r": RerunRecorderCfg(serve=True, web_port=free_port())})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for action in actions(20):
            env.step(action)
        term = env.recorder_manager.get_term("r")
        viewer = term._viewers[0]
        with urllib.request.urlopen(term.page.partition("?")[0], timeout=PATIENCE_S) as answer:
            assert b"html" in answer.read().lower()
        web = int(term.page.split(":")[2].split("/")[0])
        found = local_listeners({web, viewer.port})
        assert found == {web: {"0100007F"}, viewer.port: {"0100007F"}}
        term.stop()
        assert local_listeners({web}) == {web: {"0100007F"}}
        term.start()
        env.step(actions(1)[0])
    until(lambda: local_listeners({web, viewer.port}) == {})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/net/tcp")
def test_a_page_does_not_outlive_a_killed_process():
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from mjlab_rec.recorders.rerun.viewer import RerunViewer, listens
        viewer = RerunViewer("web", 19290)
        print(viewer.page, viewer.port, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        page, port = process.stdout.readline().split()
        ports = {int(page.split(":")[2].split("/")[0]), int(port)}
        assert set(local_listeners(ports)) == ports
        with socket.create_connection(("127.0.0.1", min(ports)), timeout=PATIENCE_S) as connection:
            process.kill()
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""  # The other side is gone.
    until(lambda: not any(listens("127.0.0.1", port) for port in ports))


def test_recording_goes_on_if_somebody_closes_the_viewer(tmp_path, caplog):
    def close(k, env, term):
        if k == 15:
            term._viewers[0].close()

    file, *_ = recorded(tmp_path, steps=40, serve=True, web_port=19490, then=close, block_steps=2)
    _, _, steps, _ = poses_of(file[geom_path("ball")])
    assert steps == list(range(1, 41))
    assert [r.getMessage()[:26] for r in caplog.records if r.levelname == "WARNING"] == [
        "A Rerun viewer has ended; "
    ]


def test_a_viewer_that_ends_at_once_is_said_at_once(monkeypatch):
    monkeypatch.setattr(viewer_module, "program", lambda: "/bin/false")
    for kind in ("web", "native"):
        with pytest.raises(DataError, match="ended immediately, with code 1"):
            RerunViewer(kind, 19390)


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        viewer = RerunViewer("web", port)
        try:
            assert not viewer.page.startswith(f"http://127.0.0.1:{port}/")
        finally:
            viewer.close()
            viewer.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nothing is reserved")
def test_two_processes_do_not_choose_one_port():
    port = free_port()
    with contextlib.ExitStack() as one, contextlib.ExitStack() as other:
        assert viewer_module._free_port(port, one) == port
        assert viewer_module._free_port(port, other) > port
    with contextlib.ExitStack() as later:
        assert viewer_module._free_port(port, later) == port


def test_a_viewer_that_is_not_there_is_said_before_the_run():
    with pytest.raises(DataError, match="No Rerun viewer listens at 127.0.0.1:1"):
        recorded(Path("/nonexistent"), path="", connect="rerun+http://127.0.0.1:1/proxy")
    with pytest.raises(ValueError, match="not a viewer's URL"):
        recorded(Path("/nonexistent"), path="", connect="127.0.0.1:9876")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": ""}, "nowhere to write to"),
        ({"recording_stream": object(), "path": "", "serve": True}, "must not be set"),
        ({"if_exists": "append"}, "if_exists is 'append'"),
        ({"block_steps": 0}, "block_steps must be a whole number of at least 1"),
        ({"spacing_m": -1.0}, "spacing_m must be a number of at least 0"),
        ({"channels": "reward"}, "is a string"),
        ({"every": 0}, "RerunRecorderCfg.every must be a whole number of at least 1"),
        ({"envs": (5,)}, r"RerunRecorderCfg.envs is \(5,\)"),
        ({"recording_stream": "run.rrd", "path": ""}, "must be a rerun.RecordingStream"),
        ({"blueprint": "x"}, "must be a blueprint"),
        ({"web_port": -1}, "web_port must be a whole number from 1 to 65535"),
        ({"geom_groups": (9,)}, "groups are numbered from 0 to 5"),
        ({"connect": "rerun+http://127.0.0.1:abc/proxy"}, "is not a viewer's URL"),
        ({"length": 0}, "length must be a whole number of at least 1"),
        ({"trigger": "every_n_episode(2)"}, "Did you mean 'every_n_episodes'"),
        ({"channels": ("rewrd",)}, "Did you mean 'reward'"),
    ],
)
def test_wrong_values_are_refused_before_the_run(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        recorded(tmp_path, **fields)


def test_a_missing_rerun_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mjlab_rec\[rerun\]'"):
        recorded(tmp_path)


def test_importing_the_recorder_imports_no_rerun():
    program = "import sys, mjlab_rec.recorders.rerun; assert 'rerun' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=PATIENCE_S)


def test_a_plain_cfg_with_params_will_do(tmp_path):
    path = tmp_path / "a.rrd"
    cfg = RecorderTermCfg(func=RerunRecorder, params={"path": str(path), "envs": 2})
    with ManagerBasedRlEnv(zoo_cfg(recorders={"r": cfg})) as env:
        env.reset()
        env.step(actions(1)[0])
    assert len(poses_of(read(path)[geom_path("ball")])[0][0]) == 2
