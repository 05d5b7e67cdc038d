"""Env-steps per second of Gymnasium's MuJoCo tasks: here, in Gymnasium, and in EnvPool."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.peer import Side
from mjlab_rec import cli

_SIDE = Path(__file__).with_name("gym_side.py")
OURS, NUMPY = "mjlab_rec", "mjlab_rec, numpy"
SYNC, ASYNC, ENVPOOL = "Gymnasium sync", "Gymnasium async", "EnvPool"


@dataclass(kw_only=True)
class GymArgs:
    """Options of `bench.py gym`."""

    tasks: tuple[str, ...] = ("gym-hopper", "gym-half-cheetah", "gym-ant")
    """Tasks to measure."""
    num_envs: tuple[int, ...] = (1, 16, 64, 256, 1024)
    """Numbers of environments to measure."""
    seconds: float = 1.0
    """Length of a round."""
    rounds: int = 5
    """Rounds of each way in turn; the result is their median."""
    threads: int = 1
    """Threads of torch; the physics takes its own."""
    most_processes: int = 64
    """Gymnasium's asynchronous environments are a process each: with more than this many they are
    left out."""
    envpool_python: str | None = None
    """A Python interpreter that has EnvPool 1.2 or newer."""


def main(args: Annotated[GymArgs, tyro.conf.arg(name="")]) -> None:
    """Compare tasks of Gymnasium, stepped with random actions, with its own and EnvPool's."""
    if min(*args.num_envs, args.rounds, args.threads) < 1 or not args.seconds > 0.0:
        cli.fail("--num-envs, --seconds, --rounds and --threads must be above 0.")
    console = Console()
    pythons = {way: sys.executable for way in (OURS, NUMPY, SYNC, ASYNC)}
    if args.envpool_python is not None:
        pythons[ENVPOOL] = args.envpool_python
    for task in args.tasks:
        table = Table("envs", title=f"{task}: env-steps/s, and how many times that of others")
        for way in pythons:
            table.add_column(way, justify="right")
        for count in args.num_envs:
            try:
                speeds = measure(args, task, count, pythons)
            except (OSError, RuntimeError) as error:
                cli.fail(f"{task} with {count} environments: {error}")
            table.add_row(str(count), *(cell(speeds, way) for way in pythons))
        console.print(table)
        profile(args, task, console)
    console.print(f"torch threads {args.threads}, {args.rounds} rounds of {args.seconds} s in turn")
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def measure(
    args: GymArgs, task: str, count: int, pythons: dict[str, str]
) -> dict[str, list[float]]:
    """Return the speeds of the rounds of each way, one of each in turn."""
    ways = [way for way in pythons if way != ASYNC or count <= args.most_processes]
    sides = {way: Side(pythons[way], way, _SIDE) for way in ways}
    try:
        for way, side in sides.items():
            make = {"way": way, "task": task, "num_envs": count}
            side.ask(make=make, threads=args.threads)
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.rounds):
            for way, side in sides.items():
                speeds[way].append(side.ask(seconds=args.seconds))
        return speeds
    finally:
        for side in sides.values():
            side.close()


def cell(speeds: dict[str, list[float]], way: str) -> str:
    """Return a way's speed; for others also ours as a multiple of it, from the same rounds."""
    if way not in speeds:
        return "-"
    text = f"{median(speeds[way]):,.0f}"
    if way == OURS:
        return text
    times = [ours / other for ours, other in zip(speeds[OURS], speeds[way], strict=True)]
    return f"{text} ({median(times):.1f}x)"


def profile(args: GymArgs, task: str, console: Console) -> None:
    """Show which shares of our step are physics and managers, and how many torch calls it makes."""
    import torch

    from benchmarks import calls, parts
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.registry import load_env_cfg

    torch.set_num_threads(args.threads)
    table = Table("envs", *parts.PARTS, "torch calls", title=f"{task}: shares of a step")
    for count in args.num_envs:
        cfg = load_env_cfg(task)
        cfg.scene.num_envs = count
        with ManagerBasedRlEnv(cfg, device="cpu") as env:
            env.reset()
            steps = max(20, 500 // count)
            share = parts.shares(env, steps)
            made = sum(calls.calls(env, 20).values())
        table.add_row(str(count), *(f"{share[part]:.0%}" for part in parts.PARTS), f"{made:.0f}")
    console.print(table)
