"""Both engines against plain MuJoCo, on models from the gymnasium package."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.sim import MujocoCfg, Simulation, SimulationCfg

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
STEPS = 100
WORLDS = 2

# Largest difference in positions and velocities after 100 steps without any re-synchronization.
# mjbatch computes in float64: what is left is the rounding of the views. Seen with warp: positions
# 2e-5, velocities 1e-3.
TOLERANCE = {"mjbatch": (1e-6, 5e-6), "warp": (1e-4, 1e-2)}


@pytest.mark.parametrize("name", ["ant", "half_cheetah", "hopper", "walker2d"])
@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_a_rollout_agrees_with_plain_mujoco(engine: str, name: str):
    model = mujoco.MjModel.from_xml_path(str(ASSETS / f"{name}.xml"))
    integrator = "rk4" if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4 else "euler"
    # MuJoCo-Warp 3.14 turns the tangents of a contact between a plane and a steep capsule
    # differently from C MuJoCo, as in the ant's ankles. A pyramid of friction feels that, a cone
    # does not.
    cone = "elliptic" if name == "ant" else "pyramidal"
    cfg = MujocoCfg(timestep=model.opt.timestep, integrator=integrator, cone=cone)
    sim = Simulation(WORLDS, SimulationCfg(engine=engine, num_threads=1, mujoco=cfg), model)

    rng = np.random.default_rng(0)
    reference = [mujoco.MjData(sim.mj_model) for _ in range(WORLDS)]
    velocity = rng.uniform(-0.1, 0.1, (WORLDS, model.nv)).astype(np.float32)
    sim.data.qvel[:] = torch.from_numpy(velocity)
    for world, data in enumerate(reference):
        data.qvel[:] = velocity[world]

    contacts = 0
    for _ in range(STEPS):
        ctrl = rng.uniform(-1, 1, (WORLDS, model.nu)).astype(np.float32)
        sim.data.ctrl[:] = torch.from_numpy(ctrl)
        sim.step()
        for world, data in enumerate(reference):
            data.ctrl[:] = ctrl[world]
            mujoco.mj_step(sim.mj_model, data)
            contacts += data.ncon

    qpos_tolerance, qvel_tolerance = TOLERANCE[engine]
    for world, data in enumerate(reference):
        assert np.abs(sim.data.qpos[world].numpy() - data.qpos).max() < qpos_tolerance
        assert np.abs(sim.data.qvel[world].numpy() - data.qvel).max() < qvel_tolerance
    assert contacts > 0  # or this would show little
    assert sim.health().tolist() == [0] * 5


def test_few_line_search_iterations_do_not_stop_mjbatch_short_of_the_solution():
    model = mujoco.MjModel.from_xml_path(str(ASSETS / "ant.xml"))
    rollouts = []
    for least in (1, 50):
        cfg = MujocoCfg(timestep=0.01, cone="elliptic", ls_iterations=least)
        sim = Simulation(1, SimulationCfg(engine="mjbatch", num_threads=1, mujoco=cfg), model)
        assert sim.mj_model.opt.ls_iterations == 50  # The model says what is simulated.
        states = []
        for step in range(100):
            sim.data.ctrl[:] = torch.sin(torch.arange(model.nu) + 0.3 * step)
            sim.step()
            states.append(sim.get_state())
        rollouts.append(torch.stack(states))
    assert torch.equal(*rollouts)
