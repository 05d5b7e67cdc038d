"""Durations of contact phases and air phases."""

from __future__ import annotations

import torch
from torch import Tensor

from mjlab_rec.utils.indexing import EnvIds, write_block


class AirTime:
    """Durations of the current and the last phase, in seconds, each (num_envs, count)."""

    def __init__(self, num_envs: int, count: int, device: str) -> None:
        # Row 0 is the phase in the air, row 1 the one in contact.
        self._current = torch.zeros(num_envs, 2, count, device=device)
        self._last = torch.zeros(num_envs, 2, count, device=device)

    @property
    def current_air_time(self) -> Tensor:
        """Time in the air so far; 0 in contact."""
        return self._current[:, 0].clone()

    @property
    def last_air_time(self) -> Tensor:
        """Length of the last finished air phase."""
        return self._last[:, 0].clone()

    @property
    def current_contact_time(self) -> Tensor:
        """Time in contact so far; 0 in the air."""
        return self._current[:, 1].clone()

    @property
    def last_contact_time(self) -> Tensor:
        """Length of the last finished contact."""
        return self._last[:, 1].clone()

    def update(self, contact: Tensor, dt: float) -> None:
        """Add a physics step that ends in ``contact``, bool (num_envs, count)."""
        # Sum dt instead of reading the simulation's clock, whose float32 resolution drops with
        # time.
        phase = torch.stack((~contact, contact), dim=1)
        lasted = self._current + dt
        ended = (self._current > 0.0) & ~phase
        torch.where(ended, lasted, self._last, out=self._last)
        torch.mul(lasted, phase, out=self._current)

    def first_contact(self, dt: float, abs_tol: float) -> Tensor:
        """Return which made contact within the last ``dt`` seconds."""
        return self._began(1, dt, abs_tol)

    def first_air(self, dt: float, abs_tol: float) -> Tensor:
        """Return which lost contact within the last ``dt`` seconds."""
        return self._began(0, dt, abs_tol)

    def reset(self, env_ids: EnvIds = None) -> None:
        """Clear the durations of the given worlds."""
        write_block(self._current, 0.0, env_ids)
        write_block(self._last, 0.0, env_ids)

    def _began(self, row: int, dt: float, abs_tol: float) -> Tensor:
        current = self._current[:, row]
        return (current > 0.0) & (current < dt + abs_tol)
