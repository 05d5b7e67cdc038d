"""The shards that are still to be done, for a pool of workers that may die."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mjlab_rec.collecting.folder import CollectError
from mjlab_rec.collecting.plan import Shard


class ShardQueue:
    """Gives shards to workers, and gives the shard of a worker that died to another one.

    Args:
        shards: What is to be done.
        most_losses: How many workers die while they play the same shard until it is an error.
    """

    def __init__(self, shards: Iterable[Shard], most_losses: int = 3) -> None:
        self._most_losses = most_losses
        self._waiting = deque(shards)
        self._losses: dict[int, int] = {}
        self._running = 0
        self._unready = 0  # Workers in a row that died before they could play.

    def __len__(self) -> int:
        """How many are not done."""
        return len(self._waiting) + self._running

    @property
    def waiting(self) -> int:
        """How many no worker has."""
        return len(self._waiting)

    def take(self) -> Shard | None:
        """A shard for a worker that can play; None if all are taken."""
        self._unready = 0
        if not self._waiting:
            return None
        self._running += 1
        return self._waiting.popleft()

    def unready(self, why: str) -> None:
        """A worker died before it could play a shard."""
        self._unready += 1
        if self._unready >= self._most_losses:
            raise CollectError(
                f"{self._most_losses} workers in a row died before they played anything, the last"
                f" one because {why}. Perhaps the machine has too little memory: use fewer workers."
            )

    def done(self) -> None:
        """A shard that was taken is done."""
        self._running -= 1

    def lost(self, shard: Shard, why: str) -> None:
        """The worker that had a shard died; it is the next one to be taken."""
        self._running -= 1
        self._waiting.appendleft(shard)
        self._losses[shard.number] = self._losses.get(shard.number, 0) + 1
        if self._losses[shard.number] >= self._most_losses:
            raise CollectError(
                f"{self._most_losses} workers died while they played {shard.name}, the last one"
                f" because {why}. Perhaps the machine has too little memory: use fewer workers, or"
                " a smaller --num-envs. What is finished stays: the same command goes on."
            )
