"""Camera sensors: what their pictures show, when they are drawn, and bad input."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from camera_worlds import ALL, down, make_room, refresh

from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sensor import CameraSensor, CameraSensorCfg, CameraSensorData
from mjlab_rec.sim import Simulation, SimulationCfg

GEOM = int(mujoco.mjtObj.mjOBJ_GEOM)


@pytest.fixture(scope="module", params=["mjbatch", "warp"])
def room(request: pytest.FixtureRequest) -> tuple[Any, Simulation]:
    """A room that no test changes."""
    return make_room(down(), engine=request.param)


@pytest.fixture(params=["mjbatch", "warp"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def rays(fovy: float = 60.0, width: int = 40, height: int = 30) -> np.ndarray:
    """The directions (height, width, 3) of a perspective camera's pixels, of depth 1."""
    top = np.tan(np.radians(fovy) / 2)
    y = top * (1 - 2 * (np.arange(height) + 0.5) / height)
    x = top * width / height * (2 * (np.arange(width) + 0.5) / width - 1)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    return np.concatenate([grid, -np.ones((height, width, 1))], axis=-1)


def traced(sim: Simulation, groups: tuple[int, ...] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Depth and geoms that C MuJoCo's mj_ray finds for the camera above."""
    model = sim.mj_model
    data = mujoco.MjData(model)
    data.qpos[:] = sim.data.qpos[0].cpu().numpy()
    mujoco.mj_forward(model, data)
    shown = np.array([group in groups for group in range(6)], dtype=np.uint8)
    camera = model.camera("room/above").id
    start, axes = data.cam_xpos[camera], data.cam_xmat[camera].reshape(3, 3)
    directions = rays()
    depth, geoms = np.zeros(directions.shape[:2]), np.full(directions.shape[:2], -1)
    hit = np.zeros(1, dtype=np.int32)
    for index in np.ndindex(*depth.shape):
        depth[index] = mujoco.mj_ray(
            model, data, start, axes @ directions[index], shown, 1, -1, hit, None
        )
        geoms[index] = hit[0]
    return np.maximum(depth, 0), geoms


# -- what pictures show ----------------------------------------------------------------------------


def test_shapes_and_types(room: Any) -> None:
    data = room[0]["eye"].data
    assert isinstance(data, CameraSensorData)
    assert (data.rgb.shape, data.rgb.dtype) == ((2, 30, 40, 3), torch.uint8)
    assert (data.depth.shape, data.depth.dtype) == ((2, 30, 40, 1), torch.float32)
    assert (data.segmentation.shape, data.segmentation.dtype) == ((2, 30, 40, 2), torch.int32)


def test_kinds_that_are_not_asked_for_are_none() -> None:
    scene, _ = make_room(down(data_types=("depth",)))
    data = scene["eye"].data
    assert data.rgb is None and data.segmentation is None
    assert data.depth.shape == (2, 30, 40, 1)


def test_depth_and_segmentation_are_those_of_mj_ray(room: Any) -> None:
    scene, sim = room
    data = scene["eye"].data
    depth, geoms = traced(sim)
    for world in range(2):
        same = data.segmentation[world, ..., 0].numpy() == geoms
        assert same.mean() > 0.99  # At an edge, rounding decides.
        found = data.depth[world, ..., 0].numpy()
        np.testing.assert_allclose(found[same], depth[same], atol=1e-4)
    assert (data.segmentation[..., 1] == GEOM).all()
    assert set(np.unique(geoms)) == {0, 1, 3}  # Not the hidden one.


def test_depth_is_measured_along_the_view(room: Any) -> None:
    depth = room[0]["eye"].data.depth[0, ..., 0]
    assert depth[0, 20] == pytest.approx(4.0, abs=1e-4)  # The floor, far from the middle.
    model = room[1].mj_model
    seen = room[0]["eye"].data.segmentation[0, ..., 0]
    box = depth[seen == model.geom("room/box").id]
    assert box.min() == pytest.approx(3.4, abs=1e-4)
    # The analytic ball: the nearer solution of |camera + t ray - centre| = 0.5.
    ball = (seen == model.geom("room/ball").id).numpy()
    to_ball, ray = np.array([1.0, 0.0, 3.0]), rays()
    a, b = (ray**2).sum(-1), ray @ to_ball
    t = (-b - np.sqrt(np.maximum(b**2 - a * (to_ball @ to_ball - 0.25), 0))) / a
    np.testing.assert_allclose(depth.numpy()[ball], t[ball], atol=2e-3)


def test_colours_are_those_of_the_geoms(room: Any) -> None:
    scene, sim = room
    data = scene["eye"].data
    for name, colour in (("floor", (0, 0, 255)), ("box", (0, 255, 0)), ("ball", (255, 0, 0))):
        shown = data.segmentation[..., 0] == sim.mj_model.geom(f"room/{name}").id
        assert shown.any()
        assert (data.rgb[shown] == torch.tensor(colour, dtype=torch.uint8)).all()


def test_the_engines_agree() -> None:
    first, second = (make_room(down(), engine=e)[0]["eye"].data for e in ("mjbatch", "warp"))
    for kind in ALL:
        one, other = getattr(first, kind).float(), getattr(second, kind).float()
        differs = (one - other).abs().amax(dim=-1) > 1e-3
        assert differs.float().mean() < 0.005, kind


def test_worlds_show_their_own_state(engine: str) -> None:
    scene, sim = make_room(down(), engine=engine, num_envs=5)
    ball = sim.mj_model.geom("room/ball").id
    sim.data.qpos[3, :3] = torch.tensor([0.0, 0.0, 3.0])
    refresh(scene, sim)
    data = scene["eye"].data
    seen = (data.segmentation[..., 0] == ball).flatten(1).sum(dim=1)
    assert seen[3] > 3 * seen[0] > 0
    assert (seen == seen[0]).tolist() == [True, True, True, False, True]
    assert data.depth[3, 15, 20, 0] == pytest.approx(0.5, abs=1e-2)


def test_geom_groups_choose_what_is_seen() -> None:
    scene, sim = make_room(down(enabled_geom_groups=(0, 3)))
    seen = set(scene["eye"].data.segmentation[..., 0].unique().tolist())
    assert sim.mj_model.geom("room/hidden").id in seen


def test_without_geoms_there_is_nothing_to_see() -> None:
    scene, _ = make_room(down(enabled_geom_groups=(5,)))
    data = scene["eye"].data
    assert not data.rgb.any() and not data.depth.any()
    assert (data.segmentation == -1).all()


def test_a_new_camera_is_where_the_cfg_says(engine: str) -> None:
    new = CameraSensorCfg(
        "new", pos=(0.0, 0.0, 2.0), fovy=40.0, width=8, height=6, data_types=("depth",)
    )
    worn = dataclasses.replace(new, name="worn", parent_body="room/ball", pos=(0.0, 0.0, 1.5))
    scene, sim = make_room(new, worn, engine=engine)
    assert sim.mj_model.cam_fovy[scene["new"].camera_idx] == 40.0
    assert scene["worn"].data.depth[0, 3, 4, 0] == pytest.approx(1.0, abs=0.01)
    sim.data.qpos[1, 2] = 4.0  # The camera moves with the ball.
    refresh(scene, sim)
    assert scene["worn"].data.depth[1, 3, 4, 0] == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(scene["new"].data.depth[:, 3, 4, 0], 2.0, atol=1e-4)


def test_an_existing_camera_can_get_another_lens() -> None:
    wide, flat = down(fovy=90.0), down("flat", orthographic=True, fovy=3.0)
    flat = dataclasses.replace(flat, camera_name="room/front")
    scene, sim = make_room(wide, flat)
    assert sim.mj_model.cam_fovy[scene["eye"].camera_idx] == 90.0
    seen = scene["flat"].data.segmentation[0, ..., 0] == sim.mj_model.geom("room/ball").id
    # Without perspective the ball's diameter, a third of the height, does not depend on distance.
    assert seen.any(dim=1).sum() == 10
    assert scene["flat"].data.depth[0, 15, 20, 0] == pytest.approx(1.5, abs=0.01)


def test_fields_per_world_are_seen(engine: str) -> None:
    scene, sim = make_room(down(), engine=engine, num_envs=3)
    before = scene["eye"].data
    sim.expand_model_fields(("geom_rgba", "geom_size", "cam_fovy", "cam_pos", "geom_pos"))
    model, box = sim.mj_model, sim.mj_model.geom("room/box").id
    sim.model.geom_rgba[1, box] = torch.tensor([1.0, 1.0, 0.0, 1.0])
    sim.model.geom_size[1, box] = torch.tensor([0.2, 0.2, 0.3])
    sim.model.cam_fovy[2, model.camera("room/above").id] = 30.0
    sim.model.cam_pos[2, model.camera("room/above").id, 2] = 8.0
    refresh(scene, sim)
    after = scene["eye"].data
    for kind in ALL:
        assert torch.equal(getattr(before, kind)[0], getattr(after, kind)[0])
    seen = after.segmentation[..., 0] == box
    assert (after.rgb[1][seen[1]] == torch.tensor([255, 255, 0], dtype=torch.uint8)).all()
    assert 0 < seen[1].sum() < 0.3 * seen[0].sum()
    assert after.depth[2, 15, 20, 0] == pytest.approx(8.0, abs=1e-3)


def test_variants_are_seen_as_they_are(engine: str) -> None:
    from variant_worlds import START, of_variants, thing

    one, other = ("ball", 0.1, True), ("brick", 0.2, True)
    shapes = {"small": thing([one]), "large": thing([other]), "both": thing([one, other])}
    things = of_variants(shapes, init_state=START)
    eye = CameraSensorCfg("eye", pos=(0.0, 0.0, 2.0), width=24, height=16, data_types=ALL)
    scene = Scene(SceneCfg(num_envs=6, entities={"thing": things}, sensors=(eye,)))
    cfg = SimulationCfg(engine=engine, nconmax=60, njmax=240)
    info = scene.collect_variant_info()
    sim = Simulation(6, cfg, spec=scene.spec, variant_info=info)
    scene.initialize(sim.mj_model, sim.model, sim.data)
    sim.set_sensor_context(scene.sensor_context)
    sim.data.qpos[:] = torch.from_numpy(sim.mj_model.key_qpos[0]).float()
    refresh(scene, sim)
    depth = scene["eye"].data.depth
    for world in range(6):  # As C MuJoCo sees a world that has these meshes and nothing else.
        model = copy.copy(sim.mj_model)
        for name in sim.expanded_fields:
            field = getattr(model, name)
            field[...] = getattr(sim.model, name)[world].numpy().reshape(field.shape)
        data = mujoco.MjData(model)
        data.qpos[:] = sim.data.qpos[world].numpy()
        mujoco.mj_forward(model, data)
        expected = np.zeros((16, 24))
        for index in np.ndindex(16, 24):
            ray = rays(45.0, 24, 16)[index]
            expected[index] = mujoco.mj_ray(
                model, data, data.cam_xpos[0], ray, None, 1, -1, np.zeros(1, np.int32), None
            )
        same = np.abs(depth[world, ..., 0].numpy() - np.maximum(expected, 0)) < 1e-3
        assert same.mean() > 0.97
    assert (sim.model.geom_dataid < 0).any()
    seen = (depth > 0).flatten(1).sum(dim=1)
    assert len(set(seen.tolist())) == 3


# -- when pictures are drawn -----------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The pictures that were drawn: the sensor's name, and the worlds."""
    calls: list[tuple[str, Any]] = []
    measure = CameraSensor._measure

    def counted(self: CameraSensor, worlds: torch.Tensor | None) -> CameraSensorData:
        calls.append((self.name, None if worlds is None else worlds.tolist()))
        return measure(self, worlds)

    monkeypatch.setattr(CameraSensor, "_measure", counted)
    return calls


def test_a_picture_is_drawn_once_and_only_if_read(drawn: list[Any]) -> None:
    scene, sim = make_room(down(), down("other"))
    for _ in range(3):
        sim.step()
        scene.update(0.002)
        refresh(scene, sim)
    assert drawn == []
    first = scene["eye"].data
    assert scene["eye"].data is first
    assert drawn == [("eye", None)]
    refresh(scene, sim)
    assert scene["eye"].data is not first
    assert drawn == [("eye", None)] * 2  # And never the other one.


def test_what_was_read_does_not_change() -> None:
    scene, sim = make_room(down())
    before = scene["eye"].data
    kept = {kind: getattr(before, kind).clone() for kind in ALL}
    sim.data.qpos[:, 0] += 1.0
    refresh(scene, sim)
    assert not torch.equal(scene["eye"].data.rgb, kept["rgb"])
    for kind in ALL:
        assert torch.equal(getattr(before, kind), kept[kind])


def test_cloned_pictures_may_be_changed() -> None:
    scene, _ = make_room(down(clone_data=True))
    scene["eye"].data.rgb.zero_()
    assert scene["eye"].data.rgb.any()


def test_a_rate_of_its_own(drawn: list[Any]) -> None:
    scene, sim = make_room(down(update_period=0.1), num_envs=3)
    scene.reset()
    refresh(scene, sim)
    old = scene["eye"].data.depth
    for step in range(1, 4):
        sim.data.qpos[:, 2] += 0.1
        if step == 2:  # In the middle of the period: only this world gets a new picture.
            scene.reset(torch.tensor([1]))
        scene.update(0.04)
        refresh(scene, sim)
        new = scene["eye"].data.depth
        same = [torch.equal(one, other) for one, other in zip(old, new, strict=True)]
        assert same == [[True] * 3, [True, False, True], [False, True, False]][step - 1]
        old = new
    assert drawn[1:] == [("eye", [False, True, False]), ("eye", [True, False, True])]


def test_only_some_worlds_can_be_drawn() -> None:
    scene, sim = make_room(down(), num_envs=6)
    whole = scene["eye"].data.rgb
    wanted = torch.tensor([False, True, True, False, False, True])
    context = scene.sensor_context
    view, look = scene["eye"]._view, scene["eye"]._look
    part = context.cameras(look).draw(view, wanted)["rgb"]
    assert torch.equal(part[wanted], whole[wanted])


def test_the_number_of_threads_does_not_matter() -> None:
    from mjlab_rec.sim.warp_cameras import cameras_on_cpu

    scene, sim = make_room(down(), num_envs=7)
    sim.expand_model_fields(("geom_rgba",))
    sim.data.qpos[:, 0] = torch.linspace(-2, 2, 7)
    sim.model.geom_rgba[:, :, 0] = torch.linspace(0, 1, 7)[:, None]
    refresh(scene, sim)
    engine, eye = sim._engine, scene["eye"]
    from mjlab_rec.sim.warp_cameras import PLACES

    found = []
    for threads in (1, 3):
        cameras = cameras_on_cpu(
            sim.mj_model,
            eye._look,
            7,
            {name: engine.bind(name) for name in PLACES},
            {"geom_rgba": sim.model.geom_rgba},
            threads,
        )
        for _ in range(5):
            found.append(cameras.draw(eye._view))
    for pictures in found[1:]:
        for kind in ALL:
            assert torch.equal(pictures[kind], found[0][kind])
    assert len({row.numpy().tobytes() for row in found[0]["rgb"]}) == 7


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(width=0), "width must be at least 1 pixel, got 0"),
        (dict(height=-3), "height must be at least 1 pixel, got -3"),
        (dict(data_types=("rgb", "deph")), "unknown kind of picture 'deph'. Did you mean 'depth'"),
        (dict(data_types=()), "data_types is empty; choose of rgb, depth, segmentation"),
        (dict(data_types="rgb"), r"must be a tuple, such as \('rgb',\)"),
        (dict(fovy=180.0), "fovy must be in degrees, between 0 and 180, got 180.0"),
        (dict(fovy=-1.0, orthographic=True), "fovy must be in metres, more than 0, got -1.0"),
        (dict(enabled_geom_groups=(0, 6)), "has 6; MuJoCo's geom groups are 0 to 5"),
        (dict(update_period=-0.1), "update_period must be 0 or a time in seconds, got -0.1"),
    ],
)
def test_bad_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Camera sensor 'eye': .*{message}"):
        CameraSensorCfg("eye", **fields)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="no camera 'room/abov'. Did you mean 'room/above'"):
        make_room(down(camera_name="room/abov"))
    with pytest.raises(ValueError, match="no body 'room/bal' for parent_body.* 'room/ball'"):
        make_room(CameraSensorCfg("eye", parent_body="room/bal"))
    with pytest.raises(ValueError, match="has no camera 'x'. It has none; set camera_name=None"):
        make_room(
            down(camera_name="x"), xml="<mujoco><worldbody><geom size='1'/></worldbody></mujoco>"
        )
    with pytest.raises(
        ValueError, match="already has a camera of that name.*camera_name='room/above'"
    ):
        make_room(CameraSensorCfg("room/above"))


@pytest.mark.parametrize(
    "fields", [dict(use_textures=False), dict(use_shadows=True), dict(enabled_geom_groups=(0,))]
)
def test_settings_that_differ(fields: dict[str, Any]) -> None:
    name = next(iter(fields))
    with pytest.raises(ValueError, match=f"must agree on {name}: it is .* in 'eye' and .* in 'b'"):
        make_room(down(), down("b", **fields))


def test_groups_in_another_order_are_the_same() -> None:
    make_room(down(enabled_geom_groups=(1, 0)), down("b", enabled_geom_groups=(0, 1, 1)))


def test_pictures_need_a_connected_simulation() -> None:
    from camera_worlds import room_cfg

    scene = Scene(room_cfg(down()))
    sim = Simulation(2, make_room()[1].cfg, scene.compile())
    with pytest.raises(RuntimeError, match="'eye' has no data yet. Call scene.initialize"):
        scene["eye"].data  # noqa: B018
    scene.initialize(sim.mj_model, sim.model, sim.data)
    with pytest.raises(RuntimeError, match="'eye' are not connected to a simulation"):
        scene["eye"].data  # noqa: B018
