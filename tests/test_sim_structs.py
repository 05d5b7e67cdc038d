"""Options, statistics, contacts and the engine's own structs, as far as each engine has them."""

from __future__ import annotations

import warnings
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from sim_models import RICH, load

from mjlab_rec.sim import MujocoCfg, RecomputeLevel, Simulation, SimulationCfg

OPTIONS = MujocoCfg(
    timestep=0.004,
    integrator="euler",
    solver="cg",
    iterations=7,
    gravity=(0.0, 1.0, -5.0),
    enableflags=("energy",),
)


def make(engine: str, **cfg: Any) -> Simulation:
    return Simulation(3, SimulationCfg(engine=engine, mujoco=OPTIONS, **cfg), load(RICH))  # type: ignore


@pytest.fixture(scope="module", params=["mjbatch", "warp"])
def sim(request: pytest.FixtureRequest) -> Simulation:
    return make(request.param)


@pytest.fixture(scope="module")
def warp_sim() -> Simulation:
    sim = make("warp")
    sim.step(40)  # The box lies on the floor.
    sim.forward()
    return sim


def test_options_have_a_row_per_world_or_are_plain(sim: Simulation) -> None:
    opt = sim.model.opt
    torch.testing.assert_close(opt.timestep, torch.full((3,), 0.004))
    torch.testing.assert_close(opt.gravity, torch.tensor([[0.0, 1.0, -5.0]]).expand(3, 3))
    assert opt.integrator == mujoco.mjtIntegrator.mjINT_EULER
    assert opt.solver == mujoco.mjtSolver.mjSOL_CG
    assert opt.iterations == 7 and opt.enableflags & mujoco.mjtEnableBit.mjENBL_ENERGY
    with pytest.raises(AttributeError, match="Cannot set"):
        opt.iterations = 3
    with pytest.raises(AttributeError):
        _ = opt.timestap


def test_statistics_have_a_row_per_world(sim: Simulation) -> None:
    expected = np.full(3, sim.mj_model.stat.meaninertia, np.float32)
    torch.testing.assert_close(sim.model.stat.meaninertia, torch.from_numpy(expected))


def test_data_of_mujoco_itself(sim: Simulation) -> None:
    data = sim.mj_data
    assert isinstance(data, mujoco.MjData) and sim.mj_data is data
    torch.testing.assert_close(
        torch.from_numpy(data.qpos).float(), torch.from_numpy(sim.mj_model.qpos0).float()
    )
    assert data.xpos[1:].any()  # It is up to date.


def test_defaults_asked_for_are_listed(sim: Simulation) -> None:
    value = sim.get_default_field("body_mass")
    assert sim.default_model_fields["body_mass"] is value


@pytest.mark.parametrize("name", ["contact", "nacon", "efc", "njmax", "efc_force", "ncon"])
def test_mjbatch_says_who_has_contacts_and_constraints(name: str) -> None:
    sim = make("mjbatch")
    with pytest.raises(AttributeError, match=f"sim.data.{name} .*ContactSensor.*engine='warp'"):
        getattr(sim.data, name)
    with pytest.raises(AttributeError, match="Unknown data field 'qpso'.*Did you mean 'qpos'"):
        _ = sim.data.qpso
    for struct in ("wp_model", "wp_data"):
        with pytest.raises(AttributeError, match=f"sim.{struct} exists on the engine 'warp' only"):
            getattr(sim, struct)
    sim.create_graph()


def test_contacts_and_constraints_on_warp(warp_sim: Simulation) -> None:
    data = warp_sim.data
    count = int(data.nacon[0])
    assert count >= 12 and data.nacon.shape == (1,)
    contact = data.contact
    assert contact is data.contact
    worlds = contact.worldid[:count]
    assert sorted(worlds.unique().tolist()) == [0, 1, 2]
    floor = mujoco.mj_name2id(warp_sim.mj_model, mujoco.mjtObj.mjOBJ_GEOM, "floor")
    assert (contact.geom[:count] == floor).any(dim=1).any()
    assert contact.pos.shape[1:] == (3,) and contact.frame.shape[1:] == (3, 3)
    assert data.nefc.shape == (3,) and (data.nefc > 0).all()
    assert data.efc.force.shape[0] == 3 and data.efc.force.isfinite().all()
    assert isinstance(data.njmax, int)
    before = contact.dist.data_ptr()
    warp_sim.step()
    assert contact.dist.data_ptr() == before
    with pytest.raises(AttributeError, match="contact|dist"):
        contact.dist = torch.zeros(3)


