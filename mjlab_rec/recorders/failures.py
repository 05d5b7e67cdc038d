"""Watching for values that are not finite and for terminations, without making a GPU wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.recorders.rows import Rows

NAN = "nan"
"""Name of the condition that a value is not finite."""

_NEVER = -1


class FailureDetector:
    """Notices when a condition becomes true in an environment, and not that it stays true.

    What it notices stays on the device. Each look starts a copy to the host, which a later look
    reads if it has arrived: on a GPU, news come some steps late.

    Args:
        env: The environment.
        specs: Channels of the rows.
        nan: Whether to look for NaN and infinity in the rows.
        terminations: Names of termination terms to look at.
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
        # Per condition: since the last news, the first step at which it became true, and where.
        self._since = torch.full(shape[:1], _NEVER, dtype=torch.long, device=env.device)
        self._where = torch.zeros(shape, dtype=torch.bool, device=env.device)
        self._on_gpu = torch.device(env.device).type == "cuda"
        self._seen = torch.full(shape[:1], _NEVER, dtype=torch.long, pin_memory=self._on_gpu)
        self._event: Any = torch.cuda.Event() if self._on_gpu else None
        self._copying = False

    def after(self, ring: Rows, row: int) -> None:
        """Look at what came of a row's action."""
        self._sums = self._sum(ring, row, self._after)

    def before(self, ring: Rows, row: int, step: int) -> None:
        """Look at what the next row starts from, and take note of what is new."""
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
        """What became true since the last news: condition, step, environments."""
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
        """Whether the host's copy is new; begins the next copy if none is under way."""
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
        """Per environment a number that is not finite if one of the values is not."""
        total = self._zeros
        for name in names:
            value = ring[name][row]
            # Scaled down before it is added up, or large values would overflow to infinity.
            total = total + (value.view(len(value), -1) * 1e-30).sum(dim=1)
        return total
