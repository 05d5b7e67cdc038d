"""Rays in every world, compared with mj_ray in each of them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mjlab_rec.sim import Simulation, SimulationCfg
from mjlab_rec.sim.ray_caster import RayCaster
from mjlab_rec.sim.ray_spec import RayHits, RaySpec

ENGINES = ["mjbatch", "warp"]
CUBE = "-1 -1 -1 1 -1 -1 1 1 -1 -1 1 -1 -1 -1 1 1 -1 1 1 1 1 -1 1 1"
# One fixed and one moving geom of every kind.
EVERYTHING = """
<mujoco>
  <option><flag contact="disable"/></option>
  <asset>
    <mesh name="wedge" vertex="-1 -1 -1 1 -1 -1 1 1 -1 -1 1 -1 0 -1 1 0 1 1" scale=".3 .4 .5"/>
    <hfield name="hills" nrow="5" ncol="7" size="2 1 .7 .2" elevation="{hills}"/>
  </asset>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <geom type="plane" size="0 0 1" pos="0 0 -3" euler="4 5 0"/>
    <geom type="hfield" hfield="hills" pos="1 0 -1.5" euler="0 0 20"/>
    <geom type="box" size=".3 .5 .2" pos="-1 0 -1" euler="10 20 30"/>
    <geom type="sphere" size=".4" pos="-2 1 -1"/>
    <geom type="cylinder" size=".2 .5" pos="-2 -1 -1" euler="70 10 0"/>
    <geom type="capsule" size=".2 .5" pos="-1 -1 -1" euler="70 10 0"/>
    <geom type="ellipsoid" size=".2 .5 .4" pos="-1 1.5 -1" euler="70 10 0"/>
    <geom type="mesh" mesh="wedge" pos="0 1 -1" euler="20 40 50"/>
    <body name="carrier"><freejoint/><geom size=".1"/><site name="eye" pos=".2 0 0" euler="0 90 0"/>
    </body>
    <body pos="1 1 .5"><freejoint/><geom type="box" size=".2 .1 .3"/></body>
    <body pos="-1 1 .5"><freejoint/><geom type="mesh" mesh="wedge"/></body>
    <body pos="1 -1 .5"><freejoint/><geom type="capsule" size=".1 .2"/></body>
    <body pos="-1 -1 .5"><freejoint/><geom type="cylinder" size=".2 .2"/></body>
    <body pos="0 2 .5"><freejoint/><geom type="ellipsoid" size=".2 .1 .3"/></body>
  </worldbody>
