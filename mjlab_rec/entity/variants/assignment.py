"""Which worlds have which variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Assignment = tuple[float, ...] | Callable[[int], Sequence[int]]


def allocate_worlds(weights: Sequence[float], nworld: int) -> list[int]:
    """Give each world the index of a variant, in blocks whose sizes follow the weights.

    Sizes are rounded by the method of the largest remainder.
    """
    if any(not weight >= 0 for weight in weights):
        raise ValueError(f"Weights of variants must be non-negative, got {tuple(weights)}.")
    total = sum(weights)
    if not 0 < total < float("inf"):
        raise ValueError(f"Weights of variants must have a positive sum, got {tuple(weights)}.")
    shares = [weight / total * nworld for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(weights)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: nworld - sum(counts)]:
        counts[i] += 1
    return [i for i, count in enumerate(counts) for _ in range(count)]


def assign(assignment: Assignment, num_variants: int, num_envs: int, title: str) -> np.ndarray:
    """The index of each world's variant (num_envs,).

    Args:
        assignment: Weights, or a function of the number of worlds.
        num_variants: How many variants there are.
        num_envs: How many worlds there are.
        title: What to name in errors.
    """
    if not callable(assignment):
        return np.array(allocate_worlds(assignment, num_envs), np.int64)
    given = [int(index) for index in assignment(num_envs)]
    if len(given) != num_envs:
        raise ValueError(
            f"{title}: assignment returned {len(given)} indices but nworld={num_envs}. Return one "
            "for each world."
        )
    for world, index in enumerate(given):
        if not 0 <= index < num_variants:
            raise ValueError(
                f"{title}: assignment returned variant index {index} for world {world}, but there "
                f"are {num_variants} variants: give numbers from 0 to {num_variants - 1}."
            )
    return np.array(given, np.int64)
