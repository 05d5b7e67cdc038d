"""Run a task with a zero or random agent, record it, and print the returns and the speed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mjlab_rec import cli

if TYPE_CHECKING:
    import torch

    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class PlayArgs(cli.RecordArgs):
    """Options of this script."""

    agent: Literal["zero", "random"] = "zero"
    """zero always answers 0; random draws each action uniformly from [-1, 1]."""
    steps: int = 1000
    """Number of control steps to run, in every environment."""


class Returns:
    """Adds up rewards into the returns of episodes."""

    def __init__(self, num_envs: int, device: str) -> None:
        import torch

        self.finished: list[float] = []
        self.lengths: list[int] = []
        self.running = torch.zeros(num_envs, device=device)
        self._steps = torch.zeros(num_envs, dtype=torch.long, device=device)

    def add(self, reward: torch.Tensor, done: torch.Tensor) -> None:
        """Count one step of every environment, given reward and done, both (num_envs,)."""
        self.running += reward
        self._steps += 1
        ended = done.nonzero().squeeze(-1)
        if len(ended):
            self.finished += self.running[ended].tolist()
            self.lengths += self._steps[ended].tolist()
            self.running[ended] = 0.0
            self._steps[ended] = 0


def main() -> None:
    """Parse the command line, run the task and print the summary."""
    started = time.perf_counter()
    args, env_cfg = cli.parse(PlayArgs, __doc__ or "", play=True)
    if args.steps < 1:
        cli.fail(f"--steps: {args.steps} is too few. Choose at least 1.")

    from mjlab_rec.envs import ManagerBasedRlEnv

    with cli.explained(args), ManagerBasedRlEnv(env_cfg, device=args.device) as env:
        finished = run(env, args, started)
    manager = env.recorder_manager
    cli.print_recordings({name: manager.get_term(name) for name in manager.active_terms})
    if not finished:
        raise SystemExit(130)


def run(env: ManagerBasedRlEnv, args: PlayArgs, started: float) -> bool:
    """Step the environment and print what came of it; False if Ctrl-C ended it early."""
    import torch

    console = Console()
    returns = Returns(env.num_envs, env.device)
    generator = torch.Generator(env.device).manual_seed(env.cfg.seed or 0)
    shape = env.action_manager.action.shape
    action = torch.zeros(shape, device=env.device)
    console.print(
        f"{args.task}: {env.num_envs} environments, engine {env.sim.engine_name} on {env.device}, "
        f"seed {env.cfg.seed}, {args.agent} agent",
        highlight=False,
        soft_wrap=True,
    )
    ready, steps = started, 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("steps", total=args.steps)
        try:
            env.reset()
            ready = time.perf_counter()
            while steps < args.steps:
                if args.agent == "random":
                    action = torch.rand(shape, generator=generator, device=env.device) * 2.0 - 1.0
                _, reward, terminated, truncated, _ = env.step(action)
                returns.add(reward, terminated | truncated)
                steps += 1
                progress.update(bar, completed=steps)
        except KeyboardInterrupt:
            console.print(f"Stopped by Ctrl-C after {steps} of {args.steps} steps.")
    seconds = time.perf_counter() - ready
    console.print(summary(returns, steps * env.num_envs, seconds, ready - started))
    return steps == args.steps


def summary(returns: Returns, env_steps: int, seconds: float, start_up: float) -> Table:
    """Lay out returns and speed as a table."""
    table = Table(show_header=False)
    table.add_row("Episodes finished", str(len(returns.finished)))
    if returns.finished:
        count = len(returns.finished)
        mean, low, high = (
            sum(returns.finished) / count,
            min(returns.finished),
            max(returns.finished),
        )
        table.add_row("Return, mean (lowest to highest)", f"{mean:.3f} ({low:.3f} to {high:.3f})")
        table.add_row("Length, mean", f"{sum(returns.lengths) / count:.1f} steps")
    else:
        table.add_row("Return so far, mean", f"{returns.running.mean().item():.3f}")
    table.add_row("Until the first step", f"{start_up:.2f} s")
    table.add_row("Speed", f"{env_steps / seconds:,.0f} env-steps/s")
    return table


if __name__ == "__main__":
    cli.run(main)
