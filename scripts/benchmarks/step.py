"""Time of a cartpole-balance step and of its parts, and mjlab's time for it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import peer
from benchmarks.tables import sideways
from mjlab_rec import cli

_LINEARITY = (1024, 16384)


@dataclass(kw_only=True)
class StepArgs:
    """Options of `bench.py step`."""

    num_envs: tuple[int, ...] = (1, 16, 64, 256, 1024, 4096, 16384)
    """Numbers of environments to measure."""
    engine: Literal["auto", "warp", "mjbatch"] = "auto"
    """Physics engine; auto uses warp on a GPU, and mjbatch on a CPU if it is installed."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""
    steps: int = 100
    """Steps per round."""
    rounds: int = 5
    """Rounds; the result is their median."""
    threads: int | None = None
    """Threads that torch may use on a CPU. None leaves it to torch."""
    peer_python: str | None = None
    """A Python interpreter that has mjlab. The same task is then timed in both, in alternating
    rounds."""


def main(args: Annotated[StepArgs, tyro.conf.arg(name="")]) -> None:
    """Time the step of cartpole-balance, without a policy."""
    console = Console()
    if min(*args.num_envs, args.steps, args.rounds, 1) < 1:
        cli.fail("--num-envs, --steps and --rounds must be at least 1.")
    parts_table(args, console)
    if args.peer_python is not None:
        peer_table(args, args.peer_python, console)
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def parts_table(args: StepArgs, console: Console) -> None:
    """Measure the step and its parts in this process."""
    import torch

    from benchmarks import calls, parts, side

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    on_gpu = args.device.startswith("cuda")
    times = Table(
        "envs",
        "step (ms)",
        "per env (us)",
        *parts.PARTS,
        "step / physics",
        title="cartpole-balance: time of a step, and the shares of its parts",
    )
    counts: dict[str, dict[str, str]] = {}
    extras = Table(
        "envs",
        "recording, unused",
        "new engine arrays",
        "memory growth (KiB)",
        *(["host waits per step"] if on_gpu else []),
        title=f"What else {args.steps} more steps cost",
    )
    per_env: dict[int, float] = {}
    engine = args.engine
    for count in args.num_envs:
        env = side.make_env("mjlab_rec", count, args.device, args.engine)
        engine = env.sim.engine_name
        seconds = median(side.step_time(env, args.steps) for _ in range(args.rounds))
        per_env[count] = seconds / count
        share = parts.shares(env, args.steps)
        times.add_row(
            str(count),
            f"{seconds * 1e3:.3f}",
            f"{per_env[count] * 1e6:.3f}",
            *(f"{share[part]:.0%}" for part in parts.PARTS),
            f"{1.0 / share['physics']:.2f}",
        )
        made = calls.calls(env, args.steps)
        made["all"] = sum(made.values())
        counts[str(count)] = {part: f"{number:.1f}" for part, number in made.items()}
        extras.add_row(
            str(count),
            f"{parts.null_recording_share(env, args.steps):.4%}",
            str(parts.new_engine_arrays(env, args.steps)),
            f"{parts.memory_growth(env, args.steps) / 1024:.0f}",
            *([f"{parts.host_waits(env, args.steps):.2f}"] if on_gpu else []),
        )
        env.close()
    calls_title = "torch calls per step"
    console.print(times, sideways(calls_title, "envs", counts), extras)
    console.print(f"engine {engine} on {args.device}, torch threads {torch.get_num_threads()}")
    if set(_LINEARITY) <= set(per_env):
        few, many = _LINEARITY
        console.print(
            f"time per environment at {many} / at {few}: {per_env[many] / per_env[few]:.2f}"
        )


def peer_table(args: StepArgs, peer_python: str, console: Console) -> None:
    """Measure mjlab's step and ours, each in its own process."""
    table = Table(
        "envs",
        "mjlab_rec (ms)",
        "mjlab (ms)",
        "ratio",
        "lowest to highest",
        title=f"mjlab's step time / ours, engine {args.engine}, {args.rounds} rounds",
    )
    compared = peer.compare(
        peer_python,
        args.num_envs,
        args.steps,
        args.rounds,
        args.device,
        args.engine,
        args.threads,
    )
    try:
        for count, ours, peers in compared:
            middle, low, high = peer.ratios(ours, peers)
            table.add_row(
                str(count),
                f"{median(ours) * 1e3:.3f}",
                f"{median(peers) * 1e3:.3f}",
                f"{middle:.1f}",
                f"{low:.1f} to {high:.1f}",
            )
    except (OSError, RuntimeError) as error:
        cli.fail(f"--peer-python: {error}")
    console.print(table)
