"""Play whole episodes with a policy, and print and write what they say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from mjlab_rec import cli
from mjlab_rec.commands.agents import agent_text, maker_of
from mjlab_rec.utils.plain_data import json_text

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
    from mjlab_rec.rl.evaluate import Evaluation

_MOST_ENVS = 256


@dataclass(kw_only=True)
class EvaluateArgs(cli.RecordArgs):
    """Options of ``evaluate``."""

    agent: str = "latest"
    """latest or best: a checkpoint of the task's last training. Or the file of a checkpoint, a
    TorchScript or ONNX file, the folder of a run, zero, random, or package.module:function."""
    episodes: int = 100
    """Number of episodes. Each environment plays the same share of them, or one more."""
    json: Path | None = None
    """Write the results, with the numbers of every episode, to this JSON file."""
    log_root: str = "logs"
    """Folder of the training runs, for latest and best."""
    config: Literal["train", "play"] = "train"
    """Which cfg of the task: train, that of training; or play, its cfg for watching, if it has one,
    often without noise, pushes and time limit."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, play the episodes and print the results.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    args, env_cfg = cli.parse(EvaluateArgs, __doc__ or "", argv, prog=prog)
    if args.episodes < 1:
        cli.fail(f"--episodes must be at least 1, got {args.episodes}.")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        cli.fail(f"--json: there is no folder {args.json.absolute().parent}.")
    if args.num_envs is None:
        env_cfg.scene.num_envs = min(args.episodes, _MOST_ENVS)
    with cli.explained(args):
        run(args, env_cfg)


def run(args: EvaluateArgs, env_cfg: ManagerBasedRlEnvCfg) -> None:
    """Play the episodes, and print and write the results."""
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl.evaluate import EVALUATION_SEED, evaluate

    console = Console(highlight=False, soft_wrap=True)
    make_policy, _ = maker_of(args.agent, args.task, args.log_root)
    env = ManagerBasedRlEnv(env_cfg, device=args.device)
    recorders = {n: env.recorder_manager.get_term(n) for n in env.recorder_manager.active_terms}
    try:
        with env:
            policy = make_policy(env)
            name = agent_text(args.agent, policy)
            console.print(
                f"{args.task}: {args.episodes} episodes in {env.num_envs} environments, {name}",
                markup=False,
            )
            seed = EVALUATION_SEED if args.seed is None else args.seed
            with console.status("") as status:
                found = evaluate(
                    *(env, policy, args.episodes, seed),
                    on_step=lambda done: status.update(f"{done} of {args.episodes} episodes"),
                )
            for table in tables(found):
                console.print(table)
            if args.json is not None:
                text = json_text(results(args, env, policy, found), indent=2)
                args.json.write_text(f"{text}\n", encoding="utf-8")
                console.print(f"Wrote {args.json}", markup=False)
    finally:
        cli.print_recordings(recorders)


def results(
    args: EvaluateArgs, env: ManagerBasedRlEnv, policy: Any, found: Evaluation
) -> dict[str, Any]:
    """What goes into the JSON file."""
    return {
        "task": args.task,
        "config": args.config,
        "agent": str(getattr(policy, "path", args.agent)),
        "iteration": getattr(policy, "iteration", None),
        "num_envs": env.num_envs,
        "engine": env.sim.engine_name,
        "device": str(env.device),
        **found.summary(),
        "per_episode": found.per_episode(),
    }


def tables(found: Evaluation) -> list[Table]:
    """The results as tables: how good, how the episodes ended, and what made up the return."""
    summary = found.summary()
    main = Table("", "Mean (± 95 %)", "Std", "Lowest", "Median", "Highest")
    main.add_row("Return", *_cells(summary["return"]))
    main.add_row("Length (steps)", *_cells(summary["length_steps"]))
    for name, statistics in summary["reward_terms"].items():
        main.add_row(f"Reward {name}", *_cells(statistics))
    for name, statistics in summary["metrics"].items():
        main.add_row(f"Metric {name}", *_cells(statistics))
    ends = Table("Episodes", str(summary["episodes"]))
    if summary["success_rate"] is not None:
        ends.add_row("Succeeded", f"{summary['success_rate']:.1%}")
    for name, share in summary["terminations"].items():
        ends.add_row(f"Ended by {name}", f"{share:.1%}")
    return [main, ends]


def _cells(statistics: dict[str, Any]) -> list[str]:
    mean = statistics["mean"]
    shown = [
        statistics["std"],
        statistics["min"],
        statistics["quantiles"]["0.5"],
        statistics["max"],
    ]
    return [f"{mean:.3f} ± {statistics['ci95'][1] - mean:.3f}", *(f"{n:.3f}" for n in shown)]
