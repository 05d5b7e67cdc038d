"""What an iteration of a training was like, and its points on the curves."""

from __future__ import annotations

from dataclasses import dataclass

from mjlab_rec.rl.clocks import Shares


@dataclass(frozen=True)
class Iteration:
    """What an iteration of a training was like."""

    number: int
    """Its number, from 0."""
    last: int
    """Number of the last one that is planned."""
    env_steps: int
    """Steps of all environments in this iteration."""
    total_env_steps: int
    """Those since the run began."""
    shares: Shares
    """Where its time went."""
    mean_return: float | None
    """Mean return of the last episodes; None before the first one ends."""
    mean_length: float | None
    """Their mean length in steps."""
    losses: dict[str, float]
    """Losses by name."""
    log: dict[str, float]
    """Means of what the environments logged about episodes that ended."""
    best_return: float | None
    """Highest mean return of whole episodes so far; None before enough of them have ended."""
    is_best: bool
    """Whether that was in this iteration."""


def curves(
    iteration: Iteration, learning_rate: float, action_std: float | None
) -> dict[str, float]:
    """The iteration's points, by the names of RSL-RL's curves.

    Args:
        iteration: The iteration.
        learning_rate: The learner's learning rate after it.
        action_std: Mean standard deviation of the actions; None if the policy has none.
    """
    shares = iteration.shares
    values = {
        **iteration.log,
        **{f"Loss/{name}": loss for name, loss in iteration.losses.items()},
        "Loss/learning_rate": learning_rate,
        "Perf/total_fps": iteration.env_steps / shares.total,
        "Perf/collection_time": shares.env,
        "Perf/learning_time": shares.total - shares.env,
        **{f"Perf/{part}": share for part, share in shares.parts.items()},
    }
    if action_std is not None:
        values["Policy/mean_std"] = action_std
    means = {"reward": iteration.mean_return, "episode_length": iteration.mean_length}
    for name, mean in means.items():
        if mean is not None:
            values[f"Train/mean_{name}"] = values[f"Train/mean_{name}/time"] = mean
    return values
