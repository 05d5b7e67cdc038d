"""A buffer that returns old frames, like a slow sensor or a laggy bus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mjlab_rec.utils.buffers.ring import Ring, Rows


class DelayBuffer:
    """Delays frames by a number of steps that is drawn for each row.

    Call `append` and then `compute` once a step. `compute` returns the frame of `lag` steps ago, or
    the oldest since the row's reset. These rows draw a new lag in a step:

    - those computed for the first time since their reset, always;
    - with `update_period` 0 all others too, else each every `update_period` steps, at a phase that
      is random (`per_env_phase`) or counted from its reset;
    - except those that keep their lag by chance (`hold_prob`).

    Every `compute` draws the same number of random numbers for the whole batch, so what a row gets
    depends only on the generator's state, not on resets of other rows.

    Args:
        min_lag: Least lag, in steps.
        max_lag: Greatest lag.
        batch_size: Number of rows.
        device: Where the frames are.
        per_env: Draw a lag (and whether to hold) per row. If False there is one draw a step: rows
            that draw in the same step get the same lag.
        hold_prob: Probability of keeping the lag when a new one is due.
        update_period: Steps between draws of a row's lag; 0 means every step.
        per_env_phase: Spread the rows' draws over the period.
        generator: Source of the draws; None means torch's global one.
    """

    def __init__(
        self,
        min_lag: int = 0,
        max_lag: int = 3,
        batch_size: int = 1,
        device: str | torch.device = "cpu",
        per_env: bool = True,
        hold_prob: float = 0.0,
        update_period: int = 0,
        per_env_phase: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        if min_lag < 0:
            raise ValueError(f"min_lag must be >= 0, got {min_lag}.")
        if max_lag < min_lag:
            raise ValueError(f"max_lag ({max_lag}) must be >= min_lag ({min_lag}).")
        if not 0.0 <= hold_prob <= 1.0:
            raise ValueError(f"hold_prob must be in [0, 1], got {hold_prob}.")
        if update_period < 0:
            raise ValueError(f"update_period must be >= 0, got {update_period}.")
        self.min_lag = min_lag
        self.max_lag = max_lag
        self.batch_size = batch_size
        self.device = device
        self.per_env = per_env
        self.hold_prob = hold_prob
        self.update_period = update_period
        self.per_env_phase = per_env_phase
        self.generator = generator

        self._ring = Ring(max_lag + 1, batch_size, device)
        # These only change out of place, so that rollback needs no copies.
        self._lags = torch.zeros(batch_size, dtype=torch.long, device=device)
        # True where the lag is still to be drawn since the reset.
        self._unset = torch.ones(batch_size, dtype=torch.bool, device=device)
        # Steps since the reset plus the phase; -1 where the phase is still to be drawn.
        self._clock = torch.full_like(self._lags, -1)
        self._all_set = torch.zeros_like(self._unset)
        self._least_lags = torch.full_like(self._lags, min_lag)

    @property
    def is_initialized(self) -> bool:
        """Whether any frame was ever appended."""
        return self._ring.is_initialized

    @property
    def current_lags(self) -> Tensor:
        """The lag of each row, (batch_size,); 0 from a reset to the next `compute`."""
        return self._lags

    @property
    def current_length(self) -> Tensor:
        """How many frames each row has seen, at most `max_lag + 1`: (batch_size,)."""
        return self._ring.current_length

    def set_lags(self, lags: Tensor | int, batch_ids: Rows = None) -> None:
        """Set the lags of some rows, clamped to the buffer's range, until they draw new ones."""
        rows = self._ring._rows(batch_ids)
        lags = torch.as_tensor(lags, dtype=torch.long, device=self.device)
        self._lags = _replaced(self._lags, rows, lags.clamp(self.min_lag, self.max_lag))
        self._unset = _replaced(self._unset, rows, False)

    def reset(self, batch_ids: Rows = None) -> None:
        """Forget frames, lag and schedule of some rows."""
        rows = self._ring._rows(batch_ids)
        self._ring.reset(batch_ids)
        self._lags = _replaced(self._lags, rows, 0)
        if self.update_period or self.hold_prob:
            self._unset = _replaced(self._unset, rows, True)
            self._clock = _replaced(self._clock, rows, -1)

    def append(self, data: Tensor, batch_ids: Rows = None) -> None:
        """Add a frame of shape (batch_size, ...); with `batch_ids`, to these rows alone."""
        self._ring.append(data, batch_ids)

    def backfill(self, data: Tensor, batch_ids: Rows = None) -> None:
        """Make a frame the whole history of some rows, without changing lags and schedule."""
        self._ring.backfill(data, batch_ids)

    def compute(self, batch_ids: Rows = None) -> Tensor:
        """Advance the lags by a step and return the delayed frame as a new tensor.

        Args:
            batch_ids: If given, time advances for these rows only. The result still has all rows.
        """
        self._ring._require_storage()
        lags, unset, clock = self._next_schedule()
        if batch_ids is not None:
            moving = _replaced(self._all_set, self._ring._rows(batch_ids), True)
            lags = torch.where(moving, lags, self._lags)
            unset = torch.where(moving, unset, self._unset)
            clock = torch.where(moving, clock, self._clock)
        self._lags, self._unset, self._clock = lags, unset, clock
        return self.peek()

    def peek(self) -> Tensor:
        """Return the frame delayed by the current lags as a new tensor, without advancing."""
        # A lag that all rows share picks one slot instead of gathering from all of them.
        return self._ring[self.min_lag if self._lags is self._least_lags else self._lags]

    @contextmanager
    def rollback(self) -> Iterator[None]:
        """Undo, at the end of a `with` block, all that happened to the buffer inside it.

        The generator stays where the draws left it, because others may share it.
        """
        state = self._lags, self._unset, self._clock
        with self._ring.rollback():
            try:
                yield
            finally:
                self._lags, self._unset, self._clock = state

    def _next_schedule(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.min_lag == self.max_lag:
            return self._least_lags, self._all_set, self._clock
        shape = (self.batch_size if self.per_env else 1,)
        lags = self._randint(self.min_lag, self.max_lag + 1, shape)
        if not self.update_period and not self.hold_prob:
            return lags.expand(self.batch_size), self._all_set, self._clock
        clock, due = self._clock, None
        if self.update_period:
            if self.per_env_phase:
                phase = self._randint(0, self.update_period, (self.batch_size,))
                clock = torch.where(clock < 0, phase, clock)
            else:
                clock = clock.clamp_min(0)
            due = clock % self.update_period == 0
            clock = clock + 1
        if self.hold_prob:
            draw = torch.rand(shape, device=self.device, generator=self.generator)
            due = draw >= self.hold_prob if due is None else due & (draw >= self.hold_prob)
        assert due is not None
        return torch.where(due | self._unset, lags, self._lags), self._all_set, clock

    def _randint(self, low: int, high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(low, high, shape, device=self.device, generator=self.generator)


def _replaced(old: Tensor, rows: Tensor | slice, value: Tensor | float) -> Tensor:
    new = old.clone()
    new[rows] = value
    return new
