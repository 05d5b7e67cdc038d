"""Proximal policy optimization in one file, on Gymnasium's interface for vector environments.

Nothing here is specific to this package but the task's id: a file to copy and change::

    python scripts/examples/ppo.py --env-id mjlab_rec/cartpole-balance-v0
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode
from rich.console import Console
from torch import nn
from torch.distributions import Normal

import mjlab_rec  # noqa: F401  Makes the ids known to Gymnasium.


@dataclass(kw_only=True)
class Args:
    """Options of the training."""

    env_id: str = "mjlab_rec/cartpole-balance-v0"
    """The task's id at Gymnasium."""
    group: str = "actor"
    """Group of observations that policy and critic see, if the task has groups."""
    total_steps: int = 500_000
    """Steps of all environments together."""
    num_envs: int = 64
    """Environments that are stepped together."""
    num_steps: int = 32
    """Steps of each environment between two updates."""
    learning_rate: float = 3e-3
    """Learning rate at the beginning; it falls to 0."""
    gamma: float = 0.99
    """Discount of a step."""
    lam: float = 0.95
    """Weight of longer returns in the advantages."""
    epochs: int = 5
    """Passes over the steps in an update."""
    num_minibatches: int = 4
    """Batches of a pass."""
    clip: float = 0.2
    """Greatest change of the probability ratio that is rewarded."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    hidden: int = 64
    """Width of the two hidden layers."""
    seed: int = 0
    """Seed of everything."""
    threads: int = 1
    """Threads of torch: small networks get slower with more."""


class Agent(nn.Module):
    """Policy and critic, and the mean and variance of what they have seen."""

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor
    middle: torch.Tensor
    reach: torch.Tensor

    def __init__(self, space: gymnasium.spaces.Box, num_obs: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_obs))
        self.register_buffer("var", torch.ones(num_obs))
        self.register_buffer("count", torch.tensor(1e-4))
        num_actions = space.shape[0]
        self.actor = _network(num_obs, hidden, num_actions, 0.01)
        self.critic = _network(num_obs, hidden, 1, 1.0)
        # The policy speaks in units of half the range, from its middle; without bounds, in ones.
        low, high = (torch.from_numpy(bound) for bound in (space.low, space.high))
        finite = low.isfinite() & high.isfinite()
        self.register_buffer("middle", ((low + high) / 2).where(finite, 0.0))
        self.register_buffer("reach", ((high - low) / 2).where(finite, 1.0))
        self.log_std = nn.Parameter(torch.full((num_actions,), -0.5))

    def normalize(self, obs: torch.Tensor) -> torch.Tensor:
        """Return observations in units of their spread."""
        return ((obs - self.mean) / (self.var + 1e-8).sqrt()).clamp(-10.0, 10.0)

    def learn_spread(self, obs: torch.Tensor) -> None:
        """Add observations, (n, num_obs), to the mean and variance."""
        total = self.count + len(obs)
        delta = obs.mean(dim=0) - self.mean
        squares = self.var * self.count + obs.var(dim=0, correction=0) * len(obs)
        self.var.copy_((squares + delta.square() * self.count * len(obs) / total) / total)
        self.mean.add_(delta * len(obs) / total)
        self.count.copy_(total)

    def policy(self, obs: torch.Tensor) -> Normal:
        """Return the distribution of the actions, for normalized observations."""
        return Normal(self.actor(obs), self.log_std.exp())

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the expected return, for normalized observations."""
        return self.critic(obs).squeeze(-1)

    def act(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the best known action, for observations as they are."""
        return self.middle + self.reach * self.actor(self.normalize(obs))


def _network(inputs: int, hidden: int, outputs: int, gain: float) -> nn.Sequential:
    first, second = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
    last = nn.Linear(hidden, outputs)
    for layer, scale in ((first, 2**0.5), (second, 2**0.5), (last, gain)):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)


def train(args: Args, console: Console) -> tuple[Agent, list[float]]:
    """Return the trained agent, and the mean return of the episodes that ended in each update."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    envs = gymnasium.make_vec(args.env_id, num_envs=args.num_envs, numpy=True)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP

    def seen(obs: Any) -> torch.Tensor:
        obs = obs[args.group] if isinstance(obs, dict) else obs
        return torch.from_numpy(np.asarray(obs, dtype=np.float32))

    space = envs.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    obs = seen(envs.reset(seed=args.seed)[0])
    agent = Agent(space, obs.shape[1], args.hidden)
    optimizer = torch.optim.Adam(agent.parameters(), args.learning_rate, eps=1e-5)
    shape = args.num_steps, args.num_envs
    updates = args.total_steps // (args.num_steps * args.num_envs)
    means: list[float] = []
    began = time.perf_counter()
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1.0 - update / updates)
        rows, actions, log_probs = [], [], []
        values, rewards, ends = torch.zeros(3, *shape)
        returns: list[float] = []
        for step in range(args.num_steps):
            agent.learn_spread(obs)
            with torch.no_grad():
                row = agent.normalize(obs)
                policy = agent.policy(row)
                action = policy.sample()
                values[step] = agent.value(row)
            rows.append(row)
            actions.append(action)
            log_probs.append(policy.log_prob(action).sum(dim=-1))
            wanted = (agent.middle + agent.reach * action).numpy()
            result = envs.step(np.clip(wanted, space.low, space.high))
            obs, terminated, truncated, info = seen(result[0]), *result[2:]
            rewards[step] = torch.from_numpy(np.asarray(result[1], dtype=np.float32))
            ends[step] = torch.from_numpy(terminated | truncated)
            if truncated.any():  # It was only cut: what would have followed is worth something.
                cut = truncated.nonzero()[0]
                last = torch.cat([seen(_add_axis(info["final_obs"][i])) for i in cut])
                with torch.no_grad():
                    rewards[step, cut] += args.gamma * agent.value(agent.normalize(last))
            if "final_info" in info:
                episodes = info["final_info"]["episode"]
                returns += episodes["r"][episodes["_r"]].tolist()

        with torch.no_grad():
            advantages, after = torch.zeros(shape), agent.value(agent.normalize(obs))
            running = torch.zeros(args.num_envs)
            for step in reversed(range(args.num_steps)):
                goes_on = 1.0 - ends[step]
                delta = rewards[step] + args.gamma * goes_on * after - values[step]
                running = delta + args.gamma * args.lam * goes_on * running
                advantages[step], after = running, values[step]
        batch = [torch.cat(parts) for parts in (rows, actions, log_probs)]
        batch += [advantages.flatten(), (advantages + values).flatten()]
        _improve(agent, optimizer, batch, args)
        if returns:
            means.append(float(np.mean(returns)))
            steps = (update + 1) * args.num_steps * args.num_envs
            speed = steps / (time.perf_counter() - began)
            console.print(f"{steps} steps, {speed:.0f} a second: return {means[-1]:.2f}")
    envs.close()
    return agent, means


