"""Which steps of which environments to record, given a trigger."""

from __future__ import annotations

from typing import Any

import torch

from mjlab_rec.recorders.triggers import TriggerLike, trigger_from

_FOREVER = 1 << 62


class TriggerWindows:
    """Windows of steps to record, each from when a trigger fires.

    Args:
        trigger: The trigger; None records always.
        length: Steps per window; None means until the episode ends, or with ``at_start()`` until
            the recording is stopped.
        env: The environment.
    """

    def __init__(self, trigger: TriggerLike | None, length: int | None, env: Any) -> None:
        if trigger is None:
            if length is not None:
                raise ValueError(
                    "length sets how long to record after a trigger fires; give a trigger too,"
                    " such as at_start()."
                )
            self.per_env = False
            self._runner = None
            return
        trigger = trigger_from(trigger)
        self._runner = trigger.build(env)
        self._length = length
        self._by_episode = trigger.scope == "episode"
        endless = length is None and trigger.kind == "at_start"
        self._to_episode_end = length is None and not endless
        self.per_env = self._by_episode or trigger.takes == "env" or self._to_episode_end
        """Whether environments are recorded at different times."""
        self._asked = -1  # The step that was checked last.
        # Step at which each window ends, and the same without what fired at this step.
        self._until = self._until_before = 0
        self._until_of = torch.zeros(env.num_envs, dtype=torch.long, device=env.device)
        self._until_of_before = self._until_of.clone()
        self._chosen = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)

    def want(self, step: int, starts: bool = False) -> bool:
        """Whether the next step is recorded, in at least some environments.

        May be called again for the same step if something changes before it is taken; then the
        last answer counts.

        Args:
            step: The number of earlier steps.
            starts: Whether a recording begins with this step.
        """
        if self._runner is None:
            return True
        if starts:
            self._runner.start()
        if self._by_episode:
            self._runner.step(step)
            return True
        if step != self._asked:
            self._asked, self._until_before = step, self._until
            if self.per_env:
                self._until_of_before.copy_(self._until_of)
        fired = self._runner.step(step)
        until = _FOREVER if self._length is None else step + self._length
        if not self.per_env:
            self._until = until if fired else self._until_before
            return step < self._until
        self._until_of.copy_(self._until_of_before)
        if isinstance(fired, torch.Tensor):
            self._until_of.masked_fill_(fired, until)
        elif fired:
            self._until_of.fill_(until)
        return True

    def ask_once(self, step: int) -> None:
        """Check whether the trigger fires at a step, unless that was done already."""
        if self._runner is not None and step != self._asked:
            self.want(step)

    def begin(self, env_ids: torch.Tensor, episode: torch.Tensor) -> None:
        """New episodes begin in these environments; `episode` holds the episode number of each."""
        if self._runner is None or not self.per_env:
            return
        if self._by_episode:
            self._chosen.index_copy_(0, env_ids, self._runner.episodes(episode[env_ids]))
        elif self._to_episode_end:
            self._until_of.index_fill_(0, env_ids, 0)
            self._until_of_before.index_fill_(0, env_ids, 0)

    def active(self, step: int, taken: torch.Tensor) -> torch.Tensor | None:
        """Which environments are recorded in a step (num_envs,), given the steps each has taken.

        None means all of them.
        """
        if not self.per_env:
            return None
        if self._by_episode:
            return self._chosen if self._length is None else self._chosen & (taken < self._length)
        return self._until_of > step

    def check_manual(self) -> None:
        """Raise RuntimeError unless the trigger can be fired by hand."""
        if self._runner is None:
            raise RuntimeError("There is no trigger to fire; give the recorder trigger=manual().")
        if self._runner.trigger.kind != "manual":
            self._runner.fire()  # Raises with the reason.

    def fire(self) -> None:
        """Make a manual trigger fire before the next step."""
        assert self._runner is not None
        self._runner.fire()
