"""Small trainings for tests: a few environments, tiny networks, a few iterations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg

GAUSSIAN = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
TINY: dict[str, Any] = {"hidden_dims": (8,), "obs_normalization": True}

# RSL-RL and TensorBoard use what their dependencies will remove.
IGNORED = [
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:.*:UserWarning:torch",
]


def flat_cart(**overrides: Any) -> ManagerBasedRlEnvCfg:
    """The cart of worlds.py, with observations that networks take; episodes end all the time."""
    cfg = cart_cfg(num_envs=6, steps=(7, 4, 9, 5, 11, 8), **overrides)
    cfg.observations["critic"].concatenate_terms = True
    cfg.episode_length_s = 0.4
    cfg.task = "a-cart"
    return cfg


def train_cfg(**fields: Any) -> RslRlOnPolicyRunnerCfg:
    """PPO with tiny networks."""
    fields = {
        "actor": RslRlModelCfg(distribution_cfg=dict(GAUSSIAN), **TINY),
        "critic": RslRlModelCfg(**TINY),
        "num_steps_per_env": 6,
        "save_interval": 2,
        **fields,
    }
    cfg = RslRlOnPolicyRunnerCfg(**fields)
    cfg.algorithm.num_learning_epochs, cfg.algorithm.num_mini_batches = 2, 2
    return cfg


def make_runner(
    folder: Path | None, env_cfg: ManagerBasedRlEnvCfg | None = None, cfg: Any = None, seed: int = 0
) -> Any:
    """A runner with its environment."""
    from mjlab_rec.rl import MjlabDistillationRunner, MjlabOnPolicyRunner, RslRlVecEnvWrapper

    cfg = cfg or train_cfg()
    cls = MjlabDistillationRunner if "Distil" in cfg.class_name else MjlabOnPolicyRunner
    torch.manual_seed(seed)
    env = RslRlVecEnvWrapper(ManagerBasedRlEnv(env_cfg or flat_cart()))
    plain = dataclasses.asdict(cfg)
    return cls(env, plain, log_dir=None if folder is None else str(folder))


def assert_same(left: Any, right: Any, path: str = "") -> None:
    """Compare nested plain data and tensors, bit for bit."""
    if isinstance(left, torch.Tensor):
        both = left.to(torch.float64), right.to(torch.float64)
        assert torch.equal(both[0].nan_to_num(7e77), both[1].nan_to_num(7e77)), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}/{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{path}/{index}")
    else:
        assert left == right, path


def training(function: Any) -> Any:
    """Mark a test that trains."""
    for warning in IGNORED:
        function = pytest.mark.filterwarnings(warning)(function)
    return function
