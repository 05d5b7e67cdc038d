"""Runners of triggers: each answers one recorder, and keeps the state for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from mjlab_rec.recorders.triggers import Trigger

_FIRST_ROOM = 1024  # Episodes for which there is room in a table of answers at first.


class TriggerRunner:
    """Evaluates a trigger for one recorder, and keeps the state for it.

    A recorder calls ``episodes`` as episodes begin if ``scope`` is "episode", and ``step`` before
    each control step. A condition that stays true fires only once.
    """

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.scope = trigger.scope

    def start(self) -> None:
        """A recording begins: ``at_start()`` fires at the next ``step``."""

    def episodes(self, count: torch.Tensor) -> torch.Tensor:
        """Which episodes to record, given the count of earlier ones per environment: (k,) bool.

        Runs on the counters' device, without waiting for it.
        """
        return torch.zeros_like(count, dtype=torch.bool)

    def step(self, step: int) -> bool | torch.Tensor:
        """Whether to start at this step, given the number of earlier ones.

        A bool applies to all environments; a tensor (num_envs,) on their device decides for each.
        May be called again for the same step; then the last answer counts.
        """
        return False

    def fire(self) -> None:
        """Make the next ``step`` fire. Only ``manual()`` supports this."""
        raise RuntimeError(
            f"The trigger {self.trigger} cannot be fired by hand. Use manual() for that."
        )


class EpisodeRunner(TriggerRunner):
    """Chooses among episodes by a test of their numbers, which runs on the device."""

    def __init__(self, trigger: Trigger, chosen: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(trigger)
        self._chosen = chosen

    def episodes(self, count: torch.Tensor) -> torch.Tensor:
        """Which episodes to record."""
        return self._chosen(count)


class EpisodeFunctionRunner(TriggerRunner):
    """Chooses among episodes by a function of their number, which it asks once for each number.

    The function runs on the host, but where the counters are on a GPU, the host does not know
    them. An episode has at least one step, though, so the function is asked for one more number
    after each step, and its answers are kept in a table on the device.
    """

    def __init__(self, trigger: Trigger, env: Any) -> None:
        super().__init__(trigger)
        self._answers = torch.zeros(_FIRST_ROOM, dtype=torch.bool, device=env.device)
        self._asked = 0  # Numbers for which there is an answer.
        self._latest_step: int | None = None
        # No episode has a greater number. One may be running when the recorder is created.
        self._most = getattr(env, "common_step_counter", 0) + 1

    def step(self, step: int) -> bool:
        """Count the step; episodes are chosen as they begin."""
        if step != self._latest_step:
            self._latest_step = step
            self._most += 1
        return False

    def episodes(self, count: torch.Tensor) -> torch.Tensor:
        """Which episodes to record."""
        most = max(count.tolist(), default=0) if count.device.type == "cpu" else self._most
        while self._asked <= most:
            if self._asked == len(self._answers):
                self._answers = torch.cat([self._answers, torch.zeros_like(self._answers)])
            if call(self.trigger, self._asked):
                # Filled and not assigned: copying a value from the host would wait for the device.
                self._answers.narrow(0, self._asked, 1).fill_(True)
            self._asked += 1
        return self._answers.index_select(0, count.clamp(max=self._asked - 1))


class StepRunner(TriggerRunner):
    """Chooses among steps by their number."""

    def __init__(self, trigger: Trigger, chosen: Callable[[int], bool]) -> None:
        super().__init__(trigger)
        self._chosen = chosen

    def step(self, step: int) -> bool:
        """Whether to start at this step."""
        return self._chosen(step)


class ManualRunner(TriggerRunner):
    """Fires at the next step when it is told to."""

    _told = False
    _fired_at: int | None = None

    def step(self, step: int) -> bool:
        """Whether to start at this step."""
        if self._told:
            self._told, self._fired_at = False, step
        return step == self._fired_at

    def fire(self) -> None:
        """Make the next ``step`` fire."""
        self._told = True


class StartRunner(ManualRunner):
    """Fires at the first step of a recording."""

    def start(self) -> None:
        """A recording begins."""
        self._told = True

    def fire(self) -> None:
        """Refuse."""
        TriggerRunner.fire(self)


class ConditionRunner(TriggerRunner):
    """Fires when a condition of the environment or the step becomes true."""

    def __init__(self, trigger: Trigger, env: Any) -> None:
        super().__init__(trigger)
        self._env = env
        self._by_step = trigger.takes == "step"
        self._before: bool | torch.Tensor = False  # At the previous step.
        self._latest: bool | torch.Tensor = False
        self._asked: int | None = None

    def step(self, step: int) -> bool | torch.Tensor:
        """Whether to start at this step."""
        now = self._now(step)
        if step != self._asked:
            self._asked, self._before = step, self._latest
        before, self._latest = self._before, now
        if isinstance(now, bool) and isinstance(before, bool):
            return now and not before
        return torch.logical_not(torch.as_tensor(before, device=self._env.device)) & now

    def _now(self, step: int) -> bool | torch.Tensor:
        if self._by_step:
            return call(self.trigger, step)
        assert self.trigger.predicate is not None
        now = self.trigger.predicate(self._env)
        if isinstance(now, torch.Tensor):
            # A copy, because the function may reuse the buffer that it returns.
            return self._checked(now).expand(self._env.num_envs).clone()
        if not isinstance(now, bool):
            raise TypeError(self._complaint(f"a {type(now).__name__}"))
        return now

    def _checked(self, now: torch.Tensor) -> torch.Tensor:
        if now.dtype != torch.bool or now.shape not in ((), (self._env.num_envs,)):
            raise TypeError(self._complaint(f"a {now.dtype} tensor of shape {tuple(now.shape)}"))
        return now

    def _complaint(self, got: str) -> str:
        return (
            f"The condition of {self.trigger} returned {got}, expected a bool or a torch.bool"
            f" tensor of shape ({self._env.num_envs},)."
        )


def call(trigger: Trigger, number: int) -> bool:
    """Call a trigger's function of the step or episode, and check what it returns."""
    assert trigger.predicate is not None
    answer = trigger.predicate(number)
    if not isinstance(answer, (bool, np.bool_)):
        raise TypeError(
            f"The function of the trigger {trigger} returned {answer!r} for {trigger.takes}"
            f" {number}, expected True or False."
        )
    return bool(answer)


def one_of(numbers: Any, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Create a test of whether counters are among some numbers."""
    # Copied to the device once: a copy in each call would wait for the device.
    known = torch.tensor(sorted(numbers), dtype=torch.long, device=device)

    def test(count: torch.Tensor) -> torch.Tensor:
        place = torch.searchsorted(known, count.long()).clamp_(max=len(known) - 1)
        return known[place] == count

    return test
