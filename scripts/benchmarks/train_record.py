"""What recording everything costs a training: both, in alternating rounds, in one process."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from mjlab_rec import cli

_ALL = ("obs", "state", "action", "reward", "terminated", "truncated", "next_obs")


@dataclass(kw_only=True)
class TrainRecordArgs:
    """Options of `bench.py train`."""

    task: str = "velocity-flat-quadruped"
    """Task to train."""
    num_envs: int = 1024
    """Number of environments."""
    iterations: int = 5
    """Iterations of the training per round."""
    rounds: int = 7
    """Rounds; the result is their median."""
    device: str = "cpu"
    """Where to simulate and to train."""
    out: Path | None = None
    """Folder on the disk to write to; what is written there is removed afterwards. None uses the
    system's folder for temporary files."""


def main(args: Annotated[TrainRecordArgs, tyro.conf.arg(name="")]) -> None:
    """Train with and without an HDF5 recorder of everything, and compare the times."""
    console = Console(soft_wrap=True)
    if min(args.num_envs, args.iterations, args.rounds) < 1:
        cli.fail("--num-envs, --iterations and --rounds must be at least 1.")
    from mjlab_rec.recorders import Hdf5RecorderCfg

    with tempfile.TemporaryDirectory(dir=args.out) as folder, ExitStack() as stack:
        path = Path(folder) / "rollout.h5"
        recorder = Hdf5RecorderCfg(path=str(path), channels=_ALL)
        plain = _training(stack, args, {})
        recorded = _training(stack, args, {"rollout": recorder})
        for training in (plain, recorded):
            training.runner.learn(1, init_at_random_ep_len=True)
        table = Table("round", "without (s)", "with (s)", "ratio", "processor time, ratio")
        ratios, loads = [], []
        for number in range(args.rounds):
            pair = [plain, recorded]
            # Whoever comes second finds the machine in another state.
            order = pair if number % 2 == 0 else pair[::-1]
            times = {id(training): _time(training, args.iterations) for training in order}
            (wall, cpu), (wall_with, cpu_with) = times[id(plain)], times[id(recorded)]
            ratios.append(wall_with / wall)
            loads.append(cpu_with / cpu)
            table.add_row(
                str(number),
                f"{wall:.3f}",
                f"{wall_with:.3f}",
                f"{ratios[-1]:.3f}",
                f"{loads[-1]:.3f}",
            )
        recorded.env.close()
        size = sum(file.stat().st_size for file in path.parent.iterdir())
    console.print(table)
    console.print(
        f"{args.task}, {args.num_envs} environments, {os.cpu_count()} processors: with the recorder"
        f" {median(ratios):.3f} of the time ({min(ratios):.3f} to {max(ratios):.3f}),"
        f" {median(loads):.3f} of the processor time; {size / 1e6:,.0f} MB written",
        highlight=False,
    )
    console.print(f"Again: python {shlex.join(sys.argv)}", markup=False)


def _training(stack: ExitStack, args: TrainRecordArgs, recorders: dict[str, Any]) -> Any:
    from mjlab_rec import registry
    from mjlab_rec.rl.config import default_runner_cfg
    from mjlab_rec.rl.training import prepared

    env_cfg = registry.load_env_cfg(args.task)
    env_cfg.scene.num_envs = args.num_envs
    env_cfg.recorders = recorders
    has_cfg = registry.task_spec(args.task).rl_cfg is not None
    agent = registry.load_rl_cfg(args.task) if has_cfg else None
    agent = agent or default_runner_cfg(env_cfg.observations)
    return stack.enter_context(prepared(env_cfg, agent, run=None, device=args.device))


def _time(training: Any, iterations: int) -> tuple[float, float]:
    """Seconds, and seconds of all processors together."""
    wall, cpu = time.perf_counter(), time.process_time()
    training.runner.learn(iterations)
    return time.perf_counter() - wall, time.process_time() - cpu
