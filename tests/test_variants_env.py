"""Variants of entities in environments: randomized, recorded, replayed and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from variant_worlds import of_variants, thing

from mjlab_rec.data import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from mjlab_rec.recorders import Hdf5RecorderCfg, RerunRecorderCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg

VARIANTS = {
    "ball": thing(color=(1, 0, 0, 1)),
    "cones": thing(
        (("cone", 0.1, True), ("cone", 0.06, True), ("ball", 0.08, False)),
        lid=(("brick", 0.05, True),),
        knob=0.05,
        color=(0, 0, 1, 1),
    ),
}


def env_cfg(engine: Any = "mjbatch", **fields: Any) -> ManagerBasedRlEnvCfg:
    heavier = EventTermCfg(
        func=mdp.dr.body_mass,
        mode="startup",
        params={
            "asset_cfg": SceneEntityCfg("robot", body_names=("thing",)),
            "operation": "scale",
            "ranges": (2.0, 2.0),
        },
    )
    place = EventTermCfg(
        func=mdp.reset_root_state_uniform,
        mode="reset",
        params={"pose_range": {"x": (-0.1, 0.1), "yaw": (-1, 1)}, "velocity_range": {"z": (-1, 0)}},
    )
    fields.setdefault("events", {"heavier": heavier, "place": place})
    return ManagerBasedRlEnvCfg(
        decimation=2,
        episode_length_s=0.2,
        scene=SceneCfg(
            num_envs=4,
            terrain=TerrainEntityCfg(),
            entities={"robot": of_variants(VARIANTS, lambda n: [0, 1, 1, 0])},
        ),
        sim=SimulationCfg(engine=engine, nconmax=60, njmax=240),
        observations={"actor": ObservationGroupCfg({"q": ObservationTermCfg(mdp.joint_pos_rel)})},
        actions={},
        terminations={"time_out": TerminationTermCfg(func=mdp.time_out, time_out=True)},
        **fields,
    )


def steps(env: ManagerBasedRlEnv, count: int) -> None:
    env.reset(seed=0)
    for _ in range(count):
        env.step(torch.zeros(env.num_envs, 0))


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_randomization_starts_from_each_worlds_variant(engine: str):
    own = [spec_fn().compile().body("thing").mass[0] for spec_fn in VARIANTS.values()]
    with ManagerBasedRlEnv(env_cfg(engine)) as env:
        body = env.scene["robot"].indexing.root_body_id
        masses = env.sim.model.body_mass[:, body].tolist()
        assert masses == pytest.approx([2 * own[0], 2 * own[1], 2 * own[1], 2 * own[0]], rel=1e-5)
        steps(env, 15)
        assert torch.isfinite(env.sim.data.qpos).all()


def test_a_recording_holds_each_worlds_variant_and_replays_exactly(tmp_path: Path):
    cfg = env_cfg()
    path = str(tmp_path / "run.h5")
    cfg.recorders = {"rows": Hdf5RecorderCfg(path=path, channels=("obs", "state"))}
    with ManagerBasedRlEnv(cfg) as env:
        steps(env, 25)
        meshes = env.sim.model.geom_dataid.numpy().copy()
    with open_rollouts(path) as rollouts:
        (tmp_path / "model.mjb").write_bytes(rollouts.attachments["model.mjb"])
        checked = set()
        for index in range(len(rollouts)):
            fields, world = rollouts.model(index), int(rollouts.episodes[index, "env"])
            assert np.array_equal(fields["geom_dataid"], meshes[world])
            model = mujoco.MjModel.from_binary_path(str(tmp_path / "model.mjb"))
            for name, values in fields.items():
                field = getattr(model, name)
                field[...] = values.reshape(field.shape)
            states = rollouts[index]["state"]
            data = mujoco.MjData(model)
            kind = mujoco.mjtState.mjSTATE_INTEGRATION
            for before, after in zip(states[:-1], states[1:], strict=True):
                mujoco.mj_setState(model, data, before, kind)
                mujoco.mj_step(model, data, 2)
                found = np.empty_like(before, dtype=np.float64)
                mujoco.mj_getState(model, data, found, kind)
                np.testing.assert_allclose(found, after, atol=1e-9)
            checked.add(world)
    assert checked == {0, 1, 2, 3}


def test_rerun_draws_each_environments_own_meshes(tmp_path: Path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    from test_rerun import read

    cfg = env_cfg()
    path = tmp_path / "run.rrd"
    cfg.recorders = {"rerun": RerunRecorderCfg(path=str(path), trigger=None)}
    with ManagerBasedRlEnv(cfg) as env:
        steps(env, 5)
        model = env.sim.mj_model
    shown = {}
    for name, entity in read(path).items():
        scales = entity.rows.get("InstancePoses3D:scales")
        if "Mesh3D:vertex_positions" in entity.static and scales and "robot" in name:
            shown[name.rpartition("/")[2].replace("\\", "")] = [s[0] for s in scales[0][1]]
    names = [model.mesh(i).name for i in range(model.nmesh)]
    assert shown == {
        name.rpartition("/")[2]: [0, 1, 1, 0] if "cones" in name else [1, 0, 0, 1] for name in names
    }


def test_the_web_page_makes_the_meshes_of_the_environment_that_is_shown():
    pytest.importorskip("mjviser", reason="mjviser is not installed")
    import viser

    from mjlab_rec.viewer.frame import FrameReader
    from mjlab_rec.viewer.playback import Playback
    from mjlab_rec.viewer.web_scene import WebScene

    with ManagerBasedRlEnv(env_cfg()) as env:
        env.reset(seed=0)
        playback = Playback(env, lambda obs: torch.zeros(4, 0))
        reader = FrameReader(playback, 2)
        server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
        try:
            scene = WebScene(server, playback, reader.read(), "a test")
            for shown in (1, 0, 2):
                playback.show(shown)
                scene.draw(reader.read())
                drawn = scene._scene.mj_model
                assert np.array_equal(drawn.geom_dataid, env.sim.model.geom_dataid[shown])
                assert np.allclose(drawn.geom_pos, env.sim.model.geom_pos[shown])
            scene.close()
        finally:
            server.stop()
