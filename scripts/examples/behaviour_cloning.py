"""Learn a policy from a recording, by copying its actions (behaviour cloning).

Record an expert, then let a network repeat what it did::

    mjlab-rec play --task cartpole-balance --agent my_policies:lean_against --num-envs 16 \\
        --record hdf5 --record.path expert.h5
    python scripts/examples/behaviour_cloning.py --recording expert.h5
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import nn

from mjlab_rec.data import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg


@dataclass(kw_only=True)
class Args:
    """Options of behaviour cloning."""

    recording: Path
    """What the expert did: a recording in any format, with the channels of --observation and
    action."""
    task: str | None = None
    """Task to try the clone in. By default that of the recording."""
    observation: str = "obs/actor"
    """The channel that the clone sees."""
    updates: int = 3000
    """Gradient steps."""
    batch_size: int = 256
    """Rows per gradient step."""
    learning_rate: float = 1e-3
    """Learning rate at the beginning; it falls to 0."""
    hidden: int = 128
    """Width of the two hidden layers."""
    num_envs: int = 64
    """Environments to try the clone in, for an episode each."""
    seed: int = 0
    """Seed of the network, of the order of rows, and of the environments."""


class Clone(nn.Module):
    """A network that gives an action for an observation; knows their means and spreads."""

    obs_mean: torch.Tensor
    obs_std: torch.Tensor
    action_mean: torch.Tensor
    action_std: torch.Tensor

    def __init__(self, obs: np.ndarray, action: np.ndarray, hidden: int) -> None:
        super().__init__()
        for name, rows in (("obs", obs), ("action", action)):
            mean, std = rows.mean(axis=0), rows.std(axis=0)
            # What hardly varied in the recording must not get a large factor.
            self.register_buffer(f"{name}_mean", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer(
                f"{name}_std", torch.tensor(std, dtype=torch.float32).clamp(min=1e-4)
            )
        self.layers = nn.Sequential(
            *(nn.Linear(obs.shape[1], hidden), nn.ELU()),
            *(nn.Linear(hidden, hidden), nn.ELU()),
            nn.Linear(hidden, action.shape[1]),
        )

    def scaled(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the action in units of its spread, which the loss compares."""
        return self.layers((obs - self.obs_mean) / self.obs_std)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the action."""
        return self.action_mean + self.action_std * self.scaled(obs)


def learn(args: Args, console: Console) -> tuple[Clone, float, str]:
    """Return the clone, the expert's mean return, and the recording's task."""
    torch.manual_seed(args.seed)
    channels = [args.observation, "action"]
    with open_rollouts(args.recording) as rollouts:
        table = rollouts.episodes
        whole = table.filter(table["terminated"] | table["truncated"])
        expert = float(np.mean(whole["return"].to_numpy())) if len(whole) else float("nan")
        console.print(f"Expert: {len(table)} episodes, {rollouts.rows} rows")
        obs, action = (rollouts.arrays(name) for name in channels)
        clone = Clone(obs, action, args.hidden)
        optimizer = torch.optim.Adam(clone.parameters(), args.learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, args.updates)
        batches = rollouts.transitions(args.batch_size, channels, seed=args.seed)
        update = 0
        while update < args.updates:
            for batch in batches:
                target = (batch["action"] - clone.action_mean) / clone.action_std
                loss = (clone.scaled(batch[args.observation]) - target).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                update += 1
                if update % max(1, args.updates // 5) == 0:
                    console.print(f"Update {update}: loss {loss.item():.5f}")
                if update == args.updates:
                    break
        return clone, expert, rollouts.info.about["task"]


@torch.no_grad()
def evaluate(clone: Clone, task: str, args: Args) -> float:
    """Return the mean return of an episode in each environment."""
    cfg = load_env_cfg(task)
    cfg.scene.num_envs = args.num_envs
    group = args.observation.removeprefix("obs/")
    with ManagerBasedRlEnv(cfg) as env:
        obs, _ = env.reset(seed=args.seed)
        returns = torch.zeros(env.num_envs, device=env.device)
        running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        clone.to(env.device)
        while running.any():
            obs, reward, terminated, truncated, _ = env.step(clone(obs[group]))
            returns += reward * running
            running &= ~(terminated | truncated)
        return returns.mean().item()


def main(args: Args) -> tuple[float, float]:
    """Learn and try a clone; returns the expert's and the clone's mean return."""
    console = Console()
    clone, expert, task = learn(args, console)
    copied = evaluate(clone, args.task or task, args)
    console.print(f"Return of the expert {expert:.2f}, of its clone {copied:.2f}")
    return expert, copied


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
