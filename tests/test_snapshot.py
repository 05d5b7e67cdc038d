"""Snapshots of worlds: the host sees them where the simulation has them."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import RecorderTerm, RecorderTermCfg
from mjlab_rec.sim import RecomputeLevel, Simulation, SimulationCfg
from mjlab_rec.sim.snapshot import PosedModel, Snapshot, SnapshotReader

# Every kind of joint, and everything that has a place; the box at the origin of its body has a
# shortcut in MuJoCo.
ZOO = """
<mujoco>
  <worldbody>
    <light name="sun" pos="0 0 3" dir="0 0 -1"/>
    <camera name="tracking" mode="trackcom" pos="0 -2 1"/>
    <body name="base" pos="0 0 1">
      <freejoint/>
      <geom name="box" type="box" size="0.1 0.2 0.1"/>
      <site name="tip" pos="0 0 0.2"/>
      <camera name="eye" pos="0.1 0 0"/>
      <light name="lamp" mode="targetbody" target="arm" pos="0 0 1"/>
      <body name="arm" pos="0.3 0 0">
        <joint name="hinge" axis="0 1 0"/>
        <geom name="arm" type="capsule" fromto="0 0 0 0.4 0 0" size="0.05"/>
        <site name="hand" pos="0.4 0 0"/>
      </body>
    </body>
    <body name="ball" pos="1 0 1">
      <joint name="ball" type="ball"/>
      <joint name="slide" type="slide" axis="0 0 1"/>
      <geom name="ball" size="0.1" pos="0.2 0 0"/>
    </body>
    <body name="target" mocap="true" pos="0 1 0"><geom name="target" size="0.1"/></body>
  </worldbody>
  <tendon><spatial name="string"><site site="tip"/><site site="hand"/></spatial></tendon>
