"""Random actions for a long time: the velocity tasks stay finite on every kind of ground.

python scripts/benchmarks/velocity_random.py --task velocity-rough-quadruped
"""

from __future__ import annotations

import time

import torch
import tyro
from rich.console import Console
from rich.table import Table

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg


def main(
    task: tuple[str, ...] = ("velocity-flat-quadruped", "velocity-rough-quadruped"),
    num_envs: int = 64,
    steps: int = 10_000,
    spread: float = 1.0,
    num_threads: int = 1,
    seed: int = 0,
) -> None:
    """Print what happened in each task.

    Args:
        task: The tasks.
        num_envs: Environments.
        steps: Control steps.
        spread: Standard deviation of the actions.
        num_threads: Threads of the physics.
        seed: Seed of environments and actions.
    """
    torch.set_num_threads(1)
    table = Table(title=f"{steps} steps of {num_envs} environments under random actions")
    table.add_column("task", no_wrap=True)
    for column in ("not finite", "diverged", "episodes", "falls", "kinds of ground", "seconds"):
        table.add_column(column, justify="right")
    for name in task:
        table.add_row(name, *_run(name, num_envs, steps, spread, num_threads, seed))
    Console(width=100).print(table)


def _run(
    task: str, num_envs: int, steps: int, spread: float, num_threads: int, seed: int
) -> list[str]:
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed, cfg.sim.num_threads = num_envs, seed, num_threads
    random = torch.Generator().manual_seed(seed)
    with ManagerBasedRlEnv(cfg, device="cpu") as env:
        env.reset()
        bad = falls = episodes = 0
        kinds: set[int] = set()
        start = time.process_time()
        shape = (num_envs, env.action_manager.total_action_dim)
        for _ in range(steps):
            action = spread * torch.randn(shape, generator=random)
            obs, reward, terminated, truncated, _ = env.step(action)
            groups = [group for group in obs.values() if isinstance(group, torch.Tensor)]
            bad += sum(int((~part.isfinite()).sum()) for part in (reward, *groups))
            falls += int(terminated.sum())
            episodes += int((terminated | truncated).sum())
            if env.scene.terrain is not None:
                kinds.update(env.scene.terrain.terrain_types.tolist())
        diverged = int(env.sim.health()[0])
        seconds = time.process_time() - start
    return [str(n) for n in (bad, diverged, episodes, falls, len(kinds), round(seconds))]


if __name__ == "__main__":
    tyro.cli(main)
