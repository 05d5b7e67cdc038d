"""How long a task takes to be solved: seconds, environment steps and processor time, per seed.

Policies are evaluated at intervals, without noise, in environments with other seeds. The clocks
stand still meanwhile.
"""

from __future__ import annotations

import csv
import shlex
import sys
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from mjlab_rec import cli
from mjlab_rec.utils.extras import require

_HELD_OUT = 1_000_000  # Added to the seed of a run for its evaluation.


@dataclass(kw_only=True)
class SolveArgs:
    """Options of `bench.py solve`."""

    task: str = "cartpole-balance"
    """A task that has an rl_cfg."""
    measure: Literal["return", "success"] = "return"
    """What is evaluated: returns, in rewards per control step, or which share succeeds."""
    target: float = 950.0
    """Mean return, or share of episodes, at which the task counts as solved."""
    limit_s: float = 60.0
    """Seconds of training after which a run gives up; evaluations do not count."""
    limit_env_steps: int | None = None
    """Steps of all environments after which it gives up."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of the runs."""
    num_envs: int = 64
    """Environments that are trained in."""
    episodes: int = 100
    """Episodes of an evaluation."""
    every: int = 100_000
    """Steps of all environments between two evaluations."""
    algorithm: str = ""
    """Class of the algorithm, such as PPO for RSL-RL's own; empty: as the task's rl_cfg says."""
    keep_on: bool = False
    """Train until the limit also after the target."""
    path: Path = Path("time_to_solve")
    """Folder of the curves: TASK.csv and TASK.png."""


@dataclass(kw_only=True)
class Point:
    """A policy of a run."""

    seed: int
    env_steps: int
    seconds: float
    cpu_seconds: float
    """Processor time of all threads."""
    mean: float
    """Mean return of the episodes, or the share that succeeded."""
    std: float
    lowest: float


@dataclass
class Watch:
    """Seconds that have passed while it ran, on the wall and of the processor."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    _since: tuple[float, float] = field(default=(0.0, 0.0))

    def start(self) -> None:
        """Run."""
        self._since = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Stand still."""
        self.seconds += time.perf_counter() - self._since[0]
        self.cpu_seconds += time.process_time() - self._since[1]


def main(args: Annotated[SolveArgs, tyro.conf.arg(name="")]) -> None:
    """Train a task with some seeds until it is solved, and draw the curves."""
    if not args.seeds or min(args.num_envs, args.episodes, args.every) < 1:
        cli.fail("--num-envs, --episodes and --every must be at least 1, and --seeds not empty.")
    console = Console()
    runs = [train(args, seed, console) for seed in args.seeds]
    args.path.mkdir(parents=True, exist_ok=True)
    _write_csv(args.path / f"{args.task}.csv", [point for run in runs for point in run])
    _draw(args, args.path / f"{args.task}.png", runs)
    console.print(_table(args, runs))
    console.print(f"Curves: {args.path / args.task}.csv, {args.path / args.task}.png")
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def train(args: SolveArgs, seed: int, console: Console) -> list[Point]:
    """Train with a seed until the task is solved or the limit is reached."""
    import torch

    from mjlab_rec.registry import load_rl_cfg
    from mjlab_rec.rl import MjlabOnPolicyRunner
    from mjlab_rec.utils.threads import choose_threads, torch_threads

    torch.manual_seed(seed)
    cfg = load_rl_cfg(args.task)
    cfg.algorithm.class_name = args.algorithm or cfg.algorithm.class_name
    env = _make_env(args, args.num_envs, seed, cfg.clip_actions)
    held_out = _make_env(args, args.episodes, seed + _HELD_OUT, cfg.clip_actions)
    runner: Any = MjlabOnPolicyRunner(env, asdict(cfg), log_dir=None)
    watch, points = Watch(), []

    def look(iteration: Any) -> None:
        due = (len(points) + 1) * args.every
        steps = (iteration.number + 1) * iteration.env_steps
        if steps < due and not _is_over(args, steps, watch.seconds):
            return
        watch.stop()
        values = _evaluate(args, runner.alg.get_policy(), held_out)
        point = Point(
            seed=seed,
            env_steps=steps,
            seconds=watch.seconds,
            cpu_seconds=watch.cpu_seconds,
            mean=float(values.mean()),
            std=float(values.std()),
            lowest=float(values.min()),
        )
        points.append(point)
        console.print(
            f"seed {seed}: {steps / 1e6:.2f} M env steps, {point.seconds:.1f} s,"
            f" processor {point.cpu_seconds:.1f} s: {args.measure} {point.mean:{_digits(args)}}"
            f" +- {point.std:{_digits(args)}}"
        )
        watch.start()

    def is_done() -> bool:
        if not points:
            return False
        last = points[-1]
        solved = last.mean >= args.target and not args.keep_on
        return solved or _is_over(args, last.env_steps, last.seconds)

    runner.on_iteration, runner.should_stop = look, is_done
    with torch_threads(choose_threads().rollout):
        watch.start()
        runner.learn(1_000_000_000, init_at_random_ep_len=True)
    env.close()
    held_out.close()
    return points


