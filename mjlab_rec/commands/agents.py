"""The policies of the commands that run one, by name or from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mjlab_rec import registry

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl.policies import Policy


def maker_of(
    agent: str, task_id: str, log_root: str
) -> tuple[Callable[[ManagerBasedRlEnv], Policy], Path | None]:
    """Return what makes the policy of ``--agent`` for an environment, and its file if it has one.

    Args:
        agent: zero, random, package.module:function, latest, best, a file or a run's folder.
        task_id: Id of the task.
        log_root: Folder of all experiments.
    """
    from mjlab_rec.rl.agents import agent_maker

    has_cfg = registry.task_spec(task_id).rl_cfg is not None
    rl_cfg = registry.load_rl_cfg(task_id) if has_cfg else None
    return agent_maker(agent, task_id, rl_cfg, log_root)


def agent_text(name: str, policy: Any) -> str:
    """What plays, in a few words: a file with its training iteration, or the name."""
    from mjlab_rec.rl.agents import Agent

    if not isinstance(policy, Agent):
        return f"{name} agent"
    iteration = "" if policy.iteration is None else f" (iteration {policy.iteration})"
    return f"agent {policy.path}{iteration}"
