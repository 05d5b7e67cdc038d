"""Counters of each environment's running episode, kept on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from mjlab_rec.data.block_memory import EndsMemory
from mjlab_rec.recorders.channels import step_reward


class EpisodeCounters:
    """Number, length, return and success of the running episodes, and the part that is recorded.

    They count from the creation of the environment, whatever is recorded. The sums of an episode
    that was running before are unknown: NaN. The last step can be undone.

    Args:
        env: The environment.
        success: Returns which environments have succeeded; None if success is not defined.
        sums: Whether to sum each reward term as well.
    """

    def __init__(self, env: Any, success: Callable[[], torch.Tensor] | None, sums: bool) -> None:
        count, device = env.num_envs, env.device
        self._env = env
        self._pending: torch.Tensor | None = getattr(env, "pending_resets", None)
        self._success = success
        self.sum_names: tuple[str, ...] = tuple(env.reward_manager.active_terms) if sums else ()
        """Names of the reward terms that are summed."""
        self._scale = env.step_dt if getattr(env.cfg, "scale_rewards_by_dt", True) else 1.0
        self.episode = torch.zeros(count, dtype=torch.int32, device=device)
        """Number of the running episode (num_envs,)."""
        self._episode_before = self.episode.clone()
        # A number would be made a tensor each time, which takes longer than adding it.
        self._one = torch.ones((), dtype=torch.int32, device=device)
        self._now = _Sums.zeros(count, len(self.sum_names), device)
        # The values before the last step.
        self._before = _Sums.zeros(count, len(self.sum_names), device)
        self._restarted = False
        running, length = getattr(env, "running_episodes", None), env.episode_length_buf
        if running is not None:  # mjlab's environment has none.
            self.episode.copy_(running.number)
            length = running.length
        self._now.steps[0].copy_(length)
        self._now.totals[0].masked_fill_(length > 0, torch.nan)
        self._now.terms.masked_fill_((length > 0)[:, None], torch.nan)

    @property
    def knows_success(self) -> bool:
        """Whether success is defined."""
        return self._success is not None

    @property
    def length(self) -> torch.Tensor:
        """Steps of the running episode (num_envs,) int32; -1: it begins after the next step."""
        return self._now.length

    @property
    def rows(self) -> torch.Tensor:
        """Recorded rows of the running episode (num_envs,) int32."""
        return self._now.rows

    @property
    def total(self) -> torch.Tensor:
        """Return of the running episode (num_envs,) float64."""
        return self._now.total

    @property
    def recorded(self) -> torch.Tensor:
        """The part of the return that was recorded (num_envs,) float64."""
        return self._now.recorded

    def add_step(self, has_row: bool, active: torch.Tensor | None) -> None:
        """Count the step that was just taken.

        Args:
            has_row: Whether it has a row.
            active: The environments with a row (num_envs,); None means all.
        """
        old, new = self._now, self._before
        reward = self._env.reward_buf
        if has_row and active is None:
            torch.add(old.steps, self._one, out=new.steps)
            torch.add(old.totals, reward, out=new.totals)
        else:
            torch.add(old.length, self._one, out=new.length)
            torch.add(old.total, reward, out=new.total)
            if has_row and active is not None:
                torch.add(old.rows, active, out=new.rows)
                torch.add(old.recorded, torch.where(active, reward, 0.0), out=new.recorded)
            else:
                new.rows.copy_(old.rows)
                new.recorded.copy_(old.recorded)
        if self._success is not None:
            new.success.copy_(self._success())
        if self.sum_names:
            rewards = step_reward(self._env.reward_manager)
            torch.add(old.terms, rewards, alpha=self._scale, out=new.terms)
        self._now, self._before = new, old
        self._restarted = False

    def undo_step(self) -> None:
        """Undo the last step and its restarts."""
        self._now, self._before = self._before, self._now
        if self._restarted:
            self.episode.copy_(self._episode_before)

    def begin_recording(self) -> None:
        """A recording begins; none of the running episodes has rows in it yet."""
        self.rows.zero_()
        self.recorded.zero_()

    def lose_rows(self) -> None:
        """Rows were lost; the recorded return of the running episodes is no longer known."""
        self.recorded.masked_fill_(self.rows > 0, torch.nan)

    def restart(self, env_ids: torch.Tensor) -> None:
        """New episodes begin; an episode without a step is not counted."""
        if not self._restarted:
            self._restarted = True
            self._episode_before.copy_(self.episode)
        had_steps = self.length.index_select(0, env_ids).clamp_(0, 1)
        self.episode.index_add_(0, env_ids, had_steps)
        self._now.clear(env_ids)
        if self._pending is not None:
            later = self._pending.index_select(0, env_ids).int()
            self.length.index_add_(0, env_ids, later, alpha=-1)

    def write_ends(self, ends: EndsMemory, at: slice, env_ids: torch.Tensor, cut: bool) -> None:
        """Write how these episodes ended; `cut` means neither terminated nor truncated."""
        now = self._now
        ends.env[at] = env_ids
        gather(self.episode, env_ids, ends.episode[at])
        gather(now.length, env_ids, ends.length[at])
        gather(now.rows, env_ids, ends.rows[at])
        gather(now.total, env_ids, ends.total[at])
        gather(now.recorded, env_ids, ends.recorded[at])
        if self._success is None:
            ends.success[at] = -1
        else:
            gather(now.success, env_ids, ends.success[at])
            if cut:  # It might still have succeeded.
                ends.success[at].masked_fill_(ends.success[at] == 0, -1)
        if cut:
            ends.terminated[at] = False
            ends.truncated[at] = False
        else:
            gather(self._env.reset_terminated, env_ids, ends.terminated[at])
            gather(self._env.reset_time_outs, env_ids, ends.truncated[at])
        if self.sum_names:
            gather(now.terms, env_ids, ends.values[at])


class _Sums:
    """Sums over an episode."""

    def __init__(
        self, steps: torch.Tensor, totals: torch.Tensor, success: torch.Tensor, terms: torch.Tensor
    ) -> None:
        self.steps = steps  # (2, num_envs) int32: all, and those with a row
        self.length, self.rows = steps
        self.totals = totals  # (2, num_envs) float64: all rewards, and those with a row
        self.total, self.recorded = totals
        self.success = success  # (num_envs,) int8: 1 yes, 0 no
        self.terms = terms  # (num_envs, reward terms)

    @classmethod
    def zeros(cls, count: int, terms: int, device: Any) -> _Sums:
        return cls(
            torch.zeros((2, count), dtype=torch.int32, device=device),
            torch.zeros((2, count), dtype=torch.float64, device=device),
            torch.zeros(count, dtype=torch.int8, device=device),
            torch.zeros((count, terms), device=device),
        )

    def clear(self, env_ids: torch.Tensor) -> None:
        self.steps.index_fill_(1, env_ids, 0)
        self.totals.index_fill_(1, env_ids, 0.0)
        self.success.index_fill_(0, env_ids, 0)
        if self.terms.numel():
            self.terms.index_fill_(0, env_ids, 0.0)


class LateEnds:
    """Episode ends while no rows are recorded; at most one per environment has rows.

    Args:
        counters: Counters of the episodes.
    """

    def __init__(self, counters: EpisodeCounters) -> None:
        count, device = len(counters.episode), counters.episode.device
        values = len(counters.sum_names)
        self.ends = EndsMemory.allocate(count, values, device)
        """A slot per environment; empty where ``length`` is 0."""
        self.any = False
        """Whether any may have been added."""
        self._scratch = EndsMemory.allocate(count, values, device)
        self._calls = 0
        self._call = torch.zeros(count, dtype=torch.int64, device=device)  # that filled each slot
        self._counters = counters

    def add(self, env_ids: torch.Tensor, cut: bool, step: int) -> None:
        """Add episode ends; those without rows are left out."""
        at = slice(0, len(env_ids))
        new = self._scratch
        self._counters.write_ends(new, at, env_ids, cut)
        new.row[at] = -1
        new.at[at] = step
        new.time[at] = time.time()
        has_rows = new.rows[at] > 0
        for (_, slots), (_, values) in zip(self.ends.columns(), new.columns(), strict=True):
            mask = has_rows.view(-1, *[1] * (values.ndim - 1))
            slots[env_ids] = torch.where(mask, values[at], slots[env_ids])
        self._calls += 1
        self._call[env_ids] = torch.where(has_rows, self._calls, self._call[env_ids])
        self.any = True

    def take(self, ends: EndsMemory, at: slice) -> None:
        """Move all slots to `ends`, in the order in which the episodes ended."""
        order = self._call.argsort(stable=True)
        for (_, slots), (_, values) in zip(self.ends.columns(), ends.columns(), strict=True):
            values[at] = slots[order]
        self.ends.length.zero_()
        self.any = False


def gather(values: torch.Tensor, ids: torch.Tensor, out: torch.Tensor) -> None:
    """Copy the rows at `ids` into `out`, converting their type if necessary."""
    if values.dtype == out.dtype:
        torch.index_select(values, 0, ids, out=out)
    else:
        out.copy_(values.index_select(0, ids))