def test_structs_of_warp_are_the_engines_own(warp_sim: Simulation) -> None:
    import mujoco_warp as mjw

    assert isinstance(warp_sim.wp_model, mjw.Model) and isinstance(warp_sim.wp_data, mjw.Data)
    warp_sim.data.qpos[0, 0] = 1.5
    assert warp_sim.wp_data.qpos.numpy()[0, 0] == 1.5


def test_settings_of_warp_reach_its_options() -> None:
    import mujoco_warp as mjw

    sim = make("warp", contact_sensor_maxmatch=12, broadphase="sap_tile")
    assert sim.wp_model.opt.contact_sensor_maxmatch == 12
    assert sim.wp_model.opt.broadphase == mjw.BroadphaseType.SAP_TILE


def test_statistics_follow_when_constants_are_recomputed() -> None:
    sim = make("warp")
    before = sim.model.stat.meaninertia.clone()
    sim.expand_model_fields(["body_mass", "body_inertia"])
    sim.model.body_mass[1] *= 4.0
    sim.model.body_inertia[1] *= 4.0
    sim.recompute_constants(RecomputeLevel.set_const)
    now = sim.model.stat.meaninertia
    assert now[1] > before[1] * 1.1
    torch.testing.assert_close(now[[0, 2]], before[[0, 2]])


def test_replaced_arrays_are_used_after_create_graph() -> None:
    import warp as wp

    sim, other = make("warp"), make("warp")
    for each in (sim, other):
        each.step()
        _ = each.model.opt.gravity
    gravity = wp.array([[0.0, 0.0, 20.0]], dtype=wp.vec3)
    gravity._is_batched = True  # type: ignore[attr-defined]
    sim.wp_model.opt.gravity = gravity
    sim.create_graph()
    sim.step(5)
    other.step(5)
    assert (sim.data.qvel[:, 2] > 0).all() and (other.data.qvel[:, 2] < 0).all()
    torch.testing.assert_close(sim.model.opt.gravity[1], torch.tensor([0.0, 0.0, 20.0]))


def test_the_old_line_search_option_warns() -> None:
    with pytest.warns(DeprecationWarning, match="ls_parallel has no effect"):
        SimulationCfg(ls_parallel=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SimulationCfg()


def test_arrays_of_any_struct_become_tensors() -> None:
    import warp as wp

    from mjlab_rec.sim.sim_data import TorchArray, WarpBridge

    class Struct:
        def __init__(self) -> None:
            self.row = wp.array([[1.0, 2.0]], dtype=float, device="cpu")
            self.empty = wp.empty((0, 3), dtype=wp.vec3, device="cpu")
            self.number = 5

    struct = Struct()
    bridge = WarpBridge(struct, nworld=4)
    assert isinstance(bridge.row, TorchArray) and bridge.row is bridge.row
    assert bridge.row.shape == (1, 2) and bridge.empty.shape == (0, 3, 3) and bridge.number == 5
    bridge.row[:] = 7.0
    assert struct.row.numpy().tolist() == [[7.0, 7.0]]
    struct.row = wp.array([[3.0, 4.0]], dtype=float, device="cpu")
    struct.row._is_batched = True  # type: ignore[attr-defined]
    assert bridge.row.shape == (4, 2) and bridge.row[3].tolist() == [3.0, 4.0]
    with pytest.raises(AttributeError, match="Cannot set attribute 'row'.*in-place"):
        bridge.row = torch.zeros(1, 2)
    assert bridge.struct is struct and not isinstance(struct.row, TorchArray)