</mujoco>
"""
ALL_GROUPS = tuple(range(6))


def everything(seed: int = 0) -> mujoco.MjModel:
    hills = np.random.default_rng(seed).random(35)
    return mujoco.MjModel.from_xml_string(
        EVERYTHING.format(hills=" ".join(f"{height:.4f}" for height in hills))
    )


def make(model: mujoco.MjModel | str, engine: str = "mjbatch", num_envs: int = 2, **cfg):
    if isinstance(model, str):
        model = mujoco.MjModel.from_xml_string(model)
    return Simulation(num_envs, SimulationCfg(engine=engine, **cfg), model)


def scatter(sim: Simulation, rng: np.random.Generator) -> None:
    """Put every free body somewhere else in every world."""
    qpos = sim.data.qpos
    qpos += torch.tensor(rng.normal(scale=0.4, size=qpos.shape)).float()
    sim.forward()


def spread(rng: np.random.Generator, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    starts = torch.tensor(rng.normal(scale=1.5, size=(number, 3))).float()
    directions = torch.tensor(rng.normal(size=(number, 3))).float()
    return starts, directions / directions.norm(dim=1, keepdim=True)


def spec_of(starts, directions, frames=(("body", 1),), **others) -> RaySpec:
    fields = {"groups": ALL_GROUPS, "excluded_bodies": [-1] * len(frames), **others}
    return RaySpec(frames=list(frames), offsets=starts, directions=directions, **fields)


def mj_hit(model, data, start, direction, excluded=-1, groups=ALL_GROUPS):
    """Distance and normal as MuJoCo finds them."""
    geom, normal = np.zeros(1, np.int32), np.zeros(3)
    mask = np.array([group in groups for group in range(6)], np.uint8)
    x = mujoco.mj_ray(model, data, start, direction, mask, 1, excluded, geom, normal)
    return (x, normal) if x >= 0 else (-1.0, np.zeros(3))


def is_inside_hills(model, data, point) -> bool:
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD):
        size = model.hfield_size[model.geom_dataid[geom]]
        p = data.geom_xmat[geom].reshape(3, 3).T @ (point - data.geom_xpos[geom])
        if (np.abs(p[:2]) <= size[:2]).all() and -size[3] <= p[2] <= size[2]:
            return True
    return False


def assert_as_mj_ray(sim: Simulation, spec: RaySpec, hits: RayHits, rng) -> int:
    """Compare all rays that start in their frames; at edges a close-by ray may agree instead."""
    model, data = sim.mj_model, mujoco.MjData(sim.mj_model)
    compared = 0
    for world in range(sim.num_envs):
        data.qpos[:] = sim.data.qpos[world].numpy()
        mujoco.mj_forward(model, data)
        for f, (kind, index) in enumerate(spec.frames):
            prefix = "" if kind == "body" else f"{kind}_"
            pos = getattr(data, f"{prefix}xpos")[index]
            mat = getattr(data, f"{prefix}xmat")[index].reshape(3, 3)
            for r in range(len(spec.offsets)):
                start = pos + mat @ spec.offsets[r].numpy().astype(float)
                direction = mat @ spec.directions[r].numpy().astype(float)
                if is_inside_hills(model, data, start):
                    continue
                place = f * len(spec.offsets) + r
                x, normal = float(hits.distances[world, place]), hits.normals[world, place].numpy()
                tries = np.vstack([np.zeros((1, 6)), rng.normal(scale=1e-4, size=(60, 6))])
                for i, shift in enumerate(tries):
                    want, n = mj_hit(
                        model,
                        data,
                        start + shift[:3],
                        direction + shift[3:],
                        spec.excluded_bodies[f],
                        spec.groups,
                    )
                    if want > spec.max_distance:
                        want, n = -1.0, np.zeros(3)
                    slack = 1e-4 * max(1.0, want) ** 2 * (1 if i == 0 else 10)
                    if abs(want - x) < slack and np.abs(n - normal).max() < 5e-3:
                        break
                else:
                    raise AssertionError(
                        f"World {world}, ray {place}: {x} {normal}, MuJoCo {want} {n}"
                    )
                compared += 1
                if x >= 0:
                    point = start + x * direction
                    np.testing.assert_allclose(
                        hits.points[world, place], point, atol=1e-4 * max(1.0, x) ** 2
                    )
                else:
                    np.testing.assert_allclose(hits.points[world, place], start, atol=1e-5)
                    assert x == -1.0
    return compared


@pytest.mark.parametrize("engine", ENGINES)
def test_every_kind_of_geom_is_hit_as_in_mujoco(engine):
    rng = np.random.default_rng(0)
    sim = make(everything(), engine)
    scatter(sim, rng)
    frames = (("body", 1), ("site", 0), ("geom", 8))
    spec = spec_of(*spread(rng, 200), frames=frames, excluded_bodies=[1, -1, 3])
    hits = sim.ray_caster(spec).cast()
    assert assert_as_mj_ray(sim, spec, hits, rng) > 1000
    assert 300 < int((hits.distances >= 0).sum()) < 1100


@given(seed=st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_random_scenes_and_rays(seed):
    rng = np.random.default_rng(seed)
    sim = make(random_model(rng), num_envs=2)
    scatter(sim, rng)
    groups = tuple(g for g in range(6) if rng.random() < 0.7) or (0,)
    spec = spec_of(*spread(rng, 60), max_distance=float(rng.uniform(0.5, 8.0)), groups=groups)
    assert_as_mj_ray(sim, spec, sim.ray_caster(spec).cast(), rng)


def random_model(rng: np.random.Generator) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    corners = np.array(CUBE.split(), float).reshape(-1, 3) * rng.uniform(0.2, 1.0, 3)
    spec.add_mesh(name="mesh", uservert=(corners + rng.normal(scale=0.05, size=(8, 3))).ravel())
    rows, columns = rng.integers(2, 6, 2)
    spec.add_hfield(
        name="hills",
        size=(*rng.uniform(0.5, 2, 3), 0.1),
        nrow=rows,
        ncol=columns,
        userdata=rng.random(rows * columns),
    )
    kinds = ["PLANE", "HFIELD", "SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER", "BOX", "MESH"]
    spec.worldbody.add_body(name="carrier").add_freejoint()
    spec.body("carrier").add_geom(size=(0.05, 0, 0))
    for _ in range(rng.integers(1, 30)):
        kind = kinds[rng.integers(len(kinds))]
        moves = kind not in ("PLANE", "HFIELD") and rng.random() < 0.3
        parent = spec.worldbody
        if moves:
            parent = parent.add_body(pos=rng.normal(size=3))
            parent.add_freejoint()
        quat = rng.normal(size=4)
        if kind == "HFIELD":
            quat[1:3] = 0.0
        parent.add_geom(
            type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"),
            size=rng.uniform(0.05, 0.6, 3),
            pos=rng.normal(scale=1.5, size=3),
            quat=quat,
            group=int(rng.integers(6)),
            rgba=(1, 1, 1, float(rng.random() < 0.9)),
            meshname="mesh" if kind == "MESH" else None,
            hfieldname="hills" if kind == "HFIELD" else None,
        )
    return spec.compile()


FLOOR = """
<mujoco>
  <option><flag contact="disable"/></option>
  <asset><material name="glass" rgba="1 1 1 0"/></asset>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1"/>
    {more}
    <body name="carrier" pos="0 0 3"><freejoint/>
      <geom name="own" size=".1" pos="0 0 -.5"/>
      <body name="child"><geom name="childs" size=".1" pos="1 0 -1"/></body>
    </body>
  </worldbody>
