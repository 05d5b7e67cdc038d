"""Recording changes nothing, and what was recorded can be played again."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from worlds import actions, cart_cfg, shaky

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg
from mjlab_rec.recorders import (
    Channel,
    CsvRecorderCfg,
    EpisodeLogRecorderCfg,
    FlightRecorderCfg,
    Hdf5RecorderCfg,
    LivePlotRecorderCfg,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
    RerunRecorderCfg,
    VideoRecorderCfg,
)
from mjlab_rec.sim import MujocoCfg, SimulationCfg

EVERYTHING = (
    "obs",
    "obs/actor/joints",
    "next_obs",
    "action",
    "processed_action",
    "reward",
    "reward_terms",
    "terminated",
    "truncated",
    "command",
    "state",
    "ctrl",
    "entity/robot/joint_pos",
    "entity/robot/site_pos_w",
    Channel(name="shaky", func=shaky, when="before"),
    Channel(name="late", func=lambda env: env.scene["robot"].data.body_link_pos_w, when="after"),
)


def every_recorder(tmp_path):
    """One of each, with small blocks."""
    common = {"channels": EVERYTHING, "block_steps": 4}
    return {
        "memory": MemoryRecorderCfg(**common),
        "csv": CsvRecorderCfg(path=str(tmp_path / "a.csv"), **common),
        "hdf5": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), **common),
        "demos": Hdf5RecorderCfg(path=str(tmp_path / "b.h5"), layout="episodes", **common),
        "npz": NpzRecorderCfg(path=str(tmp_path / "c"), **common),
        "parquet": ParquetRecorderCfg(path=str(tmp_path / "d"), **common),
        "few": MemoryRecorderCfg(channels=EVERYTHING, envs=(2, 0), every=3),
        "triggered": MemoryRecorderCfg(channels=EVERYTHING, trigger="every_n_episodes(2)"),
        "episodes": EpisodeLogRecorderCfg(path=str(tmp_path / "e.jsonl")),
        "flight": FlightRecorderCfg(path=str(tmp_path / "f"), channels=EVERYTHING, steps=5),
        "video": VideoRecorderCfg(
            **{"path": str(tmp_path / "g"), "envs": 3, "layout": "grid", "overlay": True},
            **{"width": 64, "height": 48, "trigger": "at_start"},
        ),
        "rerun": RerunRecorderCfg(
            path=str(tmp_path / "h.rrd"), channels=EVERYTHING, contacts=True, trigger=None
        ),
        "plot": LivePlotRecorderCfg(path=str(tmp_path / "i.png"), max_hz=1000.0),
    }


def trajectory(recorders, engine, seed=11, num_envs=4, **overrides):
    sim = SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine=engine)
    cfg = cart_cfg(num_envs, sim=sim, seed=seed, recorders=recorders, **overrides)
    torch.manual_seed(123)
    trace = []
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for k, action in enumerate(actions(30, num_envs)):
            obs, *rest = env.step(action)
            trace += [obs["actor"], *rest[:3], env.sim.get_state(), torch.rand(2)]
            trace += [torch.tensor(float(v)) for v in env.extras["log"].values()]
            if k == 12:
                env.reset(env_ids=torch.tensor([1, 3]))
    return trace


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
@pytest.mark.parametrize("auto_reset", [True])
def test_rollouts_are_the_same_bits_with_and_without_every_recorder(engine, auto_reset, tmp_path):
    alone = trajectory({}, engine, auto_reset=auto_reset)
    recorded = trajectory(every_recorder(tmp_path), engine, auto_reset=auto_reset)
    assert len(alone) == len(recorded)
    for a, b in zip(alone, recorded, strict=True):
        assert torch.equal(a, b) or torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_recorded_state_and_action_give_the_next_state(engine, tmp_path):
    """Also with masses of its own in every world, and in a simulation of another size."""
    pole = SceneEntityCfg("robot", body_names=("pole",))
    events = {
        "start": cart_cfg().events["start"],
        "mass": EventTermCfg(
            func=mdp.dr.body_mass,
            mode="reset",
            params={"ranges": (0.5, 2.0), "operation": "scale", "asset_cfg": pole},
        ),
    }
    sim = SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine=engine)
    path = tmp_path / "a.h5"
    recorder = Hdf5RecorderCfg(path=str(path), channels=("state", "action"), block_steps=5)
    cfg = cart_cfg(3, sim=sim, events=events, recorders={"log": recorder})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        term = env.recorder_manager.get_term("log")
        for k, action in enumerate(actions(30, 3)):
            if k == 6:
                term.pause()
            if k == 13:
                term.start()
            env.step(action)
    again = cart_cfg(2, sim=sim, events=events)
    checked = 0
    masses = set()
    with ManagerBasedRlEnv(again) as env, open_rollouts(path) as rollouts:
        env.reset()
        for i in range(len(rollouts)):
            rows, fields = rollouts[i], rollouts.model(i)
            assert {"body_mass", "body_invweight0"} <= set(fields)  # Also what follows from it.
            masses.add(float(fields["body_mass"][-1]))
            for name, value in fields.items():
                getattr(env.sim.model, name)[1] = torch.from_numpy(value)
            for k in np.flatnonzero(np.diff(rows["step"]) == 1):
                env.sim.set_state(torch.from_numpy(rows["state"][k])[None], torch.tensor([1]))
                env.action_manager.process_action(torch.from_numpy(rows["action"][k]).expand(2, 1))
                env._simulate()
                state = env.sim.get_state()[1].numpy()
                np.testing.assert_array_equal(state, rows["state"][k + 1])
                checked += 1
    assert checked > 30
    assert len(masses) > 5


def test_a_recording_of_the_state_holds_the_compiled_model(tmp_path):
    recorder = Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=("state",))
    with ManagerBasedRlEnv(cart_cfg(recorders={"log": recorder})) as env:
        env.reset()
        timestep = env.sim.mj_model.opt.timestep
    with open_rollouts(tmp_path / "a.h5") as rollouts:
        (tmp_path / "model.mjb").write_bytes(rollouts.attachments["model.mjb"])
    model = mujoco.MjModel.from_binary_path(str(tmp_path / "model.mjb"))
    assert model.opt.timestep == timestep
    assert model.body("robot/pole").name == "robot/pole"
