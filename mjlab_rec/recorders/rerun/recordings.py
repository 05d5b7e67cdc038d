"""Recordings with timelines of their own: those of a trigger, by hand, or back to back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.schema import Block
from mjlab_rec.recorders.trigger_windows import TriggerWindows
from mjlab_rec.recorders.triggers import Trigger, TriggerRunner

FEW = 8
"""The most environments whose episodes have timelines, and whose lines are shown one by one."""

_FOREVER = 1 << 62


def episode_name(envs: Sequence[int], env: int, episode: int) -> str:
    """The name of an episode, given all environments that are recorded."""
    return f"episode_{episode}" if len(envs) == 1 else f"env_{env}_episode_{episode}"


@dataclass
class Span:
    """A recording of all environments: its steps, and the name of its timelines."""

    name: str
    start: int
    until: int = _FOREVER

    def has(self, step: int) -> bool:
        """Whether a step belongs to it."""
        return self.start <= step < self.until


class Recordings(TriggerWindows):
    """The windows of a trigger, and recordings that are started by hand.

    A window that a trigger opens for all environments at step N is named "step_N". Without a
    trigger, recordings of ``length`` steps follow each other, and are named in the same way. At
    each step the recording that was started last counts, but one by hand comes first.

    Args:
        trigger: The trigger; None records always.
        length: Steps per recording; None means until the episode ends, or until a recording by hand
            is stopped.
        env: The environment.
    """

    def __init__(
        self, trigger: Trigger | Mapping[str, Any] | str | None, length: int | None, env: Any
    ) -> None:
        super().__init__(trigger, None if trigger is None else length, env)
        self._steps = length
        self._first: int | None = None  # first step of recordings that follow each other
        self._lock = threading.Lock()  # Another thread reads the spans.
        self._by_hand: list[Span] = []
        self._by_trigger: list[Span] = []
        self._every_env = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self._names: set[str] = set()
        self.by_episode = self._runner is not None and self._by_episode
        """Whether the trigger picks episodes."""
        if self._runner is not None and not self._by_episode:
            self._runner = _Noting(self._runner, self._note)

    # -- for the recorder, between steps -----------------------------------------------------------

    def begin_rows(self, step: int) -> None:
        """Rows are recorded from this step on."""
        if self._runner is None and self._steps is not None and self._first is None:
            self._first = step

    def end_rows(self, step: int) -> None:
        """The file or stream ends before this step; so does a recording by hand."""
        self._first = None
        self._cut(self._by_hand, step)

    def take_name(self, name: str) -> None:
        """Reserve the name of a recording by hand; ValueError if it cannot have that."""
        if not isinstance(name, str) or not name or name in self._names:
            used = f" Used: {', '.join(sorted(self._names))}." if self._names else ""
            raise ValueError(
                f"A recording needs a name that was not used before, got {name!r}.{used}"
            )
        self._names.add(name)

    def start(self, name: str, step: int) -> None:
        """Start a recording by hand at this step; it ends one that is running."""
        self._cut(self._by_hand, step)
        self._add(self._by_hand, name, step)

    def stop(self, step: int) -> None:
        """End what is running before this step, by hand or by a trigger."""
        self._cut(self._by_hand, step)
        self._cut(self._by_trigger, step)
        if self._runner is not None:
            self._until = self._until_before = 0
            for mask in (self._until_of, self._until_of_before, self._chosen):
                mask.zero_()

    def running(self, step: int) -> str | None:
        """Name of the recording of all environments to which a step belongs, if there is one."""
        names = [span.name for span in self.spans(step, step)]
        return names[-1] if names else None

    def want(self, step: int) -> bool:
        """Whether the next step is recorded, in at least some environments."""
        wanted = super().want(step)  # Always asked, because it keeps the trigger's state.
        return wanted or self._is_by_hand(step)

    def active(self, step: int, taken: torch.Tensor) -> torch.Tensor | None:
        """Which environments are recorded in a step; None means all of them."""
        if self.per_env and self._is_by_hand(step):
            return self._every_env
        return super().active(step, taken)

    # -- for the writer's thread -------------------------------------------------------------------

    def spans(self, first: int, last: int) -> list[Span]:
        """The recordings that have some of these steps; of several the last one has a step."""
        begin, length = self._first, self._steps
        with self._lock:
            spans = [*self._by_trigger, *self._by_hand]
        if begin is not None and length is not None:
            starts = range(begin + max(0, first - begin) // length * length, last + 1, length)
            spans = [*(Span(f"step_{at}", at, at + length) for at in starts), *spans]
        return [span for span in spans if span.start <= last and span.until > first]

    def forget(self, step: int) -> None:
        """Forget the recordings that ended before this step."""
        with self._lock:
            for spans in (self._by_hand, self._by_trigger):
                while len(spans) > 1 and spans[1].start <= step:
                    del spans[0]

    # -- spans -------------------------------------------------------------------------------------

    def _is_by_hand(self, step: int) -> bool:
        return bool(self._by_hand) and self._by_hand[-1].has(step)

    def _note(self, step: int, fired: bool) -> None:
        """Note whether the trigger fires at a step; of several answers the last one counts."""
        known = bool(self._by_trigger) and self._by_trigger[-1].start == step
        if fired and not known:
            self._add(self._by_trigger, f"step_{step}", step)
        elif known and not fired:
            with self._lock:
                self._by_trigger.pop()

    def _add(self, spans: list[Span], name: str, step: int) -> None:
        until = _FOREVER if self._steps is None else step + self._steps
        with self._lock:
            spans.append(Span(name, step, until))

    def _cut(self, spans: list[Span], step: int) -> None:
        with self._lock:
            for span in spans:
                span.until = min(span.until, step)


class _Noting(TriggerRunner):
    """A trigger's runner that tells when it fires for all environments."""

    def __init__(self, runner: TriggerRunner, note: Any) -> None:
        super().__init__(runner.trigger)
        self._runner, self._note = runner, note

    def step(self, step: int) -> bool | torch.Tensor:
        fired = self._runner.step(step)
        self._note(step, not isinstance(fired, torch.Tensor) and bool(fired))
        return fired

    def fire(self) -> None:
        self._runner.fire()


def own_timelines(
    recordings: Recordings, block: Block, rows: np.ndarray, wanted: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Names of the own timelines of some rows, and each row's number on them.

    Args:
        recordings: The recordings.
        block: The block that has the rows.
        rows: Indices of the rows, at least one.
        wanted: Which environments are recorded in them (rows, lanes).

    Returns:
        The names, and the numbers (rows, names), from 1; 0 means that a row is not on it.
    """
    steps, envs = block.step[rows], block.info.envs
    names: list[str] = []
    numbers: list[np.ndarray] = []
    free = np.ones(len(rows), bool)
    recordings.forget(int(steps[0]))
    for span in reversed(recordings.spans(int(steps[0]), int(steps[-1]))):
        has = free & (steps >= span.start) & (steps < span.until)
        free &= ~has
        names.append(span.name)
        numbers.append(np.where(has, steps - span.start + 1, 0))
    if recordings.by_episode:
        episode, taken = (values[rows] for values in block.numbering())
        for lane in range(min(FEW, block.lanes)):
            own = wanted[:, lane] & free
            for number in np.unique(episode[own, lane]).tolist():
                has = own & (episode[:, lane] == number)
                names.append(episode_name(envs, envs[lane], number))
                numbers.append(np.where(has, taken[:, lane].astype(np.int64) + 1, 0))
    none = np.zeros((len(rows), 0), np.int64)
    return names, np.stack(numbers, axis=1) if numbers else none