def _is_over(args: SolveArgs, env_steps: int, seconds: float) -> bool:
    most = args.limit_env_steps
    return seconds >= args.limit_s or (most is not None and env_steps >= most)


def _make_env(args: SolveArgs, num_envs: int, seed: int, clip_actions: float | None) -> Any:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.registry import load_env_cfg
    from mjlab_rec.rl import RslRlVecEnvWrapper

    cfg = load_env_cfg(args.task)
    cfg.scene.num_envs = num_envs
    cfg.seed = seed
    return RslRlVecEnvWrapper(ManagerBasedRlEnv(cfg), clip_actions=clip_actions)


def _digits(args: SolveArgs) -> str:
    return ".0f" if args.measure == "return" else ".2f"


def _evaluate(args: SolveArgs, policy: Any, env: Any) -> Any:
    """Return the returns of whole episodes, always the same ones, or 1 for each that succeeds."""
    from mjlab_rec.rl.evaluate import evaluate

    # A copy, because recurrent policies remember the episodes that they train in.
    policy = deepcopy(policy).eval()
    bound = env.clip_actions or float("inf")
    result = evaluate(
        env.unwrapped,
        lambda obs: policy(obs).clamp(-bound, bound),
        episodes=args.episodes,
        seed=env.cfg.seed,
    )
    if args.measure == "success":
        if result.success is None:
            cli.fail(f"{args.task} does not say what success is. Use --measure return.")
        return result.success.astype(float)
    return result.returns / (env.unwrapped.step_dt if env.cfg.scale_rewards_by_dt else 1.0)


def _write_csv(path: Path, points: list[Point]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(points[0])))
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)


def _draw(args: SolveArgs, path: Path, runs: list[list[Point]]) -> None:
    figures: Any = require("matplotlib.figure", "plot", "bench.py solve")
    figure = figures.Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, unit, x in (
        (axes[0], "seconds of training", lambda point: point.seconds),
        (axes[1], "million environment steps", lambda point: point.env_steps / 1e6),
    ):
        for run in runs:
            axis.plot([x(p) for p in run], [p.mean for p in run], label=f"seed {run[0].seed}")
        axis.axhline(args.target, color="grey", linestyle=":")
        axis.set_xlabel(unit)
        axis.grid(alpha=0.3)
    what = "mean return" if args.measure == "return" else "success"
    axes[0].set_ylabel(f"{what} of {args.episodes} episodes")
    axes[0].legend()
    figure.suptitle(f"{args.task}, {args.num_envs} environments")
    figure.savefig(path, dpi=120)


def _table(args: SolveArgs, runs: list[list[Point]]) -> Table:
    what = "the mean return" if args.measure == "return" else "the share of successes"
    title = f"{args.task}: until {what} is {args.target:g}, limit {args.limit_s:g} s"
    table = Table("seed", "seconds", "processor (s)", "million env steps", "best", title=title)
    solved = []
    for run in runs:
        best = max(run, key=lambda point: point.mean)
        first = next((point for point in run if point.mean >= args.target), None)
        numbers = ["not solved", "", ""]
        if first is not None:
            solved.append(first)
            numbers = [f"{first.seconds:.1f}", f"{first.cpu_seconds:.1f}"]
            numbers.append(f"{first.env_steps / 1e6:.2f}")
        table.add_row(str(run[0].seed), *numbers, f"{best.mean:{_digits(args)}}")
    if len(solved) == len(runs):
        table.add_row(
            "median",
            f"{median(point.seconds for point in solved):.1f}",
            f"{median(point.cpu_seconds for point in solved):.1f}",
            f"{median(point.env_steps for point in solved) / 1e6:.2f}",
            "",
        )
    return table
