"""The example scripts learn: a clone from a recording, a policy by PPO."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import Hdf5RecorderCfg
from mjlab_rec.registry import load_env_cfg

EXAMPLES = Path(__file__).parent.parent / "scripts" / "examples"
BALANCE = torch.tensor([[0.3], [6.0], [0.5], [1.5]])
"""Gains of a force for the cart's position, the pole's sine, and their speeds."""


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def record_expert(path: Path) -> None:
    """Record an episode of a hand-written expert in each of some environments."""
    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = 4
    cfg.recorders = {"log": Hdf5RecorderCfg(path=str(path), channels=("obs", "action"))}
    with ManagerBasedRlEnv(cfg, device="cpu") as env:
        obs, _ = env.reset(seed=0)
        for _ in range(1000):
            obs, *_ = env.step(obs["actor"][:, [0, 2, 3, 4]] @ BALANCE)


def test_a_clone_balances_as_well_as_the_expert_whose_recording_it_saw(tmp_path, capsys):
    import behaviour_cloning as example

    path = tmp_path / "expert.h5"
    record_expert(path)
    args = example.Args(recording=path, updates=600, hidden=32, num_envs=16)
    expert, clone = example.main(args)
    assert expert == pytest.approx(50.0, abs=0.1)  # Of 50: the pole never leaves the top.
    assert clone >= 0.9 * expert
    assert f"Return of the expert {expert:.2f}, of its clone {clone:.2f}" in capsys.readouterr().out
    # An untrained one does not.
    untrained = example.Args(recording=path, updates=1, hidden=32, num_envs=16)
    assert example.main(untrained)[1] < 0.9 * expert


def test_ppo_gets_better_at_a_task_of_gymnasiums_registry(monkeypatch):
    import ppo as example

    make = example.gymnasium.make_vec
    monkeypatch.setattr(example.gymnasium, "make_vec", partial(make, episode_length_s=5.0))
    args = example.Args(total_steps=40_000)
    assert args.env_id == "mjlab_rec/cartpole-balance-v0"
    out = Console(file=io.StringIO())
    agent, means = example.train(args, out)
    assert means[-1] > means[0] + 0.4  # Of 5 at most.
    assert f"return {means[-1]:.2f}" in out.file.getvalue()
    assert means[-1] - 1.0 < example.evaluate(agent, args) <= 5.0
