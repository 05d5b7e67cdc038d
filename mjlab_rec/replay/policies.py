"""Compare what a policy answers to recorded observations with the recorded actions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.replay.recorded_model import opened
from mjlab_rec.utils.threads import single_torch_thread

POLICY_TOLERANCE = 1e-4
"""Differences that come from computing in another order."""

_OBS = "obs/"


@dataclass(frozen=True)
class ComparedEpisode:
    """Differences of one episode's actions."""

    index: int
    """Its row in the table of episodes."""

    env: int
    number: int
    steps: int
    mean: float
    """Mean difference of a number of an action."""

    most: float
    """The largest difference of a number of an action."""

    first: int | None
    """The first step with a difference above the tolerance."""

    def __str__(self) -> str:
        text = (
            f"environment {self.env}, episode {self.number}: mean difference {self.mean:.3g},"
            f" largest {self.most:.3g} in {self.steps} steps"
        )
        return text if self.first is None else f"{text}, first at step {self.first}"


@dataclass(frozen=True)
class PolicyComparison:
    """The result of ``compare_policy``."""

    episodes: tuple[ComparedEpisode, ...]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether all actions are the same."""
        return bool(self.episodes) and all(e.first is None for e in self.episodes)

    @property
    def mean(self) -> float:
        """Mean difference over all steps."""
        steps = sum(e.steps for e in self.episodes)
        return sum(e.mean * e.steps for e in self.episodes) / steps if steps else math.nan

    @property
    def most(self) -> float:
        """The largest difference."""
        return max((e.most for e in self.episodes), default=math.nan)


def compare_policy(
    source: str | Path | Rollouts,
    policy: Callable[[Any], torch.Tensor],
    *,
    num_envs: int,
    device: str = "cpu",
    episodes: Sequence[int] | None = None,
    tolerance: float = POLICY_TOLERANCE,
    progress: Callable[[int, int], None] | None = None,
) -> PolicyComparison:
    """Ask a policy for actions at the recorded observations, and compare them with the recorded.

    A recurrent policy sees each episode from its first recorded step on.

    Args:
        source: A recording with the channels "obs" and "action", or its path.
        policy: Called with the observations of `num_envs` environments; returns their actions. If
            it has ``reset``, that is called with a mask before new episodes.
        num_envs: Number of environments for which the policy was made.
        device: Where the policy is.
        episodes: Rows of the table of episodes; None means all.
        tolerance: Largest difference of a number that counts as the same.
        progress: Called with the number of steps that are done, and of all.
    """
    if not 0.0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, but it must be at least 0, and finite.")
    with opened(source) as rollouts, torch.no_grad(), single_torch_thread(device):
        names = [name for name in rollouts.channels if name.startswith(_OBS)]
        if not names or "action" not in rollouts.channels:
            raise DataError(
                "Comparing a policy needs the recorded channels 'obs' and 'action', but the"
                f" recording has: {', '.join(rollouts.channels)}."
            )
        lengths = rollouts.episodes["rows"].to_numpy()
        chosen = list(range(len(rollouts)) if episodes is None else episodes)
        # Episodes of similar length run together.
        order = sorted(chosen, key=lambda index: -int(lengths[index]))
        total, done = int(lengths[chosen].sum()) if chosen else 0, 0
        found: dict[int, ComparedEpisode] = {}
        for first in range(0, len(order), num_envs):
            group = order[first : first + num_envs]
            recorded = [rollouts.read(index, [*names, "action"]) for index in group]
            answers = _answers(policy, recorded, names, num_envs, device)
            for index, arrays, actions in zip(group, recorded, answers, strict=True):
                found[index] = _compared(rollouts, index, arrays["action"], actions, tolerance)
                done += len(actions)
            if progress is not None:
                progress(done, total)
    return PolicyComparison(tuple(found[index] for index in chosen), tolerance)


def _answers(
    policy: Callable[[Any], torch.Tensor],
    recorded: Sequence[Mapping[str, np.ndarray]],
    names: Sequence[str],
    num_envs: int,
    device: str,
) -> list[np.ndarray]:
    """The policy's actions for each episode."""
    lengths = [len(arrays["action"]) for arrays in recorded]
    reset = getattr(policy, "reset", None)
    if reset is not None:
        reset(torch.ones(num_envs, dtype=torch.bool, device=device))
    answers: list[list[np.ndarray]] = [[] for _ in recorded]
    for step in range(max(lengths)):
        rows = {
            name: np.stack(
                [a[name][min(step, n - 1)] for a, n in zip(recorded, lengths, strict=True)]
            )
            for name in names
        }
        actions = policy(_observations(rows, num_envs, device)).cpu().numpy()
        for place, length in enumerate(lengths):
            if step < length:
                answers[place].append(actions[place].copy())
    return [np.stack(rows) for rows in answers]


def _observations(rows: Mapping[str, np.ndarray], num_envs: int, device: str) -> dict[str, Any]:
    """Recorded observations as an environment returns them: groups, or dicts of terms."""
    found: dict[str, Any] = {}
    groups = {name for name in rows if name.count("/") == 1}
    for name, values in rows.items():
        value = torch.from_numpy(values).to(device)
        if len(value) < num_envs:  # The last group of episodes is smaller.
            value = torch.cat((value, value[-1:].expand(num_envs - len(value), *value.shape[1:])))
        if value.is_floating_point():
            value = value.float()
        group, _, term = name.removeprefix(_OBS).partition("/")
        if not term:
            found[group] = value
        elif f"{_OBS}{group}" not in groups:
            found.setdefault(group, {})[term] = value
    return found


def _compared(
    rollouts: Rollouts, index: int, recorded: np.ndarray, answers: np.ndarray, tolerance: float
) -> ComparedEpisode:
    if answers.shape != recorded.shape:
        raise DataError(
            f"The policy's actions have shape {answers.shape[1:]}, the recorded ones"
            f" {recorded.shape[1:]}. Is it a policy of another task?"
        )
    apart = np.abs(answers.astype(np.float64) - recorded.astype(np.float64))
    apart = apart.reshape(len(apart), -1)
    over = np.flatnonzero(~(apart <= tolerance).all(axis=1))
    table = rollouts.episodes
    return ComparedEpisode(
        index=index,
        env=int(table["env"][index]),
        number=int(table["number"][index]),
        steps=len(apart),
        mean=float(apart.mean()),
        most=float(apart.max()),
        first=int(over[0]) if len(over) else None,
    )
