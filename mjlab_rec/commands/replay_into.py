"""Play a recording in a task, record what comes of it, and print how far it held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from mjlab_rec import cli, registry
from mjlab_rec.commands.data.progress import progress_bar
from mjlab_rec.commands.replay_policy import task_of

if TYPE_CHECKING:
    from mjlab_rec.commands.replay import ReplayArgs
    from mjlab_rec.envs import ManagerBasedRlEnv

_MOST_LINES = 20


def run(args: ReplayArgs, recorders: dict[str, Any], overrides: list[cli.Setting]) -> int:
    """Play the recording in the task."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.replay.episodes import chosen_episodes
    from mjlab_rec.replay.into_task import HELD_TOLERANCE, play_into_task

    console = Console(highlight=False, soft_wrap=True)
    made: dict[str, Any] = {}

    def opened(env: ManagerBasedRlEnv) -> None:
        manager = env.recorder_manager
        made.update({name: manager.get_term(name) for name in manager.active_terms})

    tolerance = HELD_TOLERANCE if args.tolerance is None else args.tolerance
    with open_rollouts(args.path) as rollouts, progress_bar("Playing") as progress:
        cfg: Any = registry.load_env_cfg(task_of(args, rollouts), play=args.config == "play")
        for setting in overrides:
            cli.override(cfg, setting.path, setting.words)
        cfg.recorders = recorders
        found, notes = play_into_task(
            *(rollouts, cfg),
            episodes=chosen_episodes(rollouts, args.episode, args.env),
            use=args.use,
            tolerance=tolerance,
            device=args.device or "cpu",
            progress=progress,
            opened_env=opened,
        )
    worst = sorted((e for e in found if not e.ok), key=lambda e: e.held / e.steps)
    for episode in worst[:_MOST_LINES]:
        console.print(str(episode), markup=False)
    if len(worst) > _MOST_LINES:
        console.print(f"... and {len(worst) - _MOST_LINES} more episodes.")
    for note in notes:
        console.print(note, markup=False)
    console.print(
        f"{len(found) - len(worst)} of {len(found)} episodes held to the end, with joint positions"
        f" within {tolerance:g} of the recorded ones; {sum(e.held for e in found):,} of"
        f" {sum(e.steps for e in found):,} steps.",
        markup=False,
    )
    cli.print_recordings(made)
    return 0
