from __future__ import annotations

import gc
import logging

import mujoco
import pytest
import torch
from sim_models import CARTPOLE, RICH, load

from mjlab_rec.sim import MujocoCfg, RecomputeLevel, Simulation, SimulationCfg
from mjlab_rec.sim.engine import array_names, has_world_axis, uniform_shape


def make(
    num_envs: int = 3, xml: str = RICH, graphs: bool = True, device: str = "cpu"
) -> Simulation:
    from mjlab_rec.sim import warp_engine

    with pytest.MonkeyPatch.context() as patch:
        if not graphs:
            patch.setattr(warp_engine.WarpEngine, "_graphs_work", lambda self: False)
        cfg = SimulationCfg(engine="warp", mujoco=MujocoCfg(timestep=0.005))
        return Simulation(num_envs, cfg, load(xml), device)


def drive(sim: Simulation) -> torch.Tensor:
    """Steps, masked resets, an expanded field and recomputed constants, as an env would do them."""
    generator = torch.Generator().manual_seed(0)
    device = sim.device
    rows = []
    for i in range(30):
        ctrl = torch.rand(sim.data.ctrl.shape, generator=generator) - 0.5
        sim.data.ctrl[:] = ctrl.to(device)
        sim.step(2)
        if i % 5 == 4:
            sim.reset(torch.tensor([i % 3], device=device))
            sim.data.qpos[i % 3, 2] = 0.2
        if i == 10:
            sim.expand_model_fields(["body_mass"])
            sim.model.body_mass[1, 3] *= 1.3
            sim.recompute_constants(RecomputeLevel.set_const)
        sim.forward()
        rows += [sim.get_state(), sim.data.sensordata.clone(), sim.data.xpos.flatten(1).clone()]
        if i % 7 == 0:
            # What a graph holds must survive this.
            gc.collect()
            torch.full((1000, 1000), torch.nan)
    return torch.cat(rows, dim=1)


@pytest.fixture(scope="module")
def alone() -> torch.Tensor:
    """What a simulation does that is the only one."""
    return drive(make())


def test_replayed_graphs_equal_eager_launches(alone):
    assert torch.equal(alone, drive(make(graphs=False)))


def test_two_simulations_do_not_disturb_each_other(alone):
    one, two = make(), make(num_envs=2, xml=CARTPOLE)
    two.data.ctrl[:] = 1.0
    rows = []
    for _ in range(10):
        one.step()
        two.step()
        rows.append(one.get_state())
    again = make()
    again.step(10)
    assert torch.equal(again.get_state(), rows[-1])
    assert torch.equal(drive(make()), alone)


def test_both_engines_show_the_same_shapes():
    model = load(RICH)
    data = mujoco.MjData(model)
    warp = make()
    cpu = Simulation(3, SimulationCfg(engine="mjbatch", num_threads=1), model)
    compared = 0
    for name in array_names(data):
        try:
            mine = getattr(cpu.data, name)
            other = getattr(warp.data, name)
        except AttributeError:
            continue  # Only one of them has it.
        if name in ("qLD", "plugin_state"):
            continue  # The engines factorize differently.
        compared += 1
        assert mine.shape == other.shape, name
        assert mine.is_floating_point() == other.is_floating_point(), name
    assert compared > 50


def test_model_fields_have_a_world_axis_where_warp_gives_them_one():
    import mujoco_warp as mjw

    model = load(RICH)
    for name in array_names(model):
        spec = mjw.Model.__dataclass_fields__.get(name)
        shape = getattr(getattr(spec, "type", None), "shape", None)
        value = getattr(model, name)
        if shape is not None and value.dtype.kind == "f":
            assert has_world_axis(name, value) == (shape[0] == "*"), name


def test_every_expandable_field_can_be_expanded_and_keeps_its_shape():
    model = load(RICH)
    warp = make()
    cpu = Simulation(3, SimulationCfg(engine="mjbatch", num_threads=1), model)
    import mujoco_warp as mjw

    names = [
        name
        for name in array_names(model)
        if has_world_axis(name, getattr(model, name)) and name in mjw.Model.__dataclass_fields__
    ]
    for sim in (warp, cpu):
        sim.expand_model_fields(names)
    for name in names:
        shape = (3, *uniform_shape(name, getattr(model, name).shape))
        assert getattr(warp.model, name).shape == shape, name
        assert getattr(cpu.model, name).shape == shape, name
        torch.testing.assert_close(getattr(warp.model, name), getattr(cpu.model, name))


def test_a_slow_start_is_announced_once(monkeypatch, caplog):
    from mjlab_rec.sim import warp_start

    class Immediately:
        daemon = False

        def __init__(self, delay_s, function, args):
            self.start = lambda: function(*args)

        def cancel(self):
            pass

    monkeypatch.setattr(warp_start.threading, "Timer", Immediately)
    with caplog.at_level(logging.WARNING, logger="mjlab_rec.sim"):
        make(xml=CARTPOLE)
    assert [r.getMessage()[:30] for r in caplog.records] == ["Compiling MuJoCo-Warp kernels:"]


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu():
    cpu, cuda = make(), make(device="cuda")
    for sim in (cpu, cuda):
        sim.data.qvel[:, 7] = 1.0
        sim.data.ctrl[:] = 0.3
        sim.step(20)
        sim.forward()
    torch.testing.assert_close(cuda.data.qpos.cpu(), cpu.data.qpos, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(cuda.data.xpos.cpu(), cpu.data.xpos, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
def test_cuda_fields_live_on_the_device_and_keep_their_address():
    sim = make(device="cuda:0")
    field = sim.data.qpos
    address = field.data_ptr()
    drive(sim)
    assert field.is_cuda and sim.data.qpos is field and field.data_ptr() == address
    assert sim.health().is_cuda and sim.model.geom_bodyid.is_cuda


@pytest.mark.cuda
def test_cuda_launches_follow_torchs_current_stream():
    def rollout(stream: torch.cuda.Stream | None) -> torch.Tensor:
        sim = make(device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            for i in range(20):
                # A long torch op that the physics must wait for.
                sim.data.ctrl[:] = torch.full((4096, 4096), 0.1, device="cuda").mm(
                    torch.full((4096, 3), 1.0 / 4096, device="cuda")
                )[:3, :3] * (i % 3)
                sim.step(3)
                sim.forward()
            rows = sim.get_state()
        torch.cuda.synchronize()
        return rows

    torch.testing.assert_close(rollout(None), rollout(torch.cuda.Stream()))


@pytest.mark.cuda
def test_cuda_step_waits_for_nothing():
    sim = make(device="cuda")
    sim.data.ctrl.zero_()
    sim.step()
    sim.forward()
    mask = torch.tensor([True, False, True], device="cuda")
    sim.reset(mask)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sim.step(4)
        sim.forward()
        sim.reset(mask)
        sim.forward(mask)
        sim.health()
        sim.get_state()
    finally:
        torch.cuda.set_sync_debug_mode("default")