def _improve(
    agent: Agent, optimizer: torch.optim.Optimizer, batch: list[torch.Tensor], args: Args
) -> None:
    """Take the gradient steps of an update."""
    for _ in range(args.epochs):
        for ids in torch.randperm(len(batch[0])).chunk(args.num_minibatches):
            obs, action, old, advantage, target = (part[ids] for part in batch)
            policy = agent.policy(obs)
            ratio = (policy.log_prob(action).sum(dim=-1) - old).exp()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            bounded = ratio.clamp(1.0 - args.clip, 1.0 + args.clip)
            loss = -torch.min(ratio * advantage, bounded * advantage).mean()
            loss = loss + 0.5 * (agent.value(obs) - target).square().mean()
            loss = loss - args.entropy * policy.entropy().sum(dim=-1).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def _add_axis(obs: Any) -> Any:
    """Return an environment's observation as that of a vector of one."""
    return (
        {name: value[None] for name, value in obs.items()} if isinstance(obs, dict) else obs[None]
    )


@torch.no_grad()
def evaluate(agent: Agent, args: Args) -> float:
    """Return the mean return of an episode in each environment, without noise in the actions."""
    envs = gymnasium.make_vec(args.env_id, num_envs=args.num_envs, numpy=True)
    obs, _ = envs.reset(seed=args.seed + 1)
    returns, running = np.zeros(args.num_envs), np.ones(args.num_envs, dtype=bool)
    while running.any():
        seen = torch.from_numpy(obs[args.group] if isinstance(obs, dict) else obs)
        obs, reward, terminated, truncated, _ = envs.step(agent.act(seen).numpy())
        returns += reward * running
        running &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


if __name__ == "__main__":
    parsed, out = tyro.cli(Args, description=__doc__), Console()
    trained, _ = train(parsed, out)
    out.print(f"Return without noise: {evaluate(trained, parsed):.2f}")