</mujoco>
"""
# Masses belong to the last one: centres of mass, which the camera tracks, depend on them.
MOVED = ("body_pos", "body_quat", "geom_pos", "geom_quat", "site_pos", "cam_pos", "qpos0")
MOVED += ("light_pos", "jnt_pos", "jnt_axis", "body_mass")
PLACES = ("xpos", "xmat", "geom_xpos", "geom_xmat", "site_xpos", "cam_xpos", "cam_xmat")


@pytest.fixture(params=["mjbatch", "warp"])
def sim(request: pytest.FixtureRequest) -> Simulation:
    model = mujoco.MjModel.from_xml_string(ZOO)
    cfg = SimulationCfg(engine=request.param, nconmax=20, njmax=80)
    sim = Simulation(num_envs=4, cfg=cfg, model=model)
    generator = torch.Generator().manual_seed(3)
    sim.data.qpos[:] += 0.3 * torch.randn(sim.data.qpos.shape, generator=generator)
    sim.data.qvel[:] = torch.randn(sim.data.qvel.shape, generator=generator)
    sim.data.mocap_pos[:] += torch.randn(sim.data.mocap_pos.shape, generator=generator)
    return sim


def randomize(sim: Simulation) -> None:
    """Give every world a geometry of its own."""
    generator = torch.Generator().manual_seed(4)
    sim.expand_model_fields(MOVED)
    for name in MOVED:
        field = getattr(sim.model, name)
        field += 0.1 * torch.rand(field.shape, generator=generator)
        if name.endswith("quat") or name == "jnt_axis":
            field /= field.norm(dim=-1, keepdim=True)
    sim.recompute_constants(RecomputeLevel.set_const)


def places(sim: Simulation) -> dict[str, np.ndarray]:
    """Where the simulation has everything, brought up to date."""
    for name in PLACES:
        getattr(sim.data, name)
    sim.forward()
    return {name: getattr(sim.data, name).numpy().copy() for name in PLACES}


def assert_poses(posed: PosedModel, snapshot: Snapshot, expected: dict[str, np.ndarray]) -> None:
    for row, env in enumerate(snapshot.env_ids):
        data = posed.pose(snapshot.wait(), row)
        for name, values in expected.items():
            actual = getattr(data, name).reshape(values[env].shape)
            np.testing.assert_allclose(actual, values[env], atol=2e-5, err_msg=f"{name} {env}")


@pytest.mark.parametrize("env_ids", [[0, 1, 2, 3], [3, 1], [2]])
def test_poses_are_those_of_the_simulation(sim, env_ids):
    snapshot = SnapshotReader(sim, env_ids).read()
    assert snapshot.env_ids == tuple(env_ids)
    assert_poses(PosedModel(sim.mj_model), snapshot, places(sim))


def test_poses_follow_model_fields_of_each_world(sim):
    posed, reader = PosedModel(sim.mj_model), SnapshotReader(sim, [0, 3, 2])
    before = reader.read()
    usual = places(sim)
    randomize(sim)
    after = reader.read()
    expected = places(sim)
    assert not np.allclose(usual["geom_xpos"], expected["geom_xpos"], atol=1e-3)
    assert_poses(posed, after, expected)
    assert_poses(PosedModel(sim.mj_model), before, usual)
    assert_poses(posed, after, expected)


def test_looks_of_each_world_are_in_the_snapshot(sim):
    sim.expand_model_fields(["geom_rgba", "geom_size"])
    sim.model.geom_rgba[1, 0] = torch.tensor([1.0, 0.5, 0.25, 1.0])
    sim.model.geom_size[3, 2] = torch.tensor([0.7, 0.0, 0.0])
    snapshot = SnapshotReader(sim, [1, 3]).read()
    posed = PosedModel(sim.mj_model)
    posed.pose(snapshot, 0)
    assert posed.model.geom_rgba[0].tolist() == [1.0, 0.5, 0.25, 1.0]
    assert posed.model.geom_size[2, 0] == pytest.approx(0.1)
    posed.pose(snapshot, 1)
    assert posed.model.geom_rgba[0].tolist() == [0.5, 0.5, 0.5, 1.0]
    assert posed.model.geom_size[2, 0] == pytest.approx(0.7)
    assert sim.mj_model.geom_size[2, 0] == pytest.approx(0.1), "the physics' model stays"


def test_poses_are_current_where_the_simulations_own_lag_behind(sim):
    lagging = sim.data.geom_xpos
    sim.step(5)
    left_behind = lagging.clone()
    snapshot = SnapshotReader(sim, range(4)).read()
    assert torch.equal(lagging, left_behind), "reading brings nothing up to date"
    expected = places(sim)
    assert not np.allclose(left_behind.numpy(), expected["geom_xpos"], atol=1e-4)
    assert_poses(PosedModel(sim.mj_model), snapshot, expected)


def test_snapshot_does_not_change_while_the_simulation_continues(sim):
    randomize(sim)
    snapshot = SnapshotReader(sim, range(4)).read()
    expected = places(sim)
    sim.step(5)
    sim.data.mocap_pos[:] += 1.0
    sim.model.geom_pos[:] = 0.0
    sim.reset()
    assert_poses(PosedModel(sim.mj_model), snapshot, expected)


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_reading_changes_no_bit(engine):
    states = []
    for looks in (False, True):
        model = mujoco.MjModel.from_xml_string(ZOO)
        cfg = SimulationCfg(engine=engine, nconmax=20, njmax=80)
        sim = Simulation(num_envs=4, cfg=cfg, model=model)
        reader, posed = SnapshotReader(sim, [1, 2]), PosedModel(sim.mj_model)
        sim.data.qvel[:] = torch.linspace(-1, 1, sim.data.qvel.numel()).view_as(sim.data.qvel)
        log = []
        for i in range(8):
            if looks:
                posed.pose(reader.read(), i % 2)
            if i == 4:
                randomize(sim)
            sim.step(2)
            log += [sim.get_state(), sim.data.geom_xpos.clone()]
        states.append(torch.cat([values.flatten().double() for values in log]))
    assert torch.equal(*states)


def test_terminal_pose_is_the_true_one_before_the_reset():
    """The pole's tip, by hand from the joints, where the environment's own value lags behind."""
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    class Witness(RecorderTerm):
        def record_pre_reset(self, env_ids: Any) -> None:
            env: Any = self._env
            snapshot = SnapshotReader(env.sim, env_ids.tolist()).read()
            posed = PosedModel(env.sim.mj_model)
            for row, env_id in enumerate(env_ids.tolist()):
                slide, hinge = env.sim.data.qpos[env_id].double().tolist()
                origin = env.scene.env_origins[env_id].numpy()
                true = origin + np.array([slide + np.sin(hinge), 0.0, 1.0 + np.cos(hinge)])
                tip = posed.pose(snapshot, row).site_xpos[0].copy()
                seen.append((tip, true, env.sim.data.site_xpos[env_id, 0].numpy().copy()))

    # A curriculum would bring the environment's own value up to date.
    cfg = cart_cfg(recorders={"witness": RecorderTermCfg(func=Witness)}, curriculum={})
    cfg.sim.engine = "mjbatch"
    env = ManagerBasedRlEnv(cfg)
    env.reset(seed=1)
    seen.clear()
    for action in actions(20):
        env.step(action)
    env.close()
    assert len(seen) > 8
    for tip, true, _ in seen:
        np.testing.assert_allclose(tip, true, atol=1e-5)
    assert any(np.abs(own - true).max() > 1e-3 for _, true, own in seen)


@pytest.mark.cuda
def test_reading_waits_for_nothing_on_a_gpu():
    model = mujoco.MjModel.from_xml_string(ZOO)
    sim = Simulation(num_envs=4, cfg=SimulationCfg(), model=model, device="cuda")
    sim.data.qpos[:] += 0.1
    reader = SnapshotReader(sim, [3, 1])
    reader.read().wait()
    torch.cuda.set_sync_debug_mode("error")
    try:
        snapshot = reader.read()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    sim.forward()
    expected = {name: getattr(sim.data, name).cpu().numpy() for name in PLACES}
    assert_poses(PosedModel(sim.mj_model), snapshot, expected)
