"""Progress on the terminal: steps, speed, and what the recorders have written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from mjlab_rec.recorders.progress import progress

_REFRESH_S = 0.1
_LINE_S = 5.0  # Where the output is no terminal and keeps every line.


class TerminalProgress:
    """A line that is redrawn during a run, or printed every 5 s if the output is not a terminal.

    Args:
        env: The environment that is stepped.
        unit: What is counted, such as "steps".
        console: Where to print.
        clock: Time in seconds.
    """

    def __init__(
        self,
        env: Any,
        unit: str,
        console: Console,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.steps = 0
        """Control steps so far."""
        self._env = env
        self._unit = unit
        self._console = console
        self._clock = clock
        self._total: int | None = None
        self._every_s = _REFRESH_S if console.is_terminal else _LINE_S
        self._bar = Progress(
            TextColumn(unit),
            BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            # On a narrow terminal only this one wraps to more lines.
            TextColumn("{task.fields[recorders]}", markup=False, table_column=Column()),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=None, speed="", recorders="")
        self._drawn_at = self._clock()
        self._drawn_steps = 0

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def expect(self, total: int | None) -> None:
        """Set the total, if it is known."""
        self._total = total
        self._bar.update(self._task, total=total)

    def step(self, done: int) -> None:
        """Count a step and show the progress, ten times a second or in a line every 5 s."""
        self.steps += 1
        now = self._clock()
        passed = now - self._drawn_at
        if passed < self._every_s:
            return
        per_s = (self.steps - self._drawn_steps) * self._env.num_envs / passed
        speed = f"{per_s:,.0f} env-steps/s"
        self._drawn_at, self._drawn_steps = now, self.steps
        recorders = recorders_line(self._env.recorder_manager)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, speed=speed, recorders=recorders)
            self._bar.refresh()
        else:
            of = "" if self._total is None else f"/{self._total}"
            line = f"{self._unit} {done}{of} {speed} {recorders}".rstrip()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def recorders_line(manager: Any) -> str:
    """Return what each recorder has written, in short: ``| hdf5 12,000 steps 3.1 MB``."""
    parts = []
    for name in manager.active_terms:
        said = progress(manager.get_term(name))
        words = [name, *said.amounts]
        if said.state != "recording":
            words.append(said.state)
        parts.append("| " + " ".join(words))
    return " ".join(parts)
