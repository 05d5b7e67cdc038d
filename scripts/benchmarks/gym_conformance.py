"""Largest differences between tasks/gym and Gymnasium's environments, step by step."""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from mjlab_rec import cli
from mjlab_rec.registry import list_tasks

if TYPE_CHECKING:
    from benchmarks.gym_lockstep import Differences

_CLOSE = 1e-5


@dataclass(kw_only=True)
class ConformanceArgs:
    """Options of `bench.py conformance`."""

    tasks: tuple[str, ...] = ()
    """Tasks to compare; all of tasks/gym if none is given."""
    num_envs: int = 16
    """Environments on each side."""
    steps: int = 1000
    """Steps of each environment."""
    engine: Literal["mjbatch", "warp"] = "mjbatch"
    """Physics engine; Gymnasium's is C MuJoCo, as in mjbatch."""
    free: bool = True
    """Also let both sides go on from the same start, without restarts of ours from theirs."""
    seed: int = 0
    """Seed of both sides and of the actions."""


def main(args: Annotated[ConformanceArgs, tyro.conf.arg(name="")]) -> None:
    """Step the Gymnasium tasks and gymnasium.make(...), with the same actions."""
    import torch

    from benchmarks.gym_lockstep import Lockstep

    if min(args.num_envs, args.steps) < 1:
        cli.fail("--num-envs and --steps must be at least 1.")
    known = [task for task in list_tasks() if task.startswith("gym-")]
    if unknown := sorted(set(args.tasks) - set(known)):
        cli.fail(f"These are no Gymnasium tasks: {', '.join(unknown)}. Known: {', '.join(known)}.")
    torch.set_num_threads(1)
    logging.getLogger("mjlab_rec").setLevel(logging.WARNING)
    console = Console()
    restarted: dict[str, Differences] = {}
    free: dict[str, Differences] = {}
    progress = Console(stderr=True)
    for task in track(args.tasks or known, "Comparing", console=progress, transient=True):
        for found, restart in ((restarted, True), (free, False)):
            if restart or args.free:
                with Lockstep(task, args.num_envs, args.engine, args.seed) as pair:
                    found[task] = pair.run(args.steps, restart)

    size = f"{args.steps} steps x {args.num_envs} environments, engine {args.engine}"
    table = Table(_task(), "episodes", "obs", "reward", "terms", "metrics", "wrong ends")
    table.title = f"Each step from Gymnasium's state: {size}"
    for task, found in restarted.items():
        table.add_row(task.removeprefix("gym-"), *_row(found))
    console.print(table)
    terms = Table(_task(), "term of the reward", "difference", title="Terms of the reward")
    for task, found in restarted.items():
        for name, value in found.group("terms").items():
            terms.add_row(task.removeprefix("gym-"), name, f"{value:.0e}")
    console.print(terms)
    if args.free:
        table = Table(_task(), "obs", "reward", "wrong ends", f"above {_CLOSE:g} from step")
        table.title = f"Each episode from Gymnasium's start: {size}"
        for task, found in free.items():
            above = [i for i, gap in enumerate(found.obs_by_step) if gap > _CLOSE]
            table.add_row(
                task.removeprefix("gym-"),
                *(f"{found.worst(kind):.0e}" for kind in ("obs", "reward")),
                str(found.endings),
                str(above[0]) if above else "none",
            )
        console.print(table)
    console.print("A difference is |ours - theirs| / max(1, |theirs|), the largest of all.")
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def _task() -> Column:
    return Column("task", no_wrap=True)


def _row(found: Differences) -> list[str]:
    kinds = ("obs", "reward", "terms", "metrics")
    return [
        str(found.episodes),
        *(f"{found.worst(kind):.0e}" if found.group(kind) else "" for kind in kinds),
        str(found.endings),
    ]
