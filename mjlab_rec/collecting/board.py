"""Progress of all workers in one place: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mjlab_rec.collecting.plan import Shard

_REFRESH_S = 0.25
_LONG_S = 1.0


@dataclass
class _Running:
    """What a worker is doing."""

    shard: Shard
    began: float
    episodes: int = 0
    steps: int = 0
    waits: bool = False


class Board:
    """Shows what each worker does, how many episodes there are and how fast more come.

    Args:
        shards: The shards of these workers.
        missing: Those that are not finished yet.
        console: Where to print.
        clock: Time in seconds.
    """

    def __init__(
        self,
        shards: Collection[Shard],
        missing: Collection[Shard],
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shards = len(shards)
        self._planned = sum(shard.episodes for shard in shards)
        self._finished = len(shards) - len(missing)
        self._episodes = self._planned - sum(shard.episodes for shard in missing)
        self._console = console
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._steps = 0  # Of shards that were finished in this run.
        self._began = self._shown = clock()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def begin(self, worker: str, shard: Shard) -> None:
        """A worker begins to play a shard."""
        self._running[worker] = _Running(shard, self._clock())
        self._show()

    def tell(self, worker: str, episodes: int, steps: int, waits: bool = False) -> None:
        """A worker has played this many episodes and steps of its shard, or waits for a learner."""
        if worker in self._running:
            running = self._running[worker]
            running.episodes, running.steps, running.waits = episodes, steps, waits
        self._show()

    def done(self, worker: str, shard: Shard, about: dict[str, Any]) -> None:
        """A worker has finished a shard."""
        self._running.pop(worker, None)
        self._finished += 1
        self._episodes += shard.episodes
        self._steps += about.get("steps", 0)
        seconds = about.get("seconds") or 0.0
        speed = f", {about.get('steps', 0) / seconds:,.0f} env-steps/s" if seconds else ""
        if (waited := about.get("waited_s", 0.0)) >= _LONG_S:
            speed += f", {waited:,.1f} s of it waiting for the learner"
        self._say(
            f"{worker}: {shard.name}, {shard.episodes} episodes, {about.get('rows', 0):,} rows in"
            f" {seconds:,.1f} s{speed} ({self._episodes} of {self._planned} episodes)"
        )

    def lost(self, worker: str, why: str) -> None:
        """A worker died."""
        running = self._running.pop(worker, None)
        rest = f"; {running.shard.name} is played again" if running else ""
        self._say(f"{worker} ended, because {why}{rest}.")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._show(now=True)

    def _show(self, now: bool = False) -> None:
        if not self._console.is_terminal:
            return
        if now or self._clock() - self._shown >= _REFRESH_S:
            self._shown = self._clock()
            self._live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """What is shown on a terminal."""
        now = self._clock()
        running = sum(each.episodes for each in self._running.values())
        steps = self._steps + sum(each.steps for each in self._running.values())
        speed = steps / max(now - self._began, 1e-9)
        table = Table("", "Shard", "Episodes", "Env-steps/s")
        table.add_row(
            "All",
            f"{self._finished} of {self._shards} finished",
            f"{self._episodes + running} of {self._planned}",
            f"{speed:,.0f}",
        )
        for worker, each in sorted(self._running.items()):
            table.add_row(
                *(worker, each.shard.name, f"{each.episodes} of {each.shard.episodes}"),
                "waits for the learner"
                if each.waits
                else f"{each.steps / max(now - each.began, 1e-9):,.0f}",
            )
        return table
