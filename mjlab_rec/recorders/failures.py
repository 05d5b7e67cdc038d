"""Detecting non-finite values and terminations without making a GPU wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.recorders.rows import Rows

NAN = "nan"
"""Name of the condition for non-finite values."""

_NEVER = -1


class FailureDetector:
    """Detects when a condition becomes true in an environment; one that stays true counts once.

    The results stay on the device. Each check starts a copy to the host, which a later check reads
    once it has arrived, so that on a GPU failures are reported some steps late.

    Args:
        env: The environment.
        specs: Channels of the rows.
        nan: Whether to check the rows for NaN and infinity.
        terminations: Names of the termination terms to check.
    """

    def __init__(
        self, env: Any, specs: Sequence[ChannelSpec], nan: bool, terminations: Sequence[str]
    ) -> None:
        self._manager, self._terminations = env.termination_manager, terminations
        floats = [spec for spec in specs if nan and spec.dtype.kind == "f"]
        self._before = [spec.name for spec in floats if spec.when == "before"]
        self._after = [spec.name for spec in floats if spec.when == "after"]
        self.conditions = [*([NAN] if floats else []), *terminations]
        shape = len(self.conditions), env.num_envs
        self._zeros = torch.zeros(env.num_envs, device=env.device)
        self._sums = self._zeros
        self._was = torch.zeros(shape, dtype=torch.bool, device=env.device)
        # Per condition, since the last report: the first step at which it became true, and where.
        self._since = torch.full(shape[:1], _NEVER, dtype=torch.long, device=env.device)
        self._where = torch.zeros(shape, dtype=torch.bool, device=env.device)
        self._on_gpu = torch.device(env.device).type == "cuda"
        self._seen = torch.full(shape[:1], _NEVER, dtype=torch.long, pin_memory=self._on_gpu)
        self._event: Any = torch.cuda.Event() if self._on_gpu else None
        self._copying = False

    def after(self, ring: Rows, row: int) -> None:
        """Check the results of a row's action."""
        self._sums = self._sum(ring, row, self._after)

    def before(self, ring: Rows, row: int, step: int) -> None:
        """Check the values at the next row's start, and note new failures."""
        if not self.conditions:
            return
        masks = []
        if self._before or self._after:
            masks.append(~(self._sums + self._sum(ring, row, self._before)).isfinite())
        if self._terminations:
            masks += [self._manager.get_term(name) for name in self._terminations]
        self._sums = self._zeros
        now = torch.stack(masks)
        fresh = now & ~self._was
        self._was = now
        new = fresh.any(dim=1) & (self._since == _NEVER)
        self._since.masked_fill_(new, step)
        self._where |= fresh & new[:, None]

    def found(self) -> list[tuple[str, int, list[int]]]:
        """What became true since the last report: condition, step, environments."""
        if not self.conditions or not self._have_arrived():
            return []
        found = []
        for i, step in enumerate(self._seen.tolist()):
            if step != _NEVER:
                found.append(
                    (self.conditions[i], step, self._where[i].nonzero().flatten().tolist())
                )
                self._since[i] = _NEVER
                self._where[i] = False
        return found

    def _have_arrived(self) -> bool:
        """Whether the copy on the host is new; starts the next copy if none is in progress."""
        if not self._on_gpu:
            self._seen.copy_(self._since)
            return True
        if self._copying and self._event.query():
            self._copying = False
            if bool((self._seen != _NEVER).any()):
                return True
        if not self._copying:
            self._seen.copy_(self._since, non_blocking=True)
            self._event.record()
            self._copying = True
        return False

    def _sum(self, ring: Rows, row: int, names: Sequence[str]) -> torch.Tensor:
        """A number per environment that is non-finite if one of its values is."""
        total = self._zeros
        for name in names:
            value = ring[name][row]
            # Scaled down first, or the sum of large values would overflow to infinity.
            total = total + (value.view(len(value), -1) * 1e-30).sum(dim=1)
        return total
