"""A task from its first step to its files, as `make test-newest` runs it on the newest MuJoCo."""

from __future__ import annotations

import torch

from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders.presets import load_preset
from mjlab_rec.registry import load_env_cfg

FILES = {"csv": "a.csv", "hdf5_full_state": "a.h5", "npz": "npz", "parquet": "parquet"}


def test_a_task_is_recorded_on_warp_without_warnings(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)  # Where MuJoCo would leave its log.
    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = 4
    cfg.episode_length_s = 0.25
    cfg.sim.engine = "warp"
    cfg.recorders = {
        name: load_preset(name, path=path, trigger=None) for name, path in FILES.items()
    }
    with ManagerBasedRlEnv(cfg, device="cpu") as env:
        env.reset(seed=0)
        for _ in range(12):
            env.step(torch.rand(4, 1) * 2 - 1)
    assert {path.name for path in tmp_path.iterdir()} >= set(FILES.values())
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()
    assert "WARNING" not in capfd.readouterr().err
    for path in FILES.values():
        with open_rollouts(path) as rollouts:
            assert rollouts.rows == 48, path
            assert rollouts.verify() == []
