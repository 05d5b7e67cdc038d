"""When clips begin and end and which steps they show, without drawing or writing anything."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Shown = TypeVar("Shown")


@dataclass(kw_only=True, eq=False)
class Clip:
    """A clip that is being recorded."""

    name: str
    """File name without the suffix."""

    begun: int = 0
    """The environment's step counter when it began."""

    again: bool = False
    """Whether an earlier clip had the same name."""

    env_ids: tuple[int, ...]
    """The environments in its image."""

    every: int = 1
    """Steps from one frame to the next."""

    length: int | None = None
    """Steps to record."""

    episodes: int | None = None
    """Episode ends to record, if ``length`` is None. Without both, the clip goes on."""

    done: bool = False
    """Whether it is complete."""

    steps: int = field(default=0, init=False)
    """Steps recorded so far."""

    _since: int = field(default=0, init=False)

    def step(self, ended: bool) -> bool:
        """Count a step, and return whether it gets a frame.

        The last step always does: of the clip, or of each episode if its length is in episodes.

        Args:
            ended: Whether an episode ended with the step.
        """
        self.steps += 1
        self._since += 1
        if self.length is None:
            last = ended
            if ended:
                self.end_episode()
        else:
            last = self.done = self.steps == self.length
        due = last or self._since == self.every
        if due:
            self._since = 0
        return due

    def end_episode(self) -> None:
        """Count the end of an episode, and end the clip if it was the last one."""
        if self.length is None and self.episodes is not None:
            self.episodes -= 1
            self.done = self.episodes == 0


class Episodes:
    """Number and length of the running episodes of some environments, counted on the host.

    Args:
        env_ids: The environments.
        numbers: Number of the running episode of every environment, recorded or not.
        begun: The environment's step counter when each of them began.
    """

    def __init__(
        self, env_ids: Sequence[int], numbers: Sequence[int], begun: Sequence[int]
    ) -> None:
        self.number = {i: numbers[i] for i in env_ids}
        """Episode number of each environment, from 0."""
        self._begun = {i: begun[i] for i in env_ids}

    def length(self, env_id: int, step: int) -> int:
        """Steps taken in the running episode, given the environment's step counter.

        It is -1 if the next step only resets the environment, and then 0.
        """
        return step - self._begun[env_id]

    def begin(self, env_id: int, step: int, first: int) -> None:
        """Begin an episode whose first step has this number; one without a step is not counted."""
        self.number[env_id] += self.length(env_id, step) > 0
        self._begun[env_id] = first


class View:
    """The environments in one image, and the clips that show it.

    The episodes are those of the first environment, the leader.

    Args:
        env_ids: The environments.
        last_steps: The last steps of the leader's episode, if they are kept.
    """

    def __init__(self, env_ids: Sequence[int], last_steps: LastSteps[Any] | None = None) -> None:
        self.env_ids = tuple(env_ids)
        self.last_steps = last_steps
        self.leader = self.env_ids[0]
        self.clips: list[Clip] = []
        """Clips that are being recorded. They may overlap: each time the trigger fires, a whole
        clip is recorded."""
        self.waiting = False
        """Whether a clip begins with the leader's next episode."""
        self.over = False
        """Whether the leader's episode is over, and the next one has not begun."""
        self.asked = -1
        """The leader's last episode for which the trigger was checked."""
        self.clip_episode = -1
        """The leader's last episode with which a clip began."""

    def step(self, ended: bool) -> list[Clip]:
        """Count a recorded step, and return the clips that get a frame of it."""
        self.over |= ended
        return [clip for clip in self.clips if clip.step(ended)]

    def end_episode(self, step: int) -> None:
        """The leader's episode ended without a recorded last step.

        Clips that began at this step, given by the environment's counter, are not affected.
        """
        if not self.over:
            self.over = True
            for clip in self.clips:
                if clip.begun < step:
                    clip.end_episode()

    def take_done(self, everything: bool = False) -> list[Clip]:
        """Remove the finished clips from the view, and return them."""
        done = [clip for clip in self.clips if clip.done or everything]
        last = self.last_steps
        if last is not None and any(clip.steps == len(last) for clip in done):
            last.shown = True  # Both end with the latest step, and are as long.
        if done:
            self.clips = [clip for clip in self.clips if clip not in done]
        return done


class LastSteps(Generic[Shown]):
    """The last steps of an episode, kept in memory for a clip.

    Args:
        length: Steps to keep; None keeps the episode.
        every: Steps from one frame to the next.
    """

    def __init__(self, length: int | None, every: int) -> None:
        self._kept: deque[Shown] = deque(maxlen=length)
        self._every = every
        self._ended = False
        self.episode = 0
        """The episode that the steps belong to."""
        self.shown = False
        """Whether another clip shows just these steps."""

    def __len__(self) -> int:
        """How many steps are kept."""
        return len(self._kept)

    def append(self, shown: Shown, episode: int, ended: bool) -> None:
        """Keep a step. The first step of an episode discards the previous episode."""
        if self._ended or episode != self.episode:
            self._kept.clear()
        self._kept.append(shown)
        self.episode, self._ended, self.shown = episode, ended, False

    def take(self) -> list[Shown]:
        """Return the last step and every n-th before it, and clear the memory.

        Nothing is returned if another clip shows them already.
        """
        kept = [] if self.shown else list(self._kept)[:: -self._every][::-1]
        self._kept.clear()
        return kept


def grid_shape(count: int, columns: int | None) -> tuple[int, int]:
    """Columns and rows of a grid of images; about as high as wide if columns is None."""
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    return columns, -(-count // columns)
