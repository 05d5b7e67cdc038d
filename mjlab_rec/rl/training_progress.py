"""Progress of a training on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mjlab_rec.rl.iteration import Iteration

_REFRESH_S = 0.25
_LINE_S = 5.0  # Where the output is no terminal and keeps every line.
_RECENT = 0.1  # Weight of the newest iteration in the running means of speed.
_MAX_ROWS = 12  # Of what the environments log.
_COLORS = {"physics": "cyan", "managers": "green", "learner": "magenta"}


class TrainingProgress:
    """A panel that is redrawn after iterations, or lines if the output is not a terminal.

    Args:
        title: Of the panel, such as the task.
        console: Where to print.
        notes: Returns what to show below, such as what recorders wrote.
        clock: Time in seconds.
    """

    def __init__(
        self,
        title: str,
        console: Console,
        notes: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._title = title
        self._console = console
        self._notes = notes
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._seconds: float | None = None
        self._shares: dict[str, float] = {}
        self._began = self._shown_at = clock()
        self._unshown: Iteration | None = None

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._unshown is not None and not self._console.is_terminal:
            self._print(self._unshown)
        self._live.stop()

    def update(self, iteration: Iteration) -> None:
        """An iteration is over."""
        self._count(iteration)
        now = self._clock()
        self._unshown = iteration
        every = _REFRESH_S if self._console.is_terminal else _LINE_S
        if now - self._shown_at < every and self._seconds is not None and not self._is_first:
            return
        self._shown_at = now
        if self._console.is_terminal:
            self._live.update(self.panel(iteration), refresh=True)
        else:
            self._print(iteration)

    def panel(self, iteration: Iteration) -> Panel:
        """What is shown in a terminal."""
        done, planned = iteration.number + 1, iteration.last + 1
        rows = Table.grid(padding=(0, 2))
        rows.add_row("iteration", Text(f"{done:,} of {planned:,}"))
        rows.add_row("time", f"{_time(self._clock() - self._began)}, {self._eta(iteration)} left")
        rows.add_row("speed", f"{self._per_s(iteration):,.0f} env-steps/s")
        rows.add_row("steps", f"{iteration.total_env_steps:,}")
        rows.add_row("return", self._return(iteration))
        if iteration.mean_length is not None:
            rows.add_row("length", f"{iteration.mean_length:,.1f} steps")
        for name, loss in iteration.losses.items():
            rows.add_row(f"{name} loss" if name != "entropy" else name, f"{loss:.4g}")
        logged = Table.grid(padding=(0, 2))
        for name, value in list(iteration.log.items())[:_MAX_ROWS]:
            logged.add_row(Text(name, style="dim"), f"{value:.4g}")
        sides = Table.grid(padding=(0, 4))
        sides.add_row(rows, logged)
        # By itself a bar does not end its line, on which the next row would be cut off.
        bar = Padding(ProgressBar(total=planned, completed=done, width=None), 0)
        parts: list[Any] = [bar, sides, _share_line(self._shares)]
        notes = self._notes()
        if notes:
            parts.append(Text(notes, style="dim"))
        return Panel(Group(*parts), title=Text(self._title), border_style="blue")

    def line(self, iteration: Iteration) -> str:
        """What is printed elsewhere."""
        words = [
            f"iteration {iteration.number + 1}/{iteration.last + 1}",
            f"{self._per_s(iteration):,.0f} env-steps/s",
            f"{self._eta(iteration)} left",
            f"return {self._return(iteration)}",
        ]
        if iteration.mean_length is not None:
            words.append(f"length {iteration.mean_length:.1f}")
        words.append(" ".join(f"{part} {share:.0%}" for part, share in self._shares.items()))
        return "  ".join([*words, *filter(None, [self._notes()])])

    @property
    def _is_first(self) -> bool:
        return self._shown_at == self._began

    def _count(self, iteration: Iteration) -> None:
        """Update the running means."""
        total, parts = iteration.shares.total, iteration.shares.parts
        if self._seconds is None:
            self._seconds, self._shares = total, dict(parts)
        self._seconds += _RECENT * (total - self._seconds)
        for part, share in parts.items():
            self._shares[part] += _RECENT * (share - self._shares[part])

    def _print(self, iteration: Iteration) -> None:
        self._unshown = None
        line = self.line(iteration)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _per_s(self, iteration: Iteration) -> float:
        return iteration.env_steps / max(self._seconds or 0.0, 1e-9)

    def _eta(self, iteration: Iteration) -> str:
        return _time((iteration.last - iteration.number) * (self._seconds or 0.0))

    def _return(self, iteration: Iteration) -> str:
        if iteration.mean_return is None:
            return "no episode has ended yet"
        best = "" if iteration.best_return is None else f" (best {iteration.best_return:,.2f})"
        return f"{iteration.mean_return:,.2f}{best}"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _share_line(shares: dict[str, float]) -> Text:
    """Shares of the time as a bar of colours, with their names."""
    line = Text()
    for part, share in shares.items():
        line.append("━" * max(round(share * 40), 1), style=_COLORS[part])
    for part, share in shares.items():
        line.append(f"  {part} {share:.0%}", style=_COLORS[part])
    return line
