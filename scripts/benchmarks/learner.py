"""Where the time of a training goes with RSL-RL's PPO, and with the one for CPUs."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from timeit import timeit
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.tables import sideways
from mjlab_rec import cli
from mjlab_rec.utils.threads import choose_threads, torch_threads

RSL_RL, OURS = "PPO", "mjlab_rec.rl.ppo:PPO"
PARTS = ("physics", "managers", "inference", "storage", "returns", "update", "logger", "rest")

# Methods of the runner's parts, by the share that they count towards.
_METHODS = {
    "physics": {"env.unwrapped.sim": ("step", "forward", "sense")},
    "managers": {"env": ("step",)},
    "inference": {"alg": ("act",)},
    "storage": {"alg": ("process_env_step",)},
    "returns": {"alg": ("compute_returns",)},
    "update": {"alg": ("update",)},
    "logger": {"logger": ("process_env_step", "end_iteration", "write")},
}


@dataclass(kw_only=True)
class LearnerArgs:
    """Options of `bench.py learner`."""

    task: tuple[str, ...] = ("cartpole-swingup",)
    """Tasks that have an rl_cfg."""
    num_envs: tuple[int, ...] = (64, 256, 1024)
    """Numbers of environments to measure."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of the networks' layers; none: as the task's rl_cfg says."""
    activation: str = ""
    """Activation of the networks; empty: as the task's rl_cfg says."""
    iterations: int = 5
    """Iterations of each PPO per round."""
    rounds: int = 5
    """Rounds, in which both PPOs take turns; the results are medians over them."""
    clock: Literal["wall", "cpu"] = "wall"
    """What is measured. `cpu` is the processor time of the thread that trains: on a busy machine
    it is right for all but the physics, which has threads of its own."""


def main(args: Annotated[LearnerArgs, tyro.conf.arg(name="")]) -> None:
    """Train with both PPOs in turns, and compare where their time goes."""
    if min(*args.num_envs, args.iterations, args.rounds, 1) < 1:
        cli.fail("--num-envs, --iterations and --rounds must be at least 1.")
    console = Console()
    for task in args.task:
        columns: dict[str, dict[str, str]] = {}
        for num_envs in args.num_envs:
            columns |= {f"{num_envs} {name}": row for name, row in _compare(args, task, num_envs)}
        title = f"{task}: an iteration of a training, and the shares of its parts"
        console.print(sideways(title, "environments", columns))
        console.print(sideways("torch calls", "part", _calls(args, task)))
    console.print(_cpu_table())
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def _compare(args: LearnerArgs, task: str, num_envs: int) -> list[tuple[str, dict[str, str]]]:
    """Columns of the table for this number of environments."""
    runners = {name: _make_runner(args, task, num_envs, name) for name in (RSL_RL, OURS)}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in runners}
    for _ in range(args.rounds):
        for name, runner in runners.items():
            rounds[name].append(_measure(runner, args.iterations, args.clock))
    steps = num_envs * runners[OURS].cfg["num_steps_per_env"]
    for runner in runners.values():
        runner.env.close()

    columns = []
    for name, title in ((RSL_RL, "RSL-RL"), (OURS, "ours")):
        ms = {part: 1e3 * median(found[part] for found in rounds[name]) for part in PARTS}
        total = 1e3 * median(sum(found.values()) for found in rounds[name])
        column = {"iteration (ms)": f"{total:.1f}", "env steps / s": f"{steps / total * 1e3:.0f}"}
        column |= {part: f"{ms[part]:.2f} ms {ms[part] / total:4.0%}" for part in PARTS}
        columns.append((title, column))
    pairs = list(zip(rounds[RSL_RL], rounds[OURS], strict=True))
    ratio = {"iteration (ms)": _ratio([(sum(a.values()), sum(b.values())) for a, b in pairs])}
    ratio |= {"env steps / s": ""}
    ratio |= {part: _ratio([(a[part], b[part]) for a, b in pairs]) for part in PARTS}
    return [*columns, ("ratio", ratio)]


