"""What recorders write is what happened: every row, every flag, every final observation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from long_runs import LONG, some_long
from rollout_log import StepLog, compare
from worlds import actions, cart_cfg

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import (
    CsvRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
)
from mjlab_rec.sim import MujocoCfg, SimulationCfg

OBS = ["actor", "critic/joints", "critic/late", "critic/past", "critic/goal", "critic/action"]
CHANNELS = [
    *(f"obs/{name}" for name in OBS),
    *(f"next_obs/{name}" for name in OBS),
    "action",
    "reward",
    "terminated",
    "truncated",
    "command/goal",
    "entity/robot/joint_pos",
    "state",
]
ASKED = (
    "obs",
    "action",
    "reward",
    "terminated",
    "truncated",
    "next_obs",
    "command",
    "entity/robot/joint_pos",
    "state",
)
FORMATS = {
    "csv": (CsvRecorderCfg, "log.csv", {}),
    "hdf5": (Hdf5RecorderCfg, "log.h5", {}),
    "hdf5 compressed": (Hdf5RecorderCfg, "small.h5", {"compression": "gzip"}),
    "robomimic": (Hdf5RecorderCfg, "demos.h5", {"layout": "episodes"}),
    "npz files": (NpzRecorderCfg, "log", {}),
    "npz": (NpzRecorderCfg, "log.npz", {}),
    "parquet": (ParquetRecorderCfg, "log.parquet", {}),
}


def world(num_envs: int, engine: str, **overrides):
    sim = SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine=engine)
    return cart_cfg(num_envs=num_envs, sim=sim, **overrides)


def drive(log: StepLog, steps: int, auto_reset: bool, manual: bool = True) -> None:
    """Random actions, with resets by hand: where the environment leaves them to us, and others."""
    env = log.env
    chance = np.random.default_rng(3)
    log.reset()
    for k, action in enumerate(actions(steps, env.num_envs)):
        done = log.step(action)
        ids = torch.tensor([], dtype=torch.long) if auto_reset else done.nonzero().flatten().cpu()
        if manual and k % 5 == 3:
            chosen = torch.from_numpy(np.flatnonzero(chance.random(env.num_envs) < 0.3))
            ids = torch.cat([ids, chosen]).unique()
        if len(ids):
            log.reset(ids)
        if manual and k % 11 == 7:
            log.reset(ids[:1])  # Twice in a row: an episode without a step.


@pytest.mark.parametrize("block_steps", [some_long(1), 3, some_long(8), None])
@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize(("num_envs", "engine"), [(1, "mjbatch"), (64, "mjbatch"), (64, "warp")])
def test_rows_are_what_happened(num_envs, engine, auto_reset, block_steps):
    recorders = {"log": MemoryRecorderCfg(channels=ASKED, block_steps=block_steps)}
    cfg = world(num_envs, engine, auto_reset=auto_reset, recorders=recorders)
    with ManagerBasedRlEnv(cfg) as env:
        log = StepLog(env)
        drive(log, 40, auto_reset)
        compare(env.recorder_manager.get_term("log").rollouts, log.finished(), CHANNELS)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("num_envs", "auto_reset"),
    [some_long(1, True), (6, False), (16, True), some_long(64, True)],
)
def test_every_format_gives_the_rows_back(name, num_envs, auto_reset, tmp_path):
    make, path, options = FORMATS[name]
    recorder = make(path=str(tmp_path / path), channels=ASKED, block_steps=7, **options)
    cfg = world(num_envs, "mjbatch", auto_reset=auto_reset, recorders={"log": recorder})
    with ManagerBasedRlEnv(cfg) as env:
        log = StepLog(env)
        drive(log, 30, auto_reset)
    with open_rollouts(tmp_path / path) as rollouts:
        compare(rollouts, log.finished(), CHANNELS)


def test_several_recorders_do_not_disturb_each_other(tmp_path):
    recorders = {
        "all": MemoryRecorderCfg(channels=ASKED, block_steps=5),
        "few": MemoryRecorderCfg(channels=("obs", "next_obs", "reward"), envs=(5, 0, 3)),
        "first": Hdf5RecorderCfg(path=str(tmp_path / "a.h5"), channels=ASKED, envs=2),
        "slow": MemoryRecorderCfg(channels=ASKED, every=3, block_steps=4),
    }
    cfg = world(7, "mjbatch", recorders=recorders)
    with ManagerBasedRlEnv(cfg) as env:
        log = StepLog(env)
        drive(log, 40, auto_reset=True)
        term = env.recorder_manager.get_term
        compare(term("all").rollouts, log.finished(), CHANNELS)
        few = [c for c in CHANNELS if c.startswith(("obs", "next_obs", "reward"))]
        compare(term("few").rollouts, log.finished((0, 3, 5)), few)
        compare(term("slow").rollouts, log.finished(), CHANNELS, every=3)
    with open_rollouts(tmp_path / "a.h5") as rollouts:
        compare(rollouts, log.finished((0, 1)), CHANNELS)


@pytest.mark.parametrize("seed", range(30 if LONG else 10))
def test_random_worlds_blocks_strides_and_resets(seed):
    rng = np.random.default_rng(seed)
    num_envs, auto_reset = int(rng.integers(1, 9)), bool(rng.integers(2))
    every, block_steps = int(rng.choice([1, 1, 2, 3, 5])), int(rng.choice([1, 2, 3, 5, 8, 17]))
    lengths = tuple(int(n) for n in rng.integers(1, 12, 4))
    chosen = tuple(rng.permutation(num_envs)[: rng.integers(1, num_envs + 1)].tolist())
    envs = chosen if rng.integers(2) else None
    recorder = MemoryRecorderCfg(
        channels=ASKED[:6], every=every, block_steps=block_steps, envs=envs
    )
    cfg = world(
        num_envs, "mjbatch", auto_reset=auto_reset, steps=lengths, recorders={"log": recorder}
    )
    with ManagerBasedRlEnv(cfg) as env:
        log = StepLog(env, state=False)
        log.reset()
        for action in actions(int(rng.integers(1, 50)), num_envs, seed):
            done = log.step(action)
            if not auto_reset and done.any():
                log.reset(done.nonzero().flatten())
            while rng.random() < 0.25:
                by_hand = torch.from_numpy(np.flatnonzero(rng.random(num_envs) < 0.4))
                if len(by_hand):
                    log.reset(by_hand)
        rollouts = env.recorder_manager.get_term("log").rollouts
        channels = [c for c in CHANNELS if c in rollouts.channels]
        assert len(channels) == 16
        compare(rollouts, log.finished(sorted(chosen) if envs else None), channels, every)
