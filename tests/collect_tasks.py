"""A plan, and a task that can kill its process in a shard, for tests of ``mjlab-rec collect``."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from waiting import until

from mjlab_rec.collecting.plan import Plan
from mjlab_rec.managers import RewardTermCfg, TerminationTermCfg
from mjlab_rec.registry import list_tasks, load_env_cfg, register_task

KILL = "COLLECT_TASKS_KILL"
"""Environment variable: a folder with files. The process is killed once in the shard whose seed
is the name of a file, at the step that the file contains; each time if "always" follows, or once
the file exists whose path follows."""


def killed(env: Any) -> torch.Tensor:
    """A reward of 0, which may kill its process."""
    order = Path(os.environ.get(KILL, "/nowhere")) / str(env.cfg.seed)
    if order.is_file():
        step, *rest = order.read_text().split()
        if env.common_step_counter == int(step):
            if rest != ["always"]:
                order.unlink()
                for path in rest:
                    until(Path(path).exists)
            os.kill(os.getpid(), signal.SIGKILL)
    return torch.zeros(env.num_envs, device=env.device)


def by_chance(env: Any) -> torch.Tensor:
    """Ends episodes after few or many steps, as the velocity of the cart has it."""
    return (env.scene["cartpole"].data.joint_vel[:, 0].abs() * 1000.0) % 1.0 < 0.15


def env_cfg() -> Any:
    """Cartpole with episodes of at most 20 steps."""
    cfg = load_env_cfg("cartpole-balance")
    cfg.task = None
    cfg.episode_length_s = 1.0
    cfg.rewards["killed"] = RewardTermCfg(func=killed, weight=1.0)
    cfg.terminations["by_chance"] = TerminationTermCfg(func=by_chance)
    return cfg


def a_plan(**fields: Any) -> Plan:
    """A plan of nothing that exists."""
    about = dict(task="t", agent="zero", policy_hash="", seed=1, device="cpu", versions={})
    return Plan(**{**about, "env_cfg": {}, "recorder": {}, "sources": {}, **fields})


if "collect-me" not in list_tasks():
    register_task("collect-me", env_cfg=env_cfg)
