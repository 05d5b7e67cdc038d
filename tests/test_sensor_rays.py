"""Ray sensors: patterns, frames, heights above the ground, in a scene and in an environment."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.recorders.channels import resolve_channels
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sensor import (
    BuiltinSensorCfg,
    GridPatternCfg,
    ObjRef,
    PinholeCameraPatternCfg,
    RayCastSensorCfg,
    RingPatternCfg,
    TerrainHeightSensorCfg,
)
from mjlab_rec.sim import MujocoCfg, Simulation, SimulationCfg
from mjlab_rec.sim.debug_visualizer import DebugVisualizer

ROBOT_XML = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1"/>
    <geom name="step" type="box" size="1 5 .2" pos="-1.2 0 .2" group="1"/>
    <camera name="front" pos="0 0 1" resolution="4 3" fovy="60"/>
    <body name="base" pos="0 0 1">
      <freejoint/>
      <geom name="hull" size=".1"/>
      <site name="left" pos="-.5 0 -.2"/>
      <site name="right" pos=".5 0 -.4"/>
    </body>
  </worldbody>
</mujoco>
"""
FEET = tuple(ObjRef("site", name, "robot") for name in ("left", "right"))
BASE = ObjRef("body", "base", "robot")


def entity() -> EntityCfg:
    return EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_string(ROBOT_XML))


def make(*sensors, num_envs: int = 2) -> tuple[Scene, Simulation]:
    scene = Scene(SceneCfg(num_envs=num_envs, entities={"robot": entity()}, sensors=sensors), "cpu")
    cfg = SimulationCfg(engine="mjbatch", mujoco=MujocoCfg(gravity=(0.0, 0.0, 0.0)))
    sim = Simulation(num_envs, cfg, scene.compile())
    scene.initialize(sim.mj_model, sim.model, sim.data)
    sim.set_sensor_context(scene.sensor_context)
    sim.forward()
    return scene, sim


def feet(**fields) -> TerrainHeightSensorCfg:
    ring = RingPatternCfg.single_ring(0.04, 4)
    defaults = {"frame": FEET, "pattern": ring, "max_distance": 5.0}
    return TerrainHeightSensorCfg(name="feet", **{**defaults, **fields})


def scan(**fields) -> RayCastSensorCfg:
    defaults = {"frame": BASE, "pattern": GridPatternCfg((0.2, 0.1), 0.1)}
    return RayCastSensorCfg(name="scan", **{**defaults, **fields})


def test_grid_starts_at_the_smallest_x_and_y():
    starts, directions = GridPatternCfg((1.0, 0.5), 0.5, (0.0, 0.0, -2.0)).generate_rays(
        None, "cpu"
    )
    x, y = (-0.5, 0.0, 0.5), (-0.25, 0.25)
    assert starts.tolist() == [[a, b, 0.0] for b in y for a in x]
    assert directions.tolist() == [[0.0, 0.0, -1.0]] * 6


@pytest.mark.parametrize(
    ("size", "resolution", "number"),
    [((1.6, 1.0), 0.1, 187), ((0.0, 0.0), 0.1, 1), ((0.3, 0.3), 0.15, 9), ((1.0, 1.0), 0.3, 16)],
)
def test_number_of_rays_of_a_grid(size, resolution, number):
    assert len(GridPatternCfg(size, resolution).generate_rays(None, "cpu")[0]) == number


def test_rings_start_on_x_and_go_round():
    ring = RingPatternCfg.Ring
    pattern = RingPatternCfg((ring(1.0, 4), ring(2.0, 1)), include_center=False)
    starts, _ = pattern.generate_rays(None, "cpu")
    want = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [2, 0, 0]]
    np.testing.assert_allclose(starts, want, atol=1e-6)
    assert len(RingPatternCfg.single_ring(num_samples=3).generate_rays(None, "cpu")[0]) == 4


