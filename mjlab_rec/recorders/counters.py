"""What is known of every environment's running episode, kept on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mjlab_rec.recorders.rows import Lanes, Parts, gather


class EpisodeCounters:
    """Number, length, return and success of the running episodes.

    Kept apart from the rows, so that they are right whatever part of an episode is recorded.

    Args:
        env: The environment.
        lanes: The environments that are recorded.
        success: Tells which environments have succeeded, or None if nobody can tell.
        sums: Whether to add up each reward term as well.
    """

    def __init__(
        self,
        env: Any,
        lanes: Lanes,
        success: Callable[[], torch.Tensor] | None,
        sums: bool,
    ) -> None:
        count, device = env.num_envs, env.device
        self._env = env
        self._lanes = lanes
        self._success = success
        self.episode = torch.zeros(count, dtype=torch.int32, device=device)
        self.length = env.episode_length_buf.to(torch.int32)
        # The return of an episode that is running already will never be known.
        self._total = torch.where(self.length > 0, torch.nan, 0.0).double()
        self._rows = torch.zeros(count, dtype=torch.int32, device=device)
        self._recorded = torch.zeros_like(self._total)
        self._won = torch.full((count,), -1, dtype=torch.int8, device=device)
        self.sum_names: tuple[str, ...] = tuple(env.reward_manager.active_terms) if sums else ()
        self._sums = torch.zeros(count, len(self.sum_names), device=device)
        self._scale = env.step_dt if getattr(env.cfg, "scale_rewards_by_dt", True) else 1.0

    def add_step(self) -> None:
        """Count the step that has just been taken."""
        self._total.add_(self._env.reward_buf)
        self.length.add_(1)
        if self._success is not None:
            self._won.copy_(self._success())
        if self.sum_names:
            self._sums.add_(self._env.reward_manager.step_reward, alpha=self._scale)

    def add_rows(self, active: torch.Tensor | None) -> None:
        """Count the row of the step that has just been taken, where it is `active`; None: all."""
        reward = self._env.reward_buf
        self._rows.add_(1 if active is None else active)
        self._recorded.add_(reward if active is None else reward * active)

    def write_header(self, parts: Parts) -> None:
        """Write where the episodes are before a block's first row."""
        parts["first_episode"].copy_(self._lanes.select(self.episode))
        parts["first_step"].copy_(self._lanes.select(self.length))

    def write_totals(self, parts: Parts) -> None:
        """Write the running returns after a block's last row."""
        parts["total"].copy_(self._lanes.select(self._total))
        if "recorded" in parts:
            parts["recorded"].copy_(self._lanes.select(self._recorded))

    def write_ends(self, parts: Parts, at: slice, env_ids: torch.Tensor) -> None:
        """Write how these episodes ended."""
        parts["end/env"][at] = env_ids
        gather(self.episode, env_ids, parts["end/episode"][at])
        gather(self.length, env_ids, parts["end/length"][at])
        gather(self._total, env_ids, parts["end/total"][at])
        gather(self._rows, env_ids, parts["end/rows"][at])
        gather(self._recorded, env_ids, parts["end/recorded"][at])
        gather(self._env.reset_terminated, env_ids, parts["end/terminated"][at])
        gather(self._env.reset_time_outs, env_ids, parts["end/truncated"][at])
        gather(self._won, env_ids, parts["end/success"][at])
        if self.sum_names:
            gather(self._sums, env_ids, parts["end/values"][at])

    def restart(self, env_ids: torch.Tensor) -> None:
        """New episodes begin; those without a step do not count."""
        self.episode.index_add_(0, env_ids, (self.length[env_ids] > 0).int())
        self.length.index_fill_(0, env_ids, 0)
        self._total.index_fill_(0, env_ids, 0.0)
        self._rows.index_fill_(0, env_ids, 0)
        self._recorded.index_fill_(0, env_ids, 0.0)
        self._won.index_fill_(0, env_ids, -1)
        if self.sum_names:
            self._sums.index_fill_(0, env_ids, 0.0)
