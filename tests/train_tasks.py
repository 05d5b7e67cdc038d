"""Tasks for tests of ``mjlab-rec train``, which send themselves signals in the middle of a run."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

from mjlab_rec.managers import RewardTermCfg
from mjlab_rec.registry import list_tasks, load_env_cfg, register_task
from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg

SIGNAL = "TRAIN_TASKS_SIGNAL"
"""Environment variable: "KILL:20" sends SIGKILL in step 20; "KILL:20:1" in process 1 only."""


def signalled(env: Any) -> torch.Tensor:
    """A reward of 0, which may send a signal to its process."""
    name, step, rank = (*os.environ.get(SIGNAL, "").split(":"), "", "")[:3]
    here = rank in ("", os.environ.get("RANK"))
    if name and here and env.common_step_counter == int(step):
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
    return torch.zeros(env.num_envs, device=env.device)


def env_cfg() -> Any:
    """Cartpole with short episodes, and few environments."""
    cfg = load_env_cfg("cartpole-balance")
    cfg.task = None
    cfg.scene.num_envs = 8
    cfg.episode_length_s = 0.5
    cfg.rewards["signalled"] = RewardTermCfg(func=signalled, weight=1.0)
    return cfg


def rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """PPO with tiny networks."""
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
    cfg = RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg((8,), obs_normalization=True, distribution_cfg=gaussian),
        critic=RslRlModelCfg((8,), obs_normalization=True),
        num_steps_per_env=5,
        max_iterations=6,
        save_interval=2,
    )
    cfg.algorithm.num_learning_epochs = 2
    return cfg


if "train-me" not in list_tasks():
    runner = "train_tasks_runner:WeighingRunner"
    register_task("train-me", env_cfg=env_cfg, rl_cfg=rl_cfg, runner_cls=runner)
