"""Whole episodes of a policy, and what they say about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.recorders.success import success_of
from mjlab_rec.utils.threads import single_torch_thread

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl.policies import Policy

EVALUATION_SEED = 20_000_003
"""Seed of the episodes by default: one that nothing is trained with."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SUCCESS = "success"
"""Name of the termination term, or else the metric, that says whether an episode succeeded."""

_CONFIDENT = 1.96  # Standard errors on both sides of a mean that hold it in 95 % of cases.


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Some whole episodes of a policy. All arrays have one entry per episode, (episodes,)."""

    seed: int
    """Seed of the episodes."""
    step_dt: float
    """Duration of a control step in seconds."""
    envs: np.ndarray
    """The environment of each episode."""
    returns: np.ndarray
    """Sum of the rewards."""
    lengths: np.ndarray
    """Control steps."""
    success: np.ndarray | None
    """Whether the episode succeeded; None if the task does not say."""
    terminations: dict[str, np.ndarray] = field(default_factory=dict)
    """Which episodes each termination term ended; several may end one."""
    rewards: dict[str, np.ndarray] = field(default_factory=dict)
    """What each reward term contributed to the return."""
    metrics: dict[str, np.ndarray] = field(default_factory=dict)
    """The value of each metric for the episode."""

    def __len__(self) -> int:
        return len(self.returns)

    def summary(self) -> dict[str, Any]:
        """Statistics as plain data, for JSON."""
        return {
            "episodes": len(self),
            "seed": self.seed,
            "return": statistics(self.returns),
            "length_steps": statistics(self.lengths),
            "length_s": float(self.lengths.mean() * self.step_dt),
            "success_rate": None if self.success is None else share(self.success),
            "terminations": {name: share(ended) for name, ended in self.terminations.items()},
            "reward_terms": {name: statistics(sums) for name, sums in self.rewards.items()},
            "metrics": {name: statistics(values) for name, values in self.metrics.items()},
        }

    def per_episode(self) -> dict[str, list[Any]]:
        """Every episode as plain data: a list for each column."""
        columns = {"env": self.envs, "return": self.returns, "length": self.lengths}
        if self.success is not None:
            columns["success"] = self.success
        groups = {
            "termination": self.terminations,
            "reward": self.rewards,
            "metric": self.metrics,
        }
        for group, values in groups.items():
            columns |= {f"{group}/{name}": column for name, column in values.items()}
        return {name: column.tolist() for name, column in columns.items()}


@torch.no_grad()
def evaluate(
    env: Any,
    policy: Policy,
    episodes: int = 100,
    seed: int = EVALUATION_SEED,
    on_step: Callable[[int], None] | None = None,
) -> Evaluation:
    """Play whole episodes in all environments at once.

    Each environment plays a fixed share, its first ones. To take the first episodes that end,
    instead, would favour short ones. What comes after the share of an environment does not count.

    Args:
        env: The environment, or a wrapper with ``unwrapped``. It is reset first.
        policy: Takes observations, returns actions. One with ``reset`` gets a mask of the episodes
            that ended.
        episodes: Number of episodes. If it is not divisible by the number of environments, the
            first environments play one more.
        seed: Seed of the episodes.
        on_step: Called after every step with the number of finished episodes.
    """
    env = env.unwrapped
    with single_torch_thread(str(env.device)):  # Also for the policy.
        return _evaluate(env, policy, episodes, seed, on_step)


def _evaluate(
    env: ManagerBasedRlEnv,
    policy: Policy,
    episodes: int,
    seed: int,
    on_step: Callable[[int], None] | None,
) -> Evaluation:
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    if not env.cfg.auto_reset:
        raise ValueError(
            "evaluate() needs an environment that resets what has ended. Set"
            " ManagerBasedRlEnvCfg(auto_reset=True)."
        )
    quota = np.full(env.num_envs, episodes // env.num_envs)
    quota[: episodes % env.num_envs] += 1
    obs, _ = env.reset(seed=seed)
    tally = _Tally(env)
    reset_policy: Callable[..., None] | None = getattr(policy, "reset", None)
    if reset_policy is not None:
        reset_policy()
    most = int(quota.max()) * env.max_episode_length
    played = np.zeros(env.num_envs, dtype=int)
    finished: list[_Episode] = []
    for step in range(1, most + 2):
        obs, reward, terminated, truncated, _ = env.step(policy(obs))
        done = terminated | truncated
        tally.add(reward)
        for index in done.nonzero().flatten().tolist():
            if played[index] < quota[index]:
                finished.append(tally.episode(index))
            played[index] += 1
        tally.restart(done)
        if reset_policy is not None:
            reset_policy(done)
        if on_step is not None:
            on_step(len(finished))
        if len(finished) == episodes:
            break
        if step > most:
            waiting = (played < quota).nonzero()[0][:8].tolist()
            raise ValueError(
                f"After {step} steps {episodes - len(finished)} of {episodes} episodes have not"
                f" ended, such as in the environments {waiting}. An evaluation needs a termination"
                " that ends every episode: mdp.time_out."
            )
    return tally.evaluation(finished, seed)


@dataclass(frozen=True)
class _Episode:
    """The numbers of one episode."""

    env: int
    length: int
    total: float
    success: bool | None
    terms: list[bool]
    rewards: list[float]
    metrics: list[float]


class _Tally:
    """Adds up what happens in the running episodes."""

    def __init__(self, env: ManagerBasedRlEnv) -> None:
        self._env = env
        count, terms = env.num_envs, len(env.reward_manager.active_terms)
        # Double precision: the sums are compared with others, and episodes may be long.
        self._returns = torch.zeros(count, dtype=torch.float64, device=env.device)
        self._rewards = torch.zeros(count, terms, dtype=torch.float64, device=env.device)
        self._lengths = torch.zeros(count, dtype=torch.long, device=env.device)
        self._scale = env.step_dt if env.cfg.scale_rewards_by_dt else 1.0
        self._success = success_of(None, env)
        self._names = env.termination_manager.active_terms
        self._metrics = env.metrics_manager.active_terms
        if self._success is None and SUCCESS in self._metrics:
            self._success = lambda: env.metrics_manager.last_episode[SUCCESS] > 0.0

    def add(self, reward: torch.Tensor) -> None:
        """Count the step that has just been taken."""
        self._returns += reward
        self._rewards += self._env.reward_manager.step_reward * self._scale
        self._lengths += 1

    def episode(self, index: int) -> _Episode:
        """The episode that has just ended in one environment."""
        terms, metrics = self._env.termination_manager, self._env.metrics_manager
        return _Episode(
            env=index,
            length=int(self._lengths[index]),
            total=float(self._returns[index]),
            success=None if self._success is None else bool(self._success()[index]),
            terms=[bool(terms.get_term(name)[index]) for name in self._names],
            rewards=self._rewards[index].tolist(),
            metrics=[float(values[index]) for values in metrics.last_episode.values()],
        )

    def restart(self, done: torch.Tensor) -> None:
        """Begin new episodes."""
        for sums in (self._returns, self._rewards, self._lengths):
            sums[done] = 0

    def evaluation(self, episodes: list[_Episode], seed: int) -> Evaluation:
        """All episodes, sorted by environment and then by time."""
        episodes = sorted(episodes, key=lambda episode: episode.env)
        success = None
        if self._success is not None:
            success = np.array([bool(episode.success) for episode in episodes])
        columns = {
            "terminations": (self._names, [e.terms for e in episodes]),
            "rewards": (self._env.reward_manager.active_terms, [e.rewards for e in episodes]),
            "metrics": (self._metrics, [e.metrics for e in episodes]),
        }
        return Evaluation(
            seed=seed,
            step_dt=self._env.step_dt,
            envs=np.array([episode.env for episode in episodes]),
            returns=np.array([episode.total for episode in episodes]),
            lengths=np.array([episode.length for episode in episodes]),
            success=success,
            **{
                group: {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
                for group, (names, rows) in columns.items()
            },
        )


def statistics(values: np.ndarray) -> dict[str, Any]:
    """Describe a sample: mean with its 95 % interval, spread, least, greatest and quantiles."""
    count, mean = len(values), float(values.mean())
    std = float(values.std(ddof=1)) if count > 1 else 0.0
    half = _CONFIDENT * std / math.sqrt(count)
    return {
        "mean": mean,
        "std": std,
        "ci95": [mean - half, mean + half],
        "min": float(values.min()),
        "max": float(values.max()),
        "quantiles": {f"{q:g}": float(np.quantile(values, q)) for q in QUANTILES},
    }


def share(flags: np.ndarray) -> float:
    """The share of a sample that is true."""
    return float(np.mean(flags))
