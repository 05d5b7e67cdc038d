"""Entities that have another model in each world."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variant_worlds import (
    MESH,
    SHAPES,
    START,
    add_mesh,
    of_variants,
    scene_of,
    thing,
    trajectory,
)

from mjlab_rec.actuator import BuiltinPositionActuatorCfg, XmlActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg, VariantEntityCfg
from mjlab_rec.entity.variants import allocate_worlds
from mjlab_rec.sim.snapshot import PosedModel, SnapshotReader
from mjlab_rec.utils.spec_config import CollisionCfg, MaterialCfg

BALL, CONE, BRICK = (((shape, 0.1, True),) for shape in SHAPES)
MIXED = {
    "ball": thing(BALL),
    "cones": thing((*CONE, ("cone", 0.06, True), ("ball", 0.08, False)), lid=BRICK, knob=0.05),
    "brick": thing(BRICK, lid=(("cone", 0.07, True),), reach=0.35),
}


def alone(spec_fn: Any, engine: Any = "mjbatch", **fields: Any) -> Any:
    fields.setdefault("init_state", START)
    return scene_of(1, engine, object=EntityCfg(spec_fn=spec_fn, **fields))


meshes = st.lists(
    st.tuples(st.sampled_from(SHAPES), st.sampled_from((0.05, 0.08, 0.1)), st.booleans()),
    max_size=3,
)
things = st.builds(
    thing,
    parts=meshes.filter(len),
    lid=meshes,
    knob=st.sampled_from((0.02, 0.04)),
    reach=st.sampled_from((0.25, 0.3)),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    models=st.lists(things, min_size=1, max_size=4),
    num_envs=st.integers(1, 6),
    data=st.data(),
)
def test_each_world_moves_as_its_variant_would_alone(models: Any, num_envs: int, data: Any):
    chosen = data.draw(
        st.lists(st.integers(0, len(models) - 1), min_size=num_envs, max_size=num_envs)
    )
    variants = {f"v{i}": model for i, model in enumerate(models)}
    _, sim = scene_of(num_envs, object=of_variants(variants, lambda n: chosen))
    sim.data.qvel[:] = torch.linspace(-1.0, 1.5, sim.mj_model.nv)
    for world, variant in enumerate(chosen):
        _, single = alone(models[variant])
        single.data.qvel[:] = torch.linspace(-1.0, 1.5, sim.mj_model.nv)
        for step in range(70):
            # From the same state: contacts would enlarge differences of rounding.
            sim.set_state(single.get_state().expand(num_envs, -1).clone())
            single.forward()
            sim.forward()
            there, own = sim.data.qacc[world], single.data.qacc[0]
            torch.testing.assert_close(there, own, rtol=1e-3, atol=1e-2, msg=f"{variant} {step}")
            single.step(3)


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_each_world_moves_as_its_variant_would_alone_on_both_engines(engine: str):
    _, sim = scene_of(5, engine, object=of_variants(MIXED, {"ball": 2.0, "cones": 2.0}))
    assert sim.world_to_variant["object"].tolist() == [0, 0, 1, 1, 2]
    paths = trajectory(sim)
    assert np.array_equal(paths[:, 0], paths[:, 1])
    assert np.abs(paths[:, 0] - paths[:, 2]).max() > 0.01
    for world, name in enumerate(("ball", "ball", "cones", "cones", "brick")):
        _, single = alone(MIXED[name], engine)
        np.testing.assert_allclose(paths[:, world], trajectory(single)[:, 0], atol=2e-4)


@pytest.mark.parametrize("order", [("ball", "brick"), ("brick", "ball")])
def test_a_symmetric_variant_does_not_make_the_others_symmetric(order: tuple[str, ...]):
    # MuJoCo decides when it compiles whether a body's inertia matrix is stored as a diagonal.
    def lone(shape: str, shift: float) -> Any:
        spec = mujoco.MjSpec.from_string(
            """<mujoco><worldbody><body name="thing"><freejoint/></body></worldbody></mujoco>"""
        )
        add_mesh(spec, "mesh", shape, 0.1)
        spec.body("thing").add_geom(type=MESH, meshname="mesh", pos=(shift, 0, 0))
        return lambda: spec

    variants = {name: lone(name, 0.2 if name == "brick" else 0.0) for name in order}
    _, sim = scene_of(2, object=of_variants(variants))
    paths = trajectory(sim)
    for world, name in enumerate(order):
        _, single = alone(variants[name])
        is_simple = bool(single.mj_model.body("object/thing").simple[0])
        assert is_simple == (name == "ball")
        np.testing.assert_allclose(paths[:, world], trajectory(single)[:, 0], atol=1e-5)


def test_all_meshes_that_collide_have_a_convex_hull_whichever_variant_they_are_of():
    _, sim = scene_of(3, object=of_variants(MIXED))
    model = sim.mj_model
    for name, spec_fn in MIXED.items():
        own = spec_fn().compile()
        for mesh in range(own.nmesh):
            there = model.mesh(f"object/{name}/{own.mesh(mesh).name}").id
            assert model.mesh_polynum[there] == own.mesh_polynum[mesh]
            assert (model.mesh_graphadr[there] >= 0) == (own.mesh_graphadr[mesh] >= 0)


def test_two_entities_with_variants_combine():
    other = of_variants({"a": thing(CONE), "b": thing(BRICK)}, lambda n: [0, 1, 0, 1])
    other.init_state = EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 1.5))
    _, sim = scene_of(4, one=of_variants(MIXED, lambda n: [0, 0, 1, 1]), two=other)
    paths = trajectory(sim, 200)
    assert set(sim.world_to_variant) == {"one", "two"}
    for world, (one, two) in enumerate(
        [("ball", "a"), ("ball", "b"), ("cones", "a"), ("cones", "b")]
    ):
        cfgs = [EntityCfg(spec_fn=MIXED[one], init_state=START)]
        cfgs.append(EntityCfg(spec_fn=other.variants[two], init_state=other.init_state))
        _, single = scene_of(1, one=cfgs[0], two=cfgs[1])
        np.testing.assert_allclose(paths[:, world], trajectory(single, 200)[:, 0], atol=1e-3)


def test_a_fixed_base_can_have_variants():
    variants = {"a": thing(CONE, free=False), "b": thing(BRICK, free=False, knob=0.05)}
    scene, sim = scene_of(2, object=of_variants(variants))
    assert scene["object"].is_mocap
    paths = trajectory(sim)
    for world, spec_fn in enumerate(variants.values()):
        _, single = alone(spec_fn)
        np.testing.assert_allclose(paths[:, world], trajectory(single)[:, 0], atol=1e-5)


def test_actuators_and_changes_of_the_config_apply_to_all_variants():
    servo = BuiltinPositionActuatorCfg(
        target_names_expr=("hinge",), stiffness=2.0, damping=0.1, armature=0.02, effort_limit=3.0
    )
    fields: dict[str, Any] = {
        "articulation": EntityArticulationInfoCfg(actuators=(servo,)),
        "materials": (MaterialCfg("red", rgba=(1, 0, 0, 1), geom_names_expr=("knob",)),),
        "collisions": (CollisionCfg(("knob",), 1, 1, 3, 0, friction=(0.3,)),),
    }
    scene, sim = scene_of(3, object=of_variants(MIXED, **fields))
    knob = sim.mj_model.geom("object/knob").id
    assert torch.allclose(sim.model.geom_friction[:, knob, 0], torch.tensor(0.3))
    assert torch.allclose(sim.model.dof_armature[:, -1], torch.tensor(0.02))
    sim.data.ctrl[:] = 0.5
    paths = trajectory(sim)
    for world, spec_fn in enumerate(MIXED.values()):
        _, single = alone(spec_fn, **fields)
        single.data.ctrl[:] = 0.5
        np.testing.assert_allclose(paths[:, world], trajectory(single)[:, 0], atol=2e-4)


def test_numbers_of_joints_sites_and_actuators_may_differ():
    def with_motor(gear: float, stop: float, pos: float) -> Any:
        def build() -> mujoco.MjSpec:
            spec = thing(BALL)()
            spec.joint("hinge").range[1] = stop
            spec.joint("hinge").ref = pos
            spec.site("tip").pos[2] = pos
            spec.add_actuator(name="motor", target="hinge", trntype=mujoco.mjtTrn.mjTRN_JOINT)
            spec.actuators[0].gear[0] = gear
            return spec

        return build

    articulation = EntityArticulationInfoCfg(
        actuators=(XmlActuatorCfg(target_names_expr=("hinge",)),)
    )
    variants = {"a": with_motor(0.1, 0.8, 0.0), "b": with_motor(0.3, 0.4, 0.2)}
    scene, sim = scene_of(2, object=of_variants(variants, articulation=articulation))
    assert sim.model.actuator_gear[:, 0, 0].tolist() == pytest.approx([0.1, 0.3])
    assert sim.model.jnt_range[:, 1, 1].tolist() == pytest.approx([0.8, 0.4])
    sim.data.ctrl[:] = 1.0
    paths = trajectory(sim)
    for world, spec_fn in enumerate(variants.values()):
        _, single = alone(spec_fn, articulation=articulation)
        single.data.ctrl[:] = 1.0
        np.testing.assert_allclose(paths[:, world], trajectory(single)[:, 0], atol=1e-5)


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_constants_that_follow_are_those_of_each_variant(engine: str):
    _, sim = scene_of(3, engine, object=of_variants(MIXED))
    for world, spec_fn in enumerate(MIXED.values()):
        _, single = alone(spec_fn, engine)
        for field in (
            *("body_mass", "body_subtreemass", "body_inertia", "body_ipos", "body_invweight0"),
            *("dof_invweight0", "body_iquat"),
        ):
            there, own = getattr(sim.model, field)[world], getattr(single.model, field)[0]
            torch.testing.assert_close(there, own, rtol=1e-4, atol=1e-6, msg=field)


def test_worlds_without_a_slots_geom_do_not_see_or_touch_it():
    big = thing((*BALL, ("brick", 1.0, True)))
    scene, sim = scene_of(2, object=of_variants({"small": thing(BALL), "big": big}), terrain=False)
    empty = int(torch.nonzero(sim.model.geom_dataid[0] != sim.model.geom_dataid[1])[-1])
    assert sim.model.geom_dataid[0, empty] == -1
    assert sim.model.geom_rgba[0, empty, 3] == 0 and sim.model.geom_rgba[1, empty, 3] == 1
    posed = PosedModel(sim.mj_model)
    snapshot = SnapshotReader(sim, (0, 1)).read().wait()
    hits = []
    for row in range(2):
        data = posed.pose(snapshot, row)
        start, geom = data.body("object/thing").xpos + [0, 0, 3.0], np.full(1, -1, np.int32)
        distance = mujoco.mj_ray(
            posed.model, data, start, np.array([0, 0, -1.0]), None, 1, -1, geom, None
        )
        hits.append((distance, int(geom[0])))
    assert hits[0][0] > 2.8 and hits[0][1] != empty
    assert hits[1][0] < 2.8 and hits[1][1] == empty


def drawn_meshes(model: mujoco.MjModel, data: mujoco.MjData) -> set[tuple[Any, ...]]:
    """Name and place of each mesh."""
    geoms = np.flatnonzero(model.geom_dataid >= 0)
    names = [model.mesh(int(model.geom_dataid[geom])).name.split("/")[-1] for geom in geoms]
    places = data.geom_xpos[geoms].round(4)
    return {(name, *place) for name, place in zip(names, places, strict=True)}


def test_a_snapshot_has_the_meshes_of_its_world():
    _, sim = scene_of(3, object=of_variants(MIXED))
    snapshot = SnapshotReader(sim, (0, 1, 2)).read().wait()
    posed = PosedModel(sim.mj_model)
    for row, spec_fn in enumerate(MIXED.values()):
        shown = drawn_meshes(posed.model, posed.pose(snapshot, row))
        _, single = alone(spec_fn)
        data = mujoco.MjData(single.mj_model)
        data.qpos[:] = single.data.qpos[0]
        mujoco.mj_kinematics(single.mj_model, data)
        assert shown == drawn_meshes(single.mj_model, data)


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_materials_and_textures_go_with_the_variant(engine: str):
    red, blue = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0)
    variants = {
        "red": thing(BALL, color=red),
        "none": thing(CONE),
        "blue": thing(BRICK, color=blue),
    }
    _, sim = scene_of(3, engine, object=of_variants(variants))
    slot = int(torch.nonzero(sim.model.geom_dataid[0] != sim.model.geom_dataid[1])[0])
    names = [
        sim.mj_model.mat(int(m)).name if m >= 0 else None for m in sim.model.geom_matid[:, slot]
    ]
    assert names == ["object/red/paint", None, "object/blue/paint"]


def test_names_of_geoms_are_those_that_the_variants_agree_on():
    def named(*names: str) -> Any:
        def build() -> mujoco.MjSpec:
            spec = thing([("ball", (0.1, 0.11, 0.12)[i], True) for i in range(len(names))])()
            meshes = [g for g in spec.body("thing").geoms]
            for geom, name in zip(meshes, names, strict=True):
                geom.name = name
            return spec

        return build

    variants = {"a": named("hull", "fin"), "b": named("fin", "nose", "hull")}
    entity = of_variants(variants).build()
    metadata = entity.variant_metadata
    assert set(entity.geom_names) == {"hull", "fin", "nose", "knob"}
    by_name = {
        slot.template_geom_name: [geom and geom.mesh_name for geom in column]
        for slot, column in zip(
            metadata.slots, zip(*metadata.variant_slot_specs, strict=True), strict=True
        )
    }
    assert by_name["hull"] == ["thing_0_ball_0.1", "thing_2_ball_0.12"]
    assert by_name["nose"] == [None, "thing_1_ball_0.11"]


def test_geoms_that_collide_differently_get_slots_of_their_own():
    def slippery() -> mujoco.MjSpec:
        spec = thing(BALL)()
        spec.body("thing").geoms[0].condim = 1
        return spec

    _, sim = scene_of(2, object=of_variants({"a": thing(BALL), "b": slippery}))
    mesh_geoms = np.flatnonzero(sim.mj_model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    assert sorted(sim.mj_model.geom_condim[mesh_geoms]) == [1, 3]
    paths = trajectory(sim)
    for world, spec_fn in enumerate((thing(BALL), slippery)):
        _, single = alone(spec_fn)
        np.testing.assert_allclose(paths[:, world], trajectory(single)[:, 0], atol=2e-4)


def test_shares_are_rounded_by_the_largest_remainder():
    assert allocate_worlds((0.6, 0.4), 10) == [0] * 6 + [1] * 4
    assert allocate_worlds((1, 0, 1), 5) == [0, 0, 0, 2, 2]
    for n in (1, 7, 100):
        counts = np.bincount(allocate_worlds((1, 1, 1), n), minlength=3)
        assert counts.sum() == n and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("weights", [(1, -1), (0, 0), (float("nan"), 1), (float("inf"), 1)])
def test_shares_that_make_no_sense_are_errors(weights: tuple[float, ...]):
    with pytest.raises(ValueError, match="must (be non-negative|have a positive sum), got"):
        allocate_worlds(weights, 4)


def changed(change: Any, **fields: Any) -> Any:
    def build() -> mujoco.MjSpec:
        spec = thing(BALL, **fields)()
        spec.body("thing").geoms[0].name = "mesh"
        change(spec)
        return spec

    return build


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (thing(BALL, free=False), "body '/thing' has 0 joints, but 1 in 'a'.* Hint: variants may"),
        (
            changed(lambda s: setattr(s.joint("hinge"), "name", "x")),
            "'x' of type hinge, but 'hinge'",
        ),
        (changed(lambda s: setattr(s.joint("hinge"), "type", 2)), "'hinge' of type slide, but"),
        (changed(lambda s: s.body("lid").add_body(name="x")), "'/thing/lid' has 1 child bodies"),
        (changed(lambda s: setattr(s.body("lid"), "name", "x")), "body path '/thing/x' is '/thing"),
        (changed(lambda s: s.worldbody.add_body(name="x")), "exactly one root body, .* has 2"),
        (changed(lambda s: s.body("lid").add_geom(size=(0.1, 0, 0))), "2 non-mesh geoms, but 1"),
        (changed(lambda s: setattr(s.geom("knob"), "type", 6)), "'knob', a box that collides, but"),
        (
            changed(lambda s: s.add_pair(geomname1="knob", geomname2="mesh", name="p")),
            "the contact pair 'p' names the mesh geom 'mesh'",
        ),
        (changed(lambda s: s.add_tendon(name="t")), "tendon count 1 differs from 0 in 'a'"),
        (
            changed(lambda s: setattr(s.geom("knob"), "condim", 1)),
            "geom_condim of geom 'obj",
        ),
        (
            changed(lambda s: setattr(s.site("tip"), "size", (1, 1, 1))),
            "site_size of site 'ob",
        ),
    ],
)
def test_variants_that_differ_in_what_they_share_are_one_clear_error(other: Any, message: str):
    with pytest.raises(ValueError, match=message):
        scene_of(2, object=of_variants({"a": thing(BALL), "b": other}))


def test_configs_that_contradict_themselves_are_errors():
    with pytest.raises(ValueError, match="needs at least one"):
        VariantEntityCfg().build()
    with pytest.raises(ValueError, match="spec_fn cannot be set"):
        VariantEntityCfg(variants={"a": thing()}, spec_fn=thing())
    with pytest.raises(ValueError, match="names 'bal'.* Did you mean 'ball'"):
        of_variants(MIXED, {"bal": 1.0})
    with pytest.raises(ValueError, match="empty or contains '/'"):
        of_variants({"a/b": thing()}).build()
    with pytest.raises(ValueError, match="'object'.* returned 1 indices but nworld=2"):
        scene_of(2, object=of_variants(MIXED, lambda n: [0]))
    with pytest.raises(ValueError, match="variant index 3 for world 1, but there are 3"):
        scene_of(2, object=of_variants(MIXED, lambda n: [0, 3]))


def test_a_scene_without_variants_has_nothing_per_world():
    scene, sim = alone(thing())
    assert scene["object"].variant_metadata is None
    assert not sim.world_to_variant and not sim.expanded_fields
