"""RK4 on mjbatch: the state is MuJoCo's, and sensors are of the last evaluation of the forces."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.sim import MujocoCfg, Simulation, SimulationCfg

# A box with a ball joint below it falls onto a floor.
XML = """
<mujoco>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body name="box" pos="0 0 0.3" euler="20 30 0">
      <freejoint/>
      <geom type="box" size="0.1 0.15 0.2"/>
      <body pos="0 0 0.3">
        <joint name="ball" type="ball"/>
        <geom type="capsule" fromto="0 0 0 0.2 0 0.1" size="0.05"/>
        <body pos="0.2 0 0.1">
          <joint name="hinge" axis="0 1 0" damping="0.1"/>
          <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.04"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" gear="2"/></actuator>
  <sensor><framelinacc objtype="xbody" objname="box"/></sensor>
</mujoco>
"""
CFG = SimulationCfg(engine="mjbatch", mujoco=MujocoCfg(timestep=0.005, integrator="rk4"))


@pytest.fixture
def sim() -> Simulation:
    return Simulation(2, CFG, mujoco.MjModel.from_xml_string(XML))


@pytest.fixture
def reference(sim) -> mujoco.MjData:
    data = mujoco.MjData(sim.mj_model)
    mujoco.mj_forward(sim.mj_model, data)
    return data


def step_both(sim: Simulation, data: mujoco.MjData, n: int, ctrl: float) -> None:
    sim.data.ctrl[:] = ctrl
    sim.step(n)
    data.ctrl[:] = np.float32(ctrl)
    mujoco.mj_step(sim.mj_model, data, n)


def columns(sim: Simulation, name: str) -> np.ndarray:
    return sim.get_state()[:, sim.state_layout[name]].numpy()


def test_the_state_is_mujocos_to_the_bit(sim, reference):
    assert sim.data.cfrc_ext.abs().sum() == 0  # Bound, so that sensors matter.
    for step in range(150):
        step_both(sim, reference, n=1 + step % 3, ctrl=0.1 * (step % 7))
        for name in ("time", "qpos", "qvel", "qacc_warmstart"):
            for row in columns(sim, name):
                assert np.array_equal(row, np.atleast_1d(getattr(reference, name))), (step, name)
        assert np.array_equal(sim.data.qpos[0], reference.qpos.astype(np.float32))
    assert reference.ncon > 0


def test_contact_forces_and_bodies_are_of_the_last_evaluation(sim, reference):
    xpos, forces = sim.data.xpos, sim.data.cfrc_ext
    touched = 0
    for _ in range(150):
        step_both(sim, reference, n=2, ctrl=0.5)
        first = reference.cfrc_ext.copy()  # What MuJoCo leaves: from the first evaluation.
        mujoco.mj_rnePostConstraint(sim.mj_model, reference)
        np.testing.assert_allclose(xpos[0], reference.xpos, atol=1e-6)
        np.testing.assert_allclose(forces[0], reference.cfrc_ext, rtol=1e-5, atol=1e-4)
        touched += bool(np.abs(first - reference.cfrc_ext).max() > 0.1)
    assert touched, "the two evaluations never differed"


def test_a_field_bound_after_the_step_is_of_the_same_evaluation(sim):
    early = Simulation(2, CFG, mujoco.MjModel.from_xml_string(XML))
    assert early.data.cfrc_ext is not None
    for each in (early, sim):
        each.data.qvel[:, 2] = -1.0
        each.step(40)
    assert early.data.cfrc_ext.abs().max() > 1
    # Not to the bit: until then the last step was MuJoCo's own.
    np.testing.assert_allclose(sim.data.cfrc_ext, early.data.cfrc_ext, rtol=1e-5, atol=1e-4)
    assert torch.equal(sim.get_state(), early.get_state())


def test_a_world_that_diverges_is_reported_and_becomes_nan(sim):
    assert sim.data.cfrc_ext is not None
    sim.data.qvel[1, 0] = 1e30
    sim.step(1)
    assert sim.health()[0] > 0
    assert sim.data.qpos[1].isnan().all() and sim.data.qpos[0].isfinite().all()
    sim.reset([1])
    sim.step(3)
    assert sim.data.qpos.isfinite().all()