</mujoco>
"""
DOWN = (torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, -1.0]] * 2))


def cast(sim: Simulation, **fields) -> list[float]:
    hits = sim.ray_caster(spec_of(*DOWN, **fields)).cast()
    return [round(x, 3) for x in hits.distances[0].tolist()]


def test_only_the_excluded_body_is_left_out():
    sim = make(FLOOR.format(more=""))
    assert cast(sim) == [0.4, 0.9]
    assert cast(sim, excluded_bodies=[1]) == [3.0, 0.9]
    assert cast(sim, excluded_bodies=[2]) == [0.4, 3.0]
    assert cast(sim, excluded_bodies=[0]) == [0.4, 0.9]


def test_each_frame_excludes_its_own_body():
    sim = make(FLOOR.format(more=""))
    frames = (("body", 1), ("body", 2))
    assert cast(sim, frames=frames, excluded_bodies=[1, 2]) == [3.0, 0.9, 0.4, 3.0]


def test_groups_and_invisible_geoms():
    more = '<geom type="box" size="1 1 .1" pos="0 0 1" group="{}" {}/>'
    sim = make(FLOOR.format(more=more.format(4, "")))
    assert cast(sim, excluded_bodies=[1], groups=(0, 4))[0] == 1.9
    assert cast(sim, excluded_bodies=[1], groups=(0,))[0] == 3.0
    assert cast(sim, excluded_bodies=[1], groups=(1,))[0] == -1.0
    for invisible in ('rgba="1 1 1 0"', 'material="glass"'):
        sim = make(FLOOR.format(more=more.format(0, invisible)))
        assert cast(sim, excluded_bodies=[1])[0] == 3.0


def test_a_hit_beyond_the_distance_is_a_miss():
    sim = make(FLOOR.format(more=""))
    assert cast(sim, excluded_bodies=[1], max_distance=3.001)[0] == 3.0
    assert cast(sim, excluded_bodies=[1], max_distance=2.999)[0] == -1.0


def test_rays_do_not_slip_between_boxes_that_touch():
    boxes = "".join(
        f'<geom type="box" size=".05 .05 .1" pos="{50 + i * 0.1} {j * 0.1} 1"/>'
        for i in range(20)
        for j in range(20)
    )
    sim = make(FLOOR.format(more=boxes), num_envs=1)
    # On the edges of all boxes, and off by a rounding error.
    at = [
        [50.05 + i * 0.1 + d, 0.05 + j * 0.1, 0.0]
        for i in range(18)
        for j in range(18)
        for d in (0.0, 4e-6, -4e-6)
    ]
    starts = torch.tensor(at)
    down = torch.tensor([[0.0, 0.0, -1.0]]).repeat(len(at), 1)
    hits = sim.ray_caster(spec_of(starts, down)).cast()
    np.testing.assert_allclose(hits.distances, 1.9, atol=1e-4)


def test_start_inside_of_hills_meets_the_bottom_from_behind():
    hills = np.full((4, 4), 1.0)
    hills[0, 0] = 0.0  # MuJoCo scales them to between 0 and 1.
    spec = mujoco.MjSpec.from_string(FLOOR.format(more=""))
    spec.add_hfield(name="h", size=(2, 2, 1, 0.5), nrow=4, ncol=4, userdata=hills.ravel())
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="h", pos=(0, 0, 2.5))
    sim = make(spec.compile())
    hits = sim.ray_caster(spec_of(*DOWN, excluded_bodies=[1])).cast()
    np.testing.assert_allclose(hits.distances[0, :1], 1.0, atol=1e-5)
    assert hits.normals[0, 0].tolist() == [0.0, 0.0, -1.0]


def test_mocap_bodies_count_as_moving():
    more = '<body name="lift" mocap="true" pos="0 0 1"><geom type="box" size="1 1 .1"/></body>'
    sim = make(FLOOR.format(more=more))
    carrier = sim.mj_model.body("carrier").id
    spec = spec_of(*DOWN, frames=(("body", carrier),), excluded_bodies=[carrier])
    caster = sim.ray_caster(spec)
    sim.data.mocap_pos[1, 0, 2] = 2.0
    sim.forward()
    np.testing.assert_allclose(caster.cast().distances[:, 0], [1.9, 0.9], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("field", ["geom_size", "geom_pos", "geom_rgba"])
def test_model_fields_per_world(engine, field):
    box = '<geom name="box" type="box" size="1 1 .1"/>'
    # MuJoCo-Warp never moves a geom of a fixed body.
    lift = f'<body mocap="{str(field == "geom_pos").lower()}" pos="0 0 1">{box}</body>'
    sim = make(FLOOR.format(more=lift), engine)
    carrier = sim.mj_model.body("carrier").id
    spec = spec_of(*DOWN, frames=(("body", carrier),), excluded_bodies=[carrier])
    caster = sim.ray_caster(spec)
    np.testing.assert_allclose(caster.cast().distances[:, 0], 1.9, atol=1e-5)
    sim.expand_model_fields([field])
    geom = sim.mj_model.geom("box").id
    value, want = {
        "geom_size": (torch.tensor([1.0, 1.0, 0.3]), 1.7),
        "geom_pos": (torch.tensor([0.0, 0.0, 1.0]), 0.9),
        "geom_rgba": (torch.zeros(4), 3.0),
    }[field]
    getattr(sim.model, field)[1, geom] = value
    sim.forward()
    np.testing.assert_allclose(caster.cast().distances[:, 0], [1.9, want], atol=1e-5)
    getattr(sim.model, field)[0, geom] = value
    sim.forward()
    np.testing.assert_allclose(caster.cast().distances[:, 0], want, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_rays_belong_to_the_same_moment_as_bodies(engine):
    """After a step, both date from its beginning; after a forward pass, both are current."""
    sim = make(FLOOR.format(more=""), engine)
    caster = sim.ray_caster(spec_of(*DOWN, excluded_bodies=[1]))
    sim.data.qvel[:, 2] = 5.0
    sim.step(3)
    height = sim.data.xpos[:, 1, 2].clone()
    assert not torch.allclose(height, sim.data.qpos[:, 2], atol=1e-3)
    torch.testing.assert_close(caster.cast().distances[:, 0], height)
    sim.forward()
    torch.testing.assert_close(caster.cast().distances[:, 0], sim.data.qpos[:, 2])


def test_results_never_change_later():
    sim = make(FLOOR.format(more=""))
    caster = sim.ray_caster(spec_of(*DOWN, excluded_bodies=[1]))
    hits = caster.cast()
    kept = {name: value.clone() for name, value in vars(hits).items()}
    sim.data.qpos[:, 2] = 7.0
    sim.forward()
    assert caster.cast().distances[0, 0] == 7.0
    for name, value in kept.items():
        assert torch.equal(getattr(hits, name), value), name


def test_masked_worlds_are_computed_and_others_cost_nothing():
    sim = make(FLOOR.format(more=""), num_envs=3)
    caster = sim.ray_caster(spec_of(*DOWN, excluded_bodies=[1]))
    hits = caster.cast(torch.tensor([True, False, True]))
    assert hits.distances[[0, 2], 0].tolist() == [3.0, 3.0]
    assert caster.cast().distances[1, 0] == 3.0


def test_number_of_threads_does_not_change_a_bit(monkeypatch):
    rng = np.random.default_rng(1)
    starts, directions = spread(rng, 700)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr("mjlab_rec.sim.ray_caster._RAYS_PER_THREAD", 100)
        sim = make(everything(), num_envs=5, num_threads=threads)
        scatter(sim, np.random.default_rng(2))
        caster = sim.ray_caster(spec_of(starts, directions))
        results.append(caster.cast())
        assert len(caster._launches) == threads
    for name, value in vars(results[0]).items():
        assert torch.equal(value, getattr(results[1], name)), name


def test_frames_are_reported_as_mujoco_has_them():
    sim = make(everything())
    scatter(sim, np.random.default_rng(3))
    hits = sim.ray_caster(spec_of(*DOWN, frames=(("body", 1), ("site", 0), ("geom", 8)))).cast()
    data = mujoco.MjData(sim.mj_model)
    data.qpos[:] = sim.data.qpos[1].numpy()
    mujoco.mj_forward(sim.mj_model, data)
    want_pos = np.stack([data.xpos[1], data.site_xpos[0], data.geom_xpos[8]])
    np.testing.assert_allclose(hits.frame_pos[1], want_pos, atol=1e-5)
    mats = np.stack([data.xmat[1], data.site_xmat[0], data.geom_xmat[8]])
    for quat, mat in zip(hits.frame_quat[1].numpy().astype(float), mats, strict=True):
        got = np.zeros(9)
        mujoco.mju_quat2Mat(got, quat)
        np.testing.assert_allclose(got, mat, atol=1e-5)


def heading(mat: np.ndarray) -> np.ndarray:
    """The turn about z that takes x to where the frame's x points, seen from above."""
    ahead = mat[:2, 0]
    if np.hypot(*ahead) < 0.1:
        ahead = np.array([mat[1, 1], -mat[0, 1]])
    angle = np.arctan2(ahead[1], ahead[0])
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@given(
    quat=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    alignment=st.sampled_from(["base", "yaw", "world"]),
)
@settings(max_examples=30, deadline=None)
def test_alignment(quat, alignment):
    sim, starts, directions = _alignment_world()
    sim.data.qpos[:, 3:7] = torch.tensor(quat)
    sim.forward()
    mat = sim.data.xmat[0, 1].numpy().astype(float)
    hypot = np.hypot(*mat[:2, 0])
    if alignment == "yaw" and abs(hypot - 0.1) < 1e-3:
        return  # Rounding decides.
    turn = {"base": mat, "yaw": heading(mat), "world": np.eye(3)}[alignment]
    hits = sim.ray_caster(
        spec_of(starts, directions, alignment=alignment, groups=(1,))
    ).cast()  # Nothing is in this group: all miss, and the points are the starts.
    want = sim.data.xpos[0, 1].numpy() + starts.numpy() @ turn.T
    np.testing.assert_allclose(hits.points[0], want, atol=1e-4)
    hits = sim.ray_caster(spec_of(starts, directions, alignment=alignment)).cast()
    is_hit = hits.distances[0].numpy() >= 0
    way = (hits.points[0].numpy() - want)[is_hit] / hits.distances[0].numpy()[is_hit, None]
    np.testing.assert_allclose(way, (directions.numpy() @ turn.T)[is_hit], atol=1e-3)


_worlds: list = []


def _alignment_world():
    if not _worlds:
        sim = make(
            '<mujoco><worldbody><geom size="20"/><body pos="1 2 3"><freejoint/><geom size=".1"/>'
            "</body></worldbody></mujoco>",
            num_envs=1,
        )
        _worlds.append((sim, *spread(np.random.default_rng(4), 12)))
    return _worlds[0]


@pytest.mark.parametrize("what", ["frames", "offsets"])
def test_nothing_to_cast_is_refused(what):
    sim = make(FLOOR.format(more=""))
    spec = spec_of(*DOWN)
    setattr(spec, what, getattr(spec, what)[:0])
    with pytest.raises(ValueError, match="There is nothing to cast"):
        RayCaster(sim, spec)


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu():
    hits = []
    for device in ("cpu", "cuda"):
        sim = Simulation(2, SimulationCfg(engine="warp"), everything(), device=device)
        starts, directions = spread(np.random.default_rng(5), 500)
        hits.append(sim.ray_caster(spec_of(starts, directions)).cast())
    close = (hits[0].distances - hits[1].distances.cpu()).abs() < 1e-3
    assert close.float().mean() > 0.99
