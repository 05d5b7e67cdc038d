"""Compare a policy's answers with recorded actions, and print the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mjlab_rec import cli, registry
from mjlab_rec.commands.agents import agent_text, maker_of
from mjlab_rec.commands.data.progress import progress_bar

if TYPE_CHECKING:
    from mjlab_rec.commands.replay import ReplayArgs
    from mjlab_rec.data.rollouts import Rollouts

_MOST_ENVS = 64
_MOST_LINES = 20


def run(args: ReplayArgs) -> int:
    """Compare the policy; returns 1 if an action differs."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.replay.episodes import chosen_episodes
    from mjlab_rec.replay.policies import POLICY_TOLERANCE, compare_policy

    console = Console(highlight=False, soft_wrap=True)
    tolerance = POLICY_TOLERANCE if args.tolerance is None else args.tolerance
    with open_rollouts(args.path) as rollouts:
        chosen = chosen_episodes(rollouts, args.episode, args.env)
        task = task_of(args, rollouts)
        make_policy, _ = maker_of(args.policy or "", task, args.log_root)
        cfg: Any = registry.load_env_cfg(task, play=args.config == "play")
        cfg.scene.num_envs = min(len(chosen), _MOST_ENVS)
        cfg.recorders = {}
        with ManagerBasedRlEnv(cfg, device=args.device or "auto") as env:
            env.reset()
            policy = make_policy(env)
            with progress_bar("Comparing") as progress:
                found = compare_policy(
                    *(rollouts, policy),
                    num_envs=env.num_envs,
                    device=env.device,
                    episodes=chosen,
                    tolerance=tolerance,
                    progress=progress,
                )
            name = agent_text(args.policy or "", policy)
    for episode in found.episodes[:_MOST_LINES]:
        console.print(str(episode), markup=False)
    if len(found.episodes) > _MOST_LINES:
        console.print(f"... and {len(found.episodes) - _MOST_LINES} more episodes.")
    bad = sum(episode.first is not None for episode in found.episodes)
    console.print(
        f"{name}: mean difference {found.mean:.3g}, largest {found.most:.3g}. {bad} of"
        f" {len(found.episodes)} episodes have actions that differ by more than {tolerance:g}.",
        markup=False,
    )
    return 0 if found.ok else 1


def task_of(args: ReplayArgs, rollouts: Rollouts) -> str:
    """Id of the task: that of the options, or that of the recording."""
    return task_named(args.task, args.task_module, rollouts.info.about)


def task_named(task: str | None, modules: Sequence[str], about: Mapping[str, Any]) -> str:
    """Id of the task that was given, or else of a recording's; end the command if there is none.

    Args:
        task: The task that was given.
        modules: Modules to import first.
        about: What the recording says about itself.
    """
    cli.import_task_modules(modules)
    name = task or about.get("task")
    if not isinstance(name, str):
        cli.fail("The recording does not say its task. Give it with --task.")
    try:
        registry.task_spec(name)
    except registry.UnknownTaskError as error:
        cli.fail(f"{error} Give the task with --task, and modules of tasks with --task-module.")
    return name
