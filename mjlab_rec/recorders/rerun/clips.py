"""Clips, which have timelines of their own: begun by a trigger, by hand, or back to back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
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
class Clip:
    """A clip of all environments: its steps, and the name of its timelines."""

    name: str
    start: int
    until: int = _FOREVER

    def has(self, step: int) -> bool:
        """Whether a step belongs to it."""
        return self.start <= step < self.until


class Clips(TriggerWindows):
    """The windows of a trigger, and clips that are started by hand.

    A window that a trigger opens for all environments at step N is the clip "step_N". Without a
    trigger, clips of ``length`` steps follow each other, and are named in the same way. A step
    belongs to the clip that began last, but one by hand comes first.

    Args:
        trigger: The trigger; None records always.
        length: Steps per clip; None means until the episode ends, or by hand until ``stop``.
        env: The environment.
    """

    def __init__(
        self, trigger: Trigger | Mapping[str, Any] | str | None, length: int | None, env: Any
    ) -> None:
        super().__init__(trigger, None if trigger is None else length, env)
        self._steps = length
        self._first: int | None = None  # first step of clips that follow each other
        self._lock = threading.Lock()  # Another thread reads the clips.
        self._by_hand: list[Clip] = []
        self._by_trigger: list[Clip] = []
        self._every_env = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self._names: set[str] = set()
        self.by_episode = self._runner is not None and self._by_episode
        """Whether the trigger picks episodes."""
        if self._runner is not None and not self._by_episode:
            self._runner: Any = _Noting(self._runner, self._note)

    # -- for the recorder, between steps -----------------------------------------------------------

    def begin_rows(self, step: int) -> None:
        """Rows are recorded from this step on."""
        if self._runner is None and self._steps is not None and self._first is None:
            self._first = step

    def end_rows(self, step: int) -> None:
        """The file or stream ends before this step; so does a clip by hand."""
        self._first = None
        self._cut(self._by_hand, step)

    def take_name(self, name: str) -> None:
        """Reserve the name of a clip by hand; ValueError if it cannot have that."""
        if not isinstance(name, str) or not name or name in self._names:
            used = f" Used: {', '.join(sorted(self._names))}." if self._names else ""
            raise ValueError(f"A clip needs a name that was not used before, got {name!r}.{used}")
        self._names.add(name)

    def start(self, name: str, step: int) -> None:
        """Start a clip by hand at this step; it ends one that is running."""
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
        """Name of the clip of all environments to which a step belongs, if there is one."""
        names = [clip.name for clip in self.within(step, step)]
        return names[-1] if names else None

    def want(self, step: int, *more: Any) -> bool:
        """Whether the next step is recorded, in at least some environments."""
        wanted = super().want(step, *more)  # Always asked, because it keeps the trigger's state.
        return wanted or self._is_by_hand(step)

    def active(self, step: int, taken: torch.Tensor) -> torch.Tensor | None:
        """Which environments are recorded in a step; None means all of them."""
        if self.per_env and self._is_by_hand(step):
            return self._every_env
        return super().active(step, taken)

    # -- for the writer's thread -------------------------------------------------------------------

    def within(self, first: int, last: int) -> list[Clip]:
        """The clips that have some of these steps; a step in several belongs to the last."""
        begin, length = self._first, self._steps
        with self._lock:
            clips = [*self._by_trigger, *self._by_hand]
        if begin is not None and length is not None:
            starts = range(begin + max(0, first - begin) // length * length, last + 1, length)
            clips = [*(Clip(f"step_{at}", at, at + length) for at in starts), *clips]
        return [clip for clip in clips if clip.start <= last and clip.until > first]

    def forget(self, step: int) -> None:
        """Forget the clips that ended before this step."""
        with self._lock:
            for clips in (self._by_hand, self._by_trigger):
                while len(clips) > 1 and clips[1].start <= step:
                    del clips[0]

    # -- clips -------------------------------------------------------------------------------------

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

    def _add(self, clips: list[Clip], name: str, step: int) -> None:
        until = _FOREVER if self._steps is None else step + self._steps
        with self._lock:
            clips.append(Clip(name, step, until))

    def _cut(self, clips: list[Clip], step: int) -> None:
        with self._lock:
            for clip in clips:
                clip.until = min(clip.until, step)


class _Noting:
    """A trigger's runner that tells when it fires for all environments."""

    def __init__(self, runner: TriggerRunner, note: Callable[[int, bool], None]) -> None:
        self._runner, self._note = runner, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def step(self, step: int) -> bool | torch.Tensor:
        fired = self._runner.step(step)
        self._note(step, not isinstance(fired, torch.Tensor) and bool(fired))
        return fired


def own_timelines(
    clips: Clips, block: Block, rows: np.ndarray, wanted: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Names of the own timelines of some rows, and each row's number on them.

    Args:
        clips: The clips.
        block: The block that has the rows.
        rows: Indices of the rows, at least one.
        wanted: Which environments are recorded in them (rows, num_envs).

    Returns:
        The names, and the numbers (rows, names), from 1; 0 means that a row is not on it.
    """
    steps, envs = block.step[rows], block.info.envs
    names: list[str] = []
    numbers: list[np.ndarray] = []
    free = np.ones(len(rows), bool)
    clips.forget(int(steps[0]))
    for clip in reversed(clips.within(int(steps[0]), int(steps[-1]))):
        has = free & (steps >= clip.start) & (steps < clip.until)
        free &= ~has
        names.append(clip.name)
        numbers.append(np.where(has, steps - clip.start + 1, 0))
    if clips.by_episode:
        episode, taken = (values[rows] for values in block.numbering())
        for env_index in range(min(FEW, block.num_envs)):
            own = wanted[:, env_index] & free
            for number in np.unique(episode[own, env_index]).tolist():
                has = own & (episode[:, env_index] == number)
                names.append(episode_name(envs, envs[env_index], number))
                numbers.append(np.where(has, taken[:, env_index].astype(np.int64) + 1, 0))
    none = np.zeros((len(rows), 0), np.int64)
    return names, np.stack(numbers, axis=1) if numbers else none