def _calls(args: LearnerArgs, task: str) -> dict[str, dict[str, str]]:
    """Count the torch calls of each part: per step, per mini-batch, or per iteration."""
    from benchmarks.calls import Counter
    from benchmarks.parts import wrapped

    columns = {}
    for name, title in ((RSL_RL, "RSL-RL"), (OURS, "ours")):
        runner = _make_runner(args, task, 2, name)
        counter = Counter()
        with wrapped(runner, _METHODS, counter.attributing), counter:
            runner.learn(1)
        alg, steps = runner.alg, runner.cfg["num_steps_per_env"]
        batches = alg.num_learning_epochs * alg.num_mini_batches
        units = {
            "inference, per step": ("inference", steps),
            "storage, per step": ("storage", steps),
            "logger, per step": ("logger", steps),
            "returns": ("returns", 1),
            "update, per mini-batch": ("update", batches),
        }
        columns[title] = {
            row: f"{counter.found[part] / number:.0f}" for row, (part, number) in units.items()
        }
        runner.env.close()
    return columns


def _cpu_table() -> Table:
    """What activations and matrix products cost on one core of this processor."""
    import torch
    from torch.nn import functional

    from mjlab_rec.utils.matmul import WORTHWHILE, fast_float32

    table = Table("on one core", "", title="What networks are made of")
    x, weight = torch.randn(4096, 256), torch.randn(256, 256)

    def seconds(function: Callable[[], Any]) -> float:
        return min(timeit(function, number=5, timer=time.thread_time) / 5 for _ in range(5))

    with torch.no_grad(), torch_threads(1):
        for name in ("relu", "silu", "elu", "tanh"):
            function = getattr(functional, name, None) or getattr(torch, name)
            cost = seconds(lambda function=function: function(x))
            table.add_row(f"{name} (ns per element)", f"{cost / x.numel() * 1e9:.2f}")
        for name, size in (("torch's default", 0), ("fast_float32", WORTHWHILE)):
            with fast_float32(size):
                cost = seconds(lambda: x @ weight)
            speed = 2 * x.numel() * 256 / cost / 1e9
            table.add_row(f"product, {name} (GFLOP/s)", f"{speed:.0f}")
    return table


def _ratio(pairs: list[tuple[float, float]]) -> str:
    return f"{median(a / max(b, 1e-9) for a, b in pairs):.2f}"


def _make_runner(args: LearnerArgs, task: str, num_envs: int, algorithm: str) -> Any:
    """Prepare a training, and run its first iteration, which is slower."""
    import torch

    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.registry import load_env_cfg, load_rl_cfg
    from mjlab_rec.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper

    torch.manual_seed(0)
    env_cfg, cfg = load_env_cfg(task), load_rl_cfg(task)
    env_cfg.scene.num_envs = num_envs
    env_cfg.seed = 0
    cfg.algorithm.class_name = algorithm
    for network in (cfg.actor, cfg.critic):
        network.hidden_dims = args.hidden_dims or network.hidden_dims
        network.activation = args.activation or network.activation
    env = RslRlVecEnvWrapper(ManagerBasedRlEnv(env_cfg), clip_actions=cfg.clip_actions)
    runner = MjlabOnPolicyRunner(env, asdict(cfg), log_dir=None)
    runner.learn(1, init_at_random_ep_len=True)
    return runner


def _measure(runner: Any, iterations: int, clock: str) -> dict[str, float]:
    """Train for some iterations, and return the seconds of each part per iteration."""
    from benchmarks.parts import Clock, wrapped

    now = time.perf_counter if clock == "wall" else time.thread_time
    watch = Clock(lambda: None, now)
    with torch_threads(choose_threads().rollout), wrapped(runner, _METHODS, watch.timing):
        watch.timing("rest", runner.learn)(iterations)
    return {part: watch.seconds[part] / iterations for part in PARTS}