def test_pinhole_rays_pass_through_the_corners_of_the_picture():
    starts, rays = PinholeCameraPatternCfg(3, 5, 90.0).generate_rays(None, "cpu")
    assert not starts.any()
    np.testing.assert_allclose(rays.norm(dim=1), 1.0, atol=1e-6)
    rays = rays / -rays[:, 2:]
    np.testing.assert_allclose(rays[0], [-0.6, -1.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(rays[2], [0.6, -1.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(rays[-1], [0.6, 1.0, -1.0], atol=1e-6)


def test_pinhole_of_an_intrinsic_matrix():
    pattern = PinholeCameraPatternCfg.from_intrinsic_matrix(
        [500.0, 0, 320, 0, 500.0, 240, 0, 0, 1], 640, 480
    )
    assert (pattern.width, pattern.height) == (640, 480)
    assert pattern.fovy == pytest.approx(2 * math.degrees(math.atan(0.48)))


def test_pinhole_of_a_camera_of_the_scene():
    pattern = PinholeCameraPatternCfg.from_mujoco_camera("robot/front")
    scene, _ = make(scan(pattern=pattern))
    assert scene["scan"].num_rays == 12
    _, want = PinholeCameraPatternCfg(4, 3, 60.0).generate_rays(None, "cpu")
    torch.testing.assert_close(scene["scan"]._spec.directions, want)


def test_data_of_a_scan():
    scene, sim = make(scan())
    sim.data.qpos[1, 0] = -1.0  # over the step
    sim.forward()
    sim.sense()
    sensor = scene["scan"]
    data = sensor.data
    assert (sensor.num_frames, sensor.num_rays_per_frame, sensor.num_rays) == (1, 6, 6)
    np.testing.assert_allclose(data.distances, [[1.0] * 6, [0.6] * 6], atol=1e-5)
    np.testing.assert_allclose(data.hit_pos_w[1, :, 2], 0.4, atol=1e-5)
    np.testing.assert_allclose(data.hit_pos_w[1, :3, 0], [-1.1, -1.0, -0.9], atol=1e-5)
    assert data.normals_w[:, :, 2].eq(1.0).all()
    np.testing.assert_allclose(data.pos_w, [[0, 0, 1], [-1, 0, 1]], atol=1e-6)
    assert data.quat_w.tolist() == [[1, 0, 0, 0]] * 2
    assert data.frame_pos_w.shape == (2, 1, 3)
    assert data.frame_quat_w.shape == (2, 1, 4)


@pytest.mark.parametrize("kind", ["body", "site", "geom"])
def test_frames_of_every_kind(kind):
    name = {"body": "base", "site": "right", "geom": "hull"}[kind]
    scene, _ = make(scan(frame=ObjRef(kind, name, "robot")))
    height = 0.6 if kind == "site" else 1.0
    np.testing.assert_allclose(scene["scan"].data.distances, height, atol=1e-5)


def test_parent_body_can_be_hit():
    below = GridPatternCfg((0.0, 0.0), direction=(0.0, 0.0, 1.0))
    foot = ObjRef("site", "right", "robot")
    scene, sim = make(scan(frame=foot, pattern=below, exclude_parent_body=False))
    sim.data.qpos[:, :3] = torch.tensor([0.0, 0.0, 1.0])
    sim.mj_model.site_pos[:] = 0.0
    assert scene["scan"].data.distances.shape == (2, 1)
    scene, _ = make(scan(pattern=below, exclude_parent_body=False))
    np.testing.assert_allclose(scene["scan"].data.distances, 0.1, atol=1e-5)  # from inside
    scene, _ = make(scan(pattern=below))
    assert (scene["scan"].data.distances == -1.0).all()


def test_heights_of_feet():
    scene, _ = make(feet())
    data = scene["feet"].data
    assert data.heights.shape == (2, 2)
    np.testing.assert_allclose(data.heights, [[0.4, 0.6]] * 2, atol=1e-5)
    assert data.distances.shape == (2, 10)


@pytest.mark.parametrize(
    ("reduction", "want"), [("min", 0.4), ("max", 0.8), ("mean", 0.4 + 0.4 / 5)]
)
def test_reductions(reduction, want):
    scene, sim = make(feet(reduction=reduction, frame=FEET[:1]))
    sim.data.qpos[:, 0] = 0.29  # The ring of the left foot is at the edge of the step.
    sim.forward()
    sim.sense()
    np.testing.assert_allclose(scene["feet"].data.heights, want, atol=1e-5)


def test_no_reduction_keeps_every_ray():
    scene, _ = make(feet(reduction="none"))
    assert scene["feet"].data.heights.shape == (2, 2, 5)


def test_height_inside_of_something_is_zero():
    scene, sim = make(feet(include_geom_groups=(1,)))
    sim.data.qpos[:, 2] = 0.5  # left foot at 0.3, in the step; right foot at 0.1 above nothing
    sim.forward()
    sim.sense()
    np.testing.assert_allclose(scene["feet"].data.heights, [[0.0, 0.1]] * 2, atol=1e-5)


def test_height_where_rays_miss():
    scene, sim = make(feet(max_distance=0.7, reduction="none"))
    sim.data.qpos[0, :3] = torch.tensor([0.29, 0.0, 1.0])  # one of left's rays beyond the edge
    sim.data.qpos[1, 2] = 2.0  # all too high
    sim.forward()
    sim.sense()
    heights = scene["feet"].data.heights
    assert sorted(heights[0, 0].tolist()) == pytest.approx([0.4] * 4 + [0.7])
    assert heights[1].eq(0.7).all()
    sim.data.qpos[:, 2] = 0.3  # right foot below the floor, at -0.1
    sim.forward()
    sim.sense()
    assert scene["feet"].data.heights[1, 1].eq(0.0).all()


def test_groups_none_means_all():
    scene, _ = make(scan(include_geom_groups=None))
    assert scene["scan"].include_geom_groups is None
    np.testing.assert_allclose(scene["scan"].data.distances, 1.0, atol=1e-5)


def make_env(*sensors, observes: bool = True, **cfg) -> ManagerBasedRlEnv:
    """An environment whose robot falls; world 0 ends its episode in every fourth step."""
    terms = {"scan": ObservationTermCfg(func=mdp.height_scan, params={"sensor_name": "scan"})}
    other = {"pos": ObservationTermCfg(func=mdp.root_pos_w)}
    return ManagerBasedRlEnv(
        ManagerBasedRlEnvCfg(
            decimation=2,
            episode_length_s=100.0,
            sim=SimulationCfg(engine="mjbatch"),
            scene=SceneCfg(num_envs=3, entities={"robot": entity()}, sensors=sensors),
            observations={"actor": ObservationGroupCfg(terms=terms if observes else other)},
            events={
                "reset": EventTermCfg(
                    func=mdp.reset_root_state_uniform,
                    mode="reset",
                    params={"pose_range": {"z": (1.0, 2.0)}, "velocity_range": {}},
                )
            },
            terminations={"some": TerminationTermCfg(func=ends)},
            seed=0,
            **cfg,
        )
    )


def ends(env) -> torch.Tensor:
    return (env.episode_length_buf >= 4) & (torch.arange(env.num_envs) == 0)


def count_casts(env, name: str = "scan") -> list:
    calls, sensor = [], env.scene[name]
    measure = sensor._measure

    def counted(worlds):
        calls.append(worlds)
        return measure(worlds)

    sensor._measure = counted
    return calls


NO_ACTION = torch.zeros(3, 0)


def test_observations_are_current_and_cast_once_a_step():
    env = make_env(scan())
    env.reset()
    calls = count_casts(env)
    for step in range(1, 10):
        obs = env.step(NO_ACTION)[0]["actor"]
        height = env.scene["robot"].data.root_link_pos_w[:, 2]
        torch.testing.assert_close(obs, height[:, None].expand(-1, 6))
        assert len(calls) == step
    env.close()


def test_unread_sensor_casts_nothing():
    env = make_env(scan(), observes=False)
    calls = count_casts(env)
    env.reset()
    for _ in range(6):
        env.step(NO_ACTION)
    assert calls == []
    env.close()


def test_rewards_see_rays_that_fit_the_bodies():
    seen = []

    def gap(env):
        sensor = env.scene["scan"].data
        seen.append((sensor.distances[:, 0] - env.sim.data.xpos[:, 1, 2]).abs().max().item())
        return torch.zeros(env.num_envs)

    env = make_env(scan(), rewards={"gap": RewardTermCfg(func=gap, weight=1.0)})
    env.reset()
    calls = count_casts(env)
    for _ in range(6):
        env.step(NO_ACTION)
    assert max(seen) < 1e-5
    assert len(calls) == 12  # For the rewards, and for the observations.
    env.close()


def test_held_scans_do_not_depend_on_other_resets():
    period = 5 * 2 * 0.002
    alone = make_env(scan(update_period=period))
    alone.termination_manager.get_term_cfg("some").func = lambda env: torch.zeros(
        env.num_envs, dtype=torch.bool
    )
    mixed = make_env(scan(update_period=period))
    changes = 0
    for env in (alone, mixed):
        env.reset(seed=3)
    last = None
    for _ in range(12):
        a = alone.step(NO_ACTION)[0]["actor"]
        b = mixed.step(NO_ACTION)[0]["actor"]
        assert torch.equal(a[1:], b[1:])
        changes += last is not None and not torch.equal(a, last)
        last = a
    assert changes == 2
    alone.close()
    mixed.close()


def test_final_observations_do_not_change_the_rollout():
    rollouts = []
    for final_obs in (False, True):
        env = make_env(scan(update_period=0.015), final_obs=final_obs)
        env.reset(seed=1)
        rollouts.append([env.step(NO_ACTION)[0]["actor"] for _ in range(12)])
        env.close()
    for a, b in zip(*rollouts, strict=True):
        assert torch.equal(a, b)


def test_recorders_find_fields_with_names():
    env = make_env(scan(), feet())
    env.reset()
    sources = {source.name: source for source in resolve_channels(env, ["sensor/feet"])}
    assert sources["sensor/feet/heights"].elements == ("left", "right")
    assert sources["sensor/feet/distances"].elements[:2] == ("left.0", "left.1")
    for source in sources.values():
        source.spec(np.dtype("float32"))  # as many names as elements
        assert source.when == "before"
    assert sources["sensor/feet/frame_pos_w"].elements[3:] == ("right.x", "right.y", "right.z")
    env.close()


def test_height_scan_takes_an_offset_and_a_value_for_misses():
    env = make_env(scan(max_distance=1.2))
    env.reset()
    env.sim.data.qpos[:, 2] = torch.tensor([1.0, 1.1, 2.0])
    env.sim.forward()
    env.sim.sense()
    assert mdp.height_scan(env, "scan", offset=0.5)[:, 0].tolist() == pytest.approx([0.5, 0.6, 1.2])
    assert mdp.height_scan(env, "scan", miss_value=7.0)[2].tolist() == [7.0] * 6
    env.close()


def test_height_scan_of_another_sensor_says_so():
    gyro = BuiltinSensorCfg(name="gyro", sensor_type="framepos", obj=BASE)
    env = make_env(scan(), gyro)
    with pytest.raises(ValueError, match="needs a ray sensor, but 'robot/gyro' is a Builtin.*scan"):
        mdp.height_scan(env, "robot/gyro")
    env.close()


def test_drawing_shows_rays_hits_and_normals():
    viz = RayCastSensorCfg.VizCfg(show_rays=True, show_normals=True)
    scene, _ = make(scan(debug_vis=True, viz=viz, max_distance=5.0, ray_alignment="yaw"))
    visualizer = DebugVisualizer(env_idx=1)
    scene["scan"].debug_vis(visualizer)
    assert len(visualizer.shapes().kind) == 6 * 3
    assert set(visualizer.shapes().env.tolist()) == {1}
    assert visualizer.env_idx == 1


def test_drawing_shows_misses_as_short_rays():
    viz = RayCastSensorCfg.VizCfg(show_rays=True)
    scene, _ = make(scan(debug_vis=True, viz=viz, max_distance=0.5))
    visualizer = DebugVisualizer()
    scene["scan"].debug_vis(visualizer)
    shapes = visualizer.shapes()
    assert len(shapes.kind) == 6
    np.testing.assert_allclose(shapes.rgba[:, :3], [[1.0, 0.0, 0.0]] * 6)


def test_nothing_is_drawn_by_default():
    scene, _ = make(scan())
    visualizer = DebugVisualizer()
    scene["scan"].debug_vis(visualizer)
    assert len(visualizer.shapes().kind) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frame": ()}, "'scan' has no frame. Give it the body"),
        (
            {"frame": ObjRef("joint", "x", "robot")},
            "must be 'body', 'site', or 'geom', got 'joint'",
        ),
        (
            {"frame": ObjRef("body", "bas", "robot")},
            "no body 'robot/bas'. Did you mean 'robot/base'",
        ),
        ({"include_geom_groups": (0, 6)}, r"include_geom_groups must be in \[0, 6\), got 6"),
        ({"include_geom_groups": ()}, r"include_geom_groups must be in \[0, 6\), got none"),
        ({"ray_alignment": "jaw"}, "unknown ray_alignment 'jaw'. Did you mean 'yaw'"),
        ({"max_distance": 0.0}, "max_distance must be positive, got 0.0"),
        ({"update_period": -1.0}, "update_period must be 0 .* got -1"),
        (
            {"pattern": GridPatternCfg(resolution=0.0)},
            "'scan': GridPatternCfg.resolution must be pos",
        ),
        (
            {"pattern": GridPatternCfg(size=(-1.0, 1.0))},
            "GridPatternCfg.size must be .* at least 0",
        ),
        (
            {"pattern": GridPatternCfg(direction=(0.0, 0.0, 0.0))},
            "direction of a ray pattern must be",
        ),
        ({"pattern": RingPatternCfg((), include_center=False)}, "without rings .* has no rays"),
        ({"pattern": RingPatternCfg.single_ring(0.1, 0)}, "radius=0.1 and num_samples=0"),
        ({"pattern": PinholeCameraPatternCfg(0, 3)}, "got 0 x 3 and 45.0"),
        ({"pattern": PinholeCameraPatternCfg(3, 3, 180.0)}, "fovy between 0 and 180 degrees"),
        (
            {"pattern": PinholeCameraPatternCfg.from_mujoco_camera("robot/frond")},
            "no camera 'robot/frond'. Did you mean 'robot/front'",
        ),
    ],
)
def test_mistakes_are_explained(fields, message):
    with pytest.raises(ValueError, match=message):
        make(scan(**fields))


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'feet': unknown reduction 'mim'. Did you mean 'min'"):
        make(feet(reduction="mim"))


def test_bad_intrinsics_are_refused():
    with pytest.raises(ValueError, match="from_intrinsic_matrix needs nine numbers"):
        PinholeCameraPatternCfg.from_intrinsic_matrix([1.0, 2.0], 3, 3)


def test_reading_without_a_simulation_says_what_to_call():
    scene = Scene(SceneCfg(entities={"robot": entity()}, sensors=(scan(),)), "cpu")
    sim = Simulation(1, SimulationCfg(engine="mjbatch"), scene.compile())
    scene.initialize(sim.mj_model, sim.model, sim.data)
    with pytest.raises(RuntimeError, match="sim.set_sensor_context"):
        _ = scene["scan"].data
    with pytest.raises(RuntimeError, match="Call scene.initialize"):
        _ = scan().build().num_rays
