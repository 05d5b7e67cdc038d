"""What every engine must do, held against each of them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from sim_models import CARTPOLE, RICH, load

from mjlab_rec.sim import MujocoCfg, RecomputeLevel, Simulation, SimulationCfg

ENGINES = ["mjbatch", "warp"]
# Derived fields, so that a test can look at everything a user might.
DERIVED = ("xpos", "xquat", "site_xmat", "cvel", "sensordata", "qacc", "actuator_force")
INPUTS = ("qpos", "qvel", "act", "ctrl", "time", "qfrc_applied", "xfrc_applied", "mocap_pos")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def make(engine: str, num_envs: int = 3, xml: str = RICH, **cfg) -> Simulation:
    mujoco_cfg = cfg.pop("mujoco", MujocoCfg(timestep=0.005))
    return Simulation(
        num_envs, SimulationCfg(engine=engine, num_threads=1, mujoco=mujoco_cfg, **cfg), load(xml)
    )


def stir(sim: Simulation, steps: int = 40, seed: int = 0) -> None:
    """Put every world into a different, lively state with the box in contact."""
    generator = torch.Generator().manual_seed(seed)
    data = sim.data
    data.qvel[:] = 0.5 * torch.randn(data.qvel.shape, generator=generator)
    for _ in range(steps):
        data.ctrl[:] = torch.rand(data.ctrl.shape, generator=generator) - 0.5
        sim.step()


def look(sim: Simulation, fields: tuple[str, ...] = INPUTS + DERIVED) -> dict[str, torch.Tensor]:
    return {name: getattr(sim.data, name).clone() for name in fields}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rows=slice(None)) -> None:
    for name in a:
        assert torch.equal(a[name][rows], b[name][rows]), name


def test_fields_keep_name_address_and_type(engine):
    sim = make(engine)
    fields = {name: getattr(sim.data, name) for name in INPUTS + DERIVED}
    addresses = {name: field.data_ptr() for name, field in fields.items()}
    stir(sim, steps=2)
    sim.forward()
    sim.reset([1])
    sim.set_state(sim.get_state())
    for name, field in fields.items():
        assert getattr(sim.data, name) is field
        assert field.data_ptr() == addresses[name]
        assert field.dtype == torch.float32
        assert field.shape[0] == 3
    assert sim.data.qpos.shape == (3, 9)
    assert sim.data.time.shape == (3,)
    assert sim.data.xpos.shape == (3, 5, 3)
    assert sim.data.site_xmat.shape == (3, 2, 3, 3)
    assert sim.data.xfrc_applied.shape == (3, 5, 6)
    assert sim.data.mocap_pos.shape == (3, 1, 3)
    assert sim.data.eq_active.dtype == torch.bool
    assert sim.data.nworld == 3


def test_starts_in_the_initial_state(engine):
    sim = make(engine)
    model, data = sim.mj_model, mujoco.MjData(sim.mj_model)
    mujoco.mj_forward(model, data)
    torch.testing.assert_close(sim.data.qpos[2], torch.tensor(data.qpos, dtype=torch.float32))
    torch.testing.assert_close(sim.data.xpos[2], torch.tensor(data.xpos, dtype=torch.float32))
    assert (sim.data.qvel == 0).all() and (sim.data.time == 0).all()
    assert (sim.data.ctrl == 0).all() and sim.data.eq_active.all()
    torch.testing.assert_close(sim.data.mocap_pos[1, 0], torch.tensor([0.0, 0.0, 2.0]))


def test_the_callers_model_stays_as_it_is(engine):
    model = load(CARTPOLE)
    Simulation(2, SimulationCfg(engine=engine, mujoco=MujocoCfg(timestep=0.01)), model)
    assert model.opt.timestep == 0.002


def test_step_advances_and_forward_does_not(engine):
    sim = make(engine)
    stir(sim)
    sim.forward()
    before = look(sim)
    sim.forward()
    assert_same(before, look(sim))
    sim.step()
    after = look(sim)
    assert all((before[name] != after[name]).any() for name in ("qpos", "qvel", "time", "act"))


def test_five_steps_are_one_step_five_times(engine):
    one, five = make(engine), make(engine)
    look(one), look(five)
    for sim in (one, five):
        stir(sim)
    for _ in range(5):
        one.step()
    five.step(5)
    assert_same(look(one), look(five))
    assert torch.equal(one.get_state(), five.get_state())


def test_an_extra_forward_changes_no_later_bit(engine):
    plain, extra = make(engine), make(engine)
    for sim in (plain, extra):
        look(sim)
        stir(sim)
    for _ in range(10):
        plain.step()
        extra.step()
        extra.forward()
        extra.forward(torch.tensor([True, False, True]))
    plain.forward()
    assert_same(look(plain), look(extra))
    assert torch.equal(plain.get_state(), extra.get_state())


def test_a_masked_forward_does_not_change_other_worlds(engine):
    sim = make(engine)
    look(sim)
    stir(sim)
    before = look(sim)
    sim.forward([1])
    after = look(sim)
    assert_same(before, after, [0, 2])
    assert (before["xpos"][1] != after["xpos"][1]).any()


def test_a_masked_reset_does_not_change_other_worlds(engine):
    reset, plain = make(engine), make(engine)
    for sim in (reset, plain):
        look(sim)
        stir(sim)
    before = look(reset)
    reset.reset(torch.tensor([1]))
    assert_same(before, look(reset), [0, 2])
    for sim in (reset, plain):
        sim.step(20)
        sim.forward()
    assert_same(look(plain), look(reset), [0, 2])


def test_reset_restores_the_initial_state(engine):
    sim = make(engine)
    fresh = sim.get_state()
    initial = look(sim)
    stir(sim)
    sim.data.mocap_pos[:] = 7.0
    sim.data.eq_active[:] = False
    sim.data.xfrc_applied[:] = 1.0
    sim.step()
    sim.reset(torch.tensor([False, True, True]))
    sim.forward()
    assert torch.equal(sim.get_state()[1:], fresh[1:])
    assert_same(initial, look(sim), [1, 2])
    assert (sim.data.qpos[0] != initial["qpos"][0]).any()
    sim.reset()
    assert torch.equal(sim.get_state(), fresh)


def test_reset_forgets_what_was_written_just_before(engine):
    sim = make(engine)
    fresh = sim.get_state()
    stir(sim)
    sim.data.qvel[:] = 3.0
    sim.data.xfrc_applied[1, 2, 0] = 50.0
    sim.data.mocap_pos[1] = -1.0
    sim.data.eq_active[1] = False
    sim.reset([1])
    assert torch.equal(sim.get_state()[1], fresh[1])
    assert (sim.data.xfrc_applied[1] == 0).all()
    assert (sim.data.qvel[0] == 3.0).all()
    assert (sim.data.qvel[1] == 0.0).all()


def test_what_is_written_after_a_reset_counts(engine):
    sim = make(engine)
    stir(sim)
    sim.reset([0])
    sim.data.qpos[0, 0] = 0.4
    sim.forward()
    assert sim.data.xpos[0, 2, 0] == pytest.approx(0.4)


def test_binding_a_field_late_is_as_good_as_early(engine):
    early, late = make(engine), make(engine)
    look(early)
    for sim in (early, late):
        stir(sim, steps=5)
    # In the middle of a control step: derived fields are as of the last step's beginning.
    assert_same(look(early), look(late))
    assert torch.equal(early.get_state(), late.get_state())
    for sim in (early, late):
        sim.step(3)
        sim.forward()
    assert_same(look(early), look(late))


def test_binding_a_field_late_changes_no_other(engine):
    sim, twin = make(engine), make(engine)
    few = ("qpos", "qvel", "xpos", "qacc")
    for each in (sim, twin):
        look(each, few)
        stir(each, steps=100)
    sim.data.qpos[1, 7] += 0.1  # not simulated yet
    twin.data.qpos[1, 7] += 0.1
    before = look(sim, few)
    late = sim.data.sensordata, sim.data.xquat, sim.data.ten_length
    assert all(field.isfinite().all() for field in late)
    assert_same(before, look(sim, few))
    for each in (sim, twin):
        each.step(5)
    assert_same(look(sim), look(twin))


def test_what_is_looked_at_does_not_change_the_rollout(engine):
    blind, curious = make(engine), make(engine)
    look(curious)
    for sim in (blind, curious):
        for _ in range(5):
            stir(sim, steps=3)
            sim.forward()
            sim.reset([1])
            sim.data.qpos[1, 2] = 0.2
            sim.forward()
    assert torch.equal(blind.get_state(), curious.get_state())


@pytest.mark.parametrize("field", ["body_mass", "geom_friction", "dof_damping", "actuator_gainprm"])
def test_a_model_field_changes_only_its_world(engine, field):
    sim, plain = make(engine), make(engine)
    for each in (sim, plain):
        each.expand_model_fields([field])
    values = getattr(sim.model, field)
    assert values.shape == (3, *getattr(sim.mj_model, field).shape)
    torch.testing.assert_close(values, getattr(plain.model, field))
    values[1] *= 1.5
    for each in (sim, plain):
        stir(each)
        each.data.qvel[:, 0] += 1.0  # slide, so that friction acts
        each.step(20)
        each.forward()
    assert_same(look(plain), look(sim), [0, 2])
    assert (plain.data.qpos[1] != sim.data.qpos[1]).any()
    assert sim.expanded_fields == {field}


def test_expanding_a_field_changes_no_more_than_its_rounding(engine):
    sim, plain = make(engine), make(engine)
    for each in (sim, plain):
        look(each)
        stir(each, steps=5)
    address = sim.data.qpos.data_ptr()
    sim.expand_model_fields(["body_mass", "geom_friction", "qpos0", "geom_aabb", "cam_pos"])
    sim.expand_model_fields(["body_mass"])
    assert sim.data.qpos.data_ptr() == address
    for each in (sim, plain):
        each.step(20)
    if engine == "warp":
        assert_same(look(plain), look(sim))
    for name in ("qpos", "xpos", "sensordata"):  # mjbatch computes with the float32 values now
        torch.testing.assert_close(look(plain)[name], look(sim)[name], rtol=1e-4, atol=1e-4)


def test_expanded_initial_positions_are_what_reset_goes_to(engine):
    sim = make(engine)
    sim.expand_model_fields(["qpos0"])
    sim.model.qpos0[1, 2] = 0.7
    stir(sim, steps=3)
    sim.reset()
    assert sim.data.qpos[:, 2] == pytest.approx([0.13, 0.7, 0.13])


def test_one_world_can_have_its_model_changed(engine):
    sim = make(engine, num_envs=1, xml=CARTPOLE)
    sim.expand_model_fields(["body_mass"])
    sim.model.body_mass[0, 1] = 100.0
    sim.data.ctrl[:] = 1.0
    sim.step(10)
    plain = make(engine, num_envs=1, xml=CARTPOLE)
    plain.data.ctrl[:] = 1.0
    plain.step(10)
    assert sim.data.qvel[0, 0] < 0.1 * plain.data.qvel[0, 0]


def test_shared_model_fields(engine):
    sim = make(engine)
    assert sim.model.nbody == 5
    assert sim.model.geom_bodyid.shape == (5,) and not sim.model.geom_bodyid.is_floating_point()
    assert sim.model.jnt_type.tolist() == sim.mj_model.jnt_type.tolist()
    assert sim.model.geom_size.shape == (3, 5, 3)
    assert sim.model.geom_aabb.shape == (3, 5, 2, 3)
    default = sim.get_default_field("geom_aabb")
    assert torch.equal(default.expand(3, 5, 2, 3), sim.model.geom_aabb)
    with pytest.raises(RuntimeError):
        sim.model.geom_size[:] = 0.0  # shared memory: expand first


def test_constants_are_recomputed_as_mujoco_does(engine):
    sim = make(engine)
    sim.expand_model_fields(["body_mass", "body_inertia", "dof_armature"])
    names = ["body_subtreemass", "dof_invweight0", "body_invweight0", "tendon_invweight0"]
    names += ["actuator_acc0", "tendon_length0"]
    before = {name: getattr(sim.model, name).clone() for name in names}
    sim.model.body_mass[1, 3] *= 4
    sim.model.body_inertia[1, 3] *= 4
    sim.model.dof_armature[1, 6] = 0.5
    sim.recompute_constants(RecomputeLevel.set_const)

    model = load(RICH)
    model.body_mass[3] *= 4
    model.body_inertia[3] *= 4
    model.dof_armature[6] = 0.5
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for name in names:
        values = getattr(sim.model, name)
        assert values.shape == before[name].shape
        torch.testing.assert_close(values[[0, 2]], before[name][[0, 2]], rtol=1e-4, atol=1e-5)
        expected = torch.tensor(getattr(model, name), dtype=torch.float32)
        torch.testing.assert_close(values[1], expected, rtol=1e-4, atol=1e-5, msg=name)
    assert (sim.model.dof_invweight0[1] != before["dof_invweight0"][1]).any()


@pytest.mark.parametrize("level", list(RecomputeLevel))
def test_recomputing_constants_does_not_change_the_state(engine, level):
    sim = make(engine)
    look(sim)
    stir(sim, steps=5)
    state, seen = sim.get_state(), look(sim)
    sim.recompute_constants(level)
    assert torch.equal(sim.get_state(), state)
    assert_same(seen, look(sim))


def test_constants_at_the_lower_levels(engine):
    sim = make(engine)
    sim.expand_model_fields(["body_mass", "dof_armature"])
    sim.model.body_mass[2, 3] = 9.0
    sim.recompute_constants(RecomputeLevel.set_const_fixed)
    assert sim.model.body_subtreemass[2, 3] == pytest.approx(9.2)
    inverse = sim.model.dof_invweight0[0].clone()
    sim.model.dof_armature[0, 6] = 5.0
    sim.recompute_constants(RecomputeLevel.set_const_0)
    assert sim.model.dof_invweight0[0, 6] < 0.5 * inverse[6]


def test_a_state_replays_bit_for_bit_in_another_world_of_another_batch(engine):
    sim = make(engine)
    stir(sim)
    sim.data.qfrc_applied[:, 0] = 0.3
    sim.data.xfrc_applied[:, 2, 1] = 0.2
    sim.data.mocap_pos[:, 0, 0] = 0.5
    sim.data.eq_active[0] = False
    sim.step(2)
    assert sim.data.qpos[0, 2] < 0.2  # the box lies on the plane
    saved = sim.get_state()
    other = make(engine, num_envs=4)
    stir(other, seed=1)
    other.set_state(saved[[2, 0]], [0, 3])
    assert torch.equal(other.get_state()[[0, 3]], saved[[2, 0]])
    sim.forward()
    assert_same(
        {name: field[[2, 0]] for name, field in look(sim).items()},
        {name: field[[0, 3]] for name, field in look(other).items()},
    )
    for _ in range(25):
        sim.data.ctrl[:] = 0.1
        other.data.ctrl[:] = 0.1
        sim.step(2)
        other.step(2)
    assert torch.equal(sim.get_state()[[2, 0]], other.get_state()[[0, 3]])


def test_the_state_includes_writes_not_yet_simulated(engine):
    sim, twin = make(engine), make(engine)
    for each in (sim, twin):
        stir(each)
        each.data.qpos[1, 7] = 0.25
        each.data.eq_active[2] = False
    state = sim.get_state()
    sim.step(5)
    other = make(engine)
    other.set_state(state)
    other.step(5)
    assert torch.equal(sim.get_state(), other.get_state())
    twin.step(5)
    assert torch.equal(sim.get_state(), twin.get_state())  # and looking changed nothing


def test_setting_a_state_drops_unseen_writes_of_that_world_only(engine):
    sim = make(engine)
    look(sim)
    stir(sim)
    saved, before = sim.get_state(), look(sim)
    sim.data.qvel[:] = 9.0
    sim.set_state(saved[:1], torch.tensor([True, False, False]))
    assert torch.equal(sim.get_state()[0], saved[0])
    assert torch.equal(sim.data.qvel[0], before["qvel"][0])
    assert (sim.data.qvel[1:] == 9.0).all()
    assert_same({"xpos": before["xpos"]}, {"xpos": sim.data.xpos}, [1, 2])


def test_the_state_has_mujocos_layout(engine):
    sim = make(engine)
    stir(sim)
    spec = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    assert sim.state_size == mujoco.mj_stateSize(sim.mj_model, spec)
    data = mujoco.MjData(sim.mj_model)
    row = sim.get_state()[1].double().numpy()
    mujoco.mj_setState(sim.mj_model, data, row, spec)
    np.testing.assert_allclose(data.qpos, sim.data.qpos[1].numpy(), rtol=1e-6)
    np.testing.assert_allclose(data.ctrl, sim.data.ctrl[1].numpy(), rtol=1e-6)
    np.testing.assert_allclose(data.mocap_pos, sim.data.mocap_pos[1].numpy(), rtol=1e-6)


def test_get_state_fills_the_given_tensor(engine):
    sim = make(engine)
    out = torch.full_like(sim.get_state(), torch.nan)
    assert sim.get_state(out) is out
    assert out.isfinite().all()
    with pytest.raises(ValueError, match=r"needs out of shape \(3, 76\)"):
        sim.get_state(out[:2])
    with pytest.raises(ValueError, match=r"rows of shape \(1, 76\)"):
        sim.set_state(out, [0])


def test_every_array_is_written_by_forward(engine):
    sim = make(engine)
    stir(sim)
    for name in DERIVED:
        # The world body is constant: warp writes its row only once.
        first = 1 if name in ("xpos", "xquat") else 0
        getattr(sim.data, name)[:, first:] = torch.nan
    sim.forward()
    assert all(getattr(sim.data, name).isfinite().all() for name in DERIVED)


def test_tensors_made_under_inference_mode_can_be_written_outside(engine):
    sim = make(engine)
    with torch.inference_mode():
        fields = sim.data.qpos, sim.data.ctrl
        sim.expand_model_fields(["body_mass"])
        fields += (sim.model.body_mass,)
        sim.step()
    for field in fields:
        field.mul_(1.0)


def test_a_world_that_diverges_shows_nan_until_reset_and_is_reported_once(engine, caplog):
    sim = make(engine)
    plain = make(engine)
    for each in (sim, plain):
        look(each)
        stir(each, steps=3)
    assert sim.health().tolist() == [0, 0, 0, 0, 0]
    assert sim.health().dtype == torch.int32
    sim.data.qvel[1, 6] = torch.nan
    for each in (sim, plain):
        each.step(2)
        each.forward()
    assert not sim.data.qpos[1].isfinite().all()
    assert_same(look(plain), look(sim), [0, 2])
    for _ in range(3):
        assert sim.health()[0] > 0
        sim.report_health(sim.health().tolist())
        assert sim.health().tolist() == [0, 0, 0, 0, 0]
        sim.step()
    warnings = [r.getMessage() for r in caplog.records if r.name == "mjlab_rec.sim.simulation"]
    assert len(warnings) == 1
    assert "NaN" in warnings[0] and "timestep" in warnings[0]
    sim.report_health(sim.health().tolist())
    sim.reset([1])
    sim.step()
    assert sim.data.qpos.isfinite().all()
    assert sim.health().tolist() == [0, 0, 0, 0, 0]


def test_precise_values_round_to_what_is_shown(engine):
    sim = make(engine)
    fields = ("qpos", "qvel", "xpos", "qacc")
    early = sim.precise("xpos")
    stir(sim)
    precise = {name: sim.precise(name) for name in fields}
    assert not torch.equal(early, precise["xpos"])  # A copy.
    assert_same({name: values.float() for name, values in precise.items()}, look(sim, fields))
    doubles = {name for name, values in precise.items() if values.dtype == torch.float64}
    assert doubles == (set(fields) if engine == "mjbatch" else set())
    assert engine == "warp" or bool((precise["xpos"] != precise["xpos"].float()).any())
    sim.data.qpos[1, 0] = 0.25
    assert sim.precise("qpos")[1, 0] == 0.25
    assert torch.equal(sim.precise("qpos")[0], precise["qpos"][0])
    assert sim.data.cvel.dtype == sim.precise("cvel").dtype  # It was read before.
    with pytest.raises(AttributeError, match="qpos"):
        sim.precise("qpoz")


def test_precise_values_asked_late_are_those_of_the_last_step(engine):
    early, late = make(engine), make(engine)
    early.precise("xpos")
    for sim in (early, late):
        stir(sim)
    torch.testing.assert_close(late.precise("xpos"), early.precise("xpos"), rtol=0, atol=0)


def test_unknown_fields_are_errors_with_a_suggestion(engine):
    sim = make(engine)
    with pytest.raises(AttributeError, match="Unknown data field 'qposs'.*Did you mean 'qpos'"):
        _ = sim.data.qposs
    with pytest.raises(AttributeError, match="Unknown model field 'geom_frictoin'"):
        _ = sim.model.geom_frictoin
    with pytest.raises(ValueError, match="Unknown model field 'bodymass'.*'body_mass'"):
        sim.expand_model_fields(["bodymass"])
    with pytest.raises(AttributeError, match=r"sim.data.qpos\[:\] = value"):
        sim.data.qpos = torch.zeros(3, 9)
    with pytest.raises(AttributeError, match=r"sim.model.body_mass\[:\] = value"):
        sim.model.body_mass = torch.zeros(3, 5)


def test_fields_that_would_stay_zero_are_errors(engine):
    sim = make(engine, xml=CARTPOLE)
    with pytest.raises(AttributeError, match="Add a sensor of one of these types: accelerometer"):
        _ = sim.data.cfrc_ext
    assert make(engine).data.cfrc_ext.shape == (3, 5, 6)  # this model has an accelerometer


def test_sleep_is_refused(engine):
    with pytest.raises(ValueError, match="'sleep'"):
        make(engine, mujoco=MujocoCfg(enableflags=("sleep",)))


@pytest.mark.parametrize(
    ("field", "seen"),
    [("geom_pos", "geom_xpos"), ("site_pos", "site_xpos"), ("body_ipos", "xipos")],
)
def test_offsets_that_were_zero_when_compiled_can_be_changed(engine, field, seen):
    """MuJoCo's compiler uses a shortcut for them, which would continue."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body name="ball"><freejoint/><geom size="0.1"/><site name="s"/>'
        "</body></worldbody></mujoco>"
    )
    sim = Simulation(num_envs=2, cfg=SimulationCfg(engine=engine), model=model)
    sim.expand_model_fields([field])
    getattr(sim.model, field)[1, -1] = torch.tensor([0.1, 0.2, 0.3])
    sim.forward()
    place = getattr(sim.data, seen)[:, -1]
    assert torch.allclose(place, torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]]), atol=1e-6)
