"""Durations of contact phases and air phases."""

from __future__ import annotations

import torch
from torch import Tensor

from mjlab_rec.utils.indexing import EnvIds, write_block


class AirTime:
    """Durations of the current and the last phase, in seconds, each (num_envs, count)."""

    def __init__(self, num_envs: int, count: int, device: str) -> None:
        # Rows: now in the air, now in contact, the last time in the air, the last in contact. Two
        # of them take turns, so that an update needs no copy; each with views of its halves.
        both = torch.zeros(2, num_envs, 4, count, device=device)
        self._halves = [(times[:, :2], times[:, 2:]) for times in both]
        self._now, self._other = both
        self._row = torch.tensor([[False], [True]], device=device)

    @property
    def current_air_time(self) -> Tensor:
        """Time in the air so far; 0 in contact."""
        return self._now[:, 0].clone()

    @property
    def last_air_time(self) -> Tensor:
        """Length of the last finished air phase."""
        return self._now[:, 2].clone()

    @property
    def current_contact_time(self) -> Tensor:
        """Time in contact so far; 0 in the air."""
        return self._now[:, 1].clone()

    @property
    def last_contact_time(self) -> Tensor:
        """Length of the last finished contact."""
        return self._now[:, 3].clone()

    def read(self) -> tuple[Tensor, ...]:
        """The current air and contact times, then the last ones, in one copy."""
        return self._now.clone().unbind(dim=1)

    def update(self, contact: Tensor, dt: float) -> None:
        """Add a physics step that ends in ``contact``, bool (num_envs, count)."""
        # Sum dt instead of reading the simulation's clock, whose float32 resolution drops with
        # time.
        (current, last), (new_current, new_last) = self._halves
        lasted = current + dt
        torch.mul(lasted, contact.unsqueeze(1) == self._row, out=new_current)
        # A duration only becomes shorter if its phase ends.
        torch.where(new_current < current, lasted, last, out=new_last)
        self._halves.reverse()
        self._now, self._other = self._other, self._now

    def first_contact(self, dt: float, abs_tol: float) -> Tensor:
        """Return which made contact within the last ``dt`` seconds."""
        return self._began(1, dt, abs_tol)

    def first_air(self, dt: float, abs_tol: float) -> Tensor:
        """Return which lost contact within the last ``dt`` seconds."""
        return self._began(0, dt, abs_tol)

    def reset(self, env_ids: EnvIds = None) -> None:
        """Clear the durations of the given worlds."""
        write_block(self._now, 0.0, env_ids)

    def _began(self, row: int, dt: float, abs_tol: float) -> Tensor:
        current = self._now[:, row]
        return (current > 0.0) & (current < dt + abs_tol)
