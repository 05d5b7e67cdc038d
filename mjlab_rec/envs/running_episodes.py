"""Number and length of the running episodes, for recorders that are added later."""

from __future__ import annotations

import torch


class RunningEpisodes:
    """Counts each environment's episodes as recorders do, at next to no cost per step.

    ``episode_length_buf`` does not serve: learners write to it.

    Args:
        num_envs: Number of environments.
        device: Where to keep the numbers.
        pending: The environments that the next step only resets (num_envs,), kept up to date by the
            environment; None: a step never does that.
    """

    def __init__(self, num_envs: int, device: str, pending: torch.Tensor | None = None) -> None:
        self._pending = pending
        self.number = torch.zeros(num_envs, dtype=torch.int32, device=device)
        """Number of the running episode (num_envs,), from 0; those without a step do not count."""
        self.step_failed = False
        """Whether the last step failed and no reset has come since."""
        self._steps = 0  # That did not fail.
        self._first = torch.zeros(num_envs, dtype=torch.int32, device=device)

    @property
    def length(self) -> torch.Tensor:
        """Steps of the running episode (num_envs,) int32; -1: it begins after the next step."""
        return self._steps - self._first

    def begin_step(self) -> None:
        """A step begins; it has failed unless ``end_step`` follows."""
        self.step_failed = True

    def end_step(self, reset_ids: torch.Tensor | None) -> None:
        """The step is complete; these environments were reset in it."""
        self._steps += 1
        if reset_ids is None:
            self.step_failed = False
        else:
            self.reset(reset_ids)

    def reset(self, env_ids: torch.Tensor) -> None:
        """These environments were reset."""
        self.step_failed = False
        self._begin(env_ids)

    def cut(self) -> None:
        """An error ended ``step()``: if the step had begun, all episodes end before it."""
        if self.step_failed:
            self._begin(torch.arange(len(self.number), device=self.number.device))

    def _begin(self, env_ids: torch.Tensor) -> None:
        # These functions take half the time of the same with brackets.
        had_steps = (self._steps - self._first.index_select(0, env_ids)).clamp_(0, 1)
        self.number.index_add_(0, env_ids, had_steps)
        self._first.index_fill_(0, env_ids, self._steps)
        if self._pending is not None:
            self._first.index_add_(0, env_ids, self._pending.index_select(0, env_ids).int())
