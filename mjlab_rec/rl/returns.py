"""Returns and lengths of the episodes that end while an environment is stepped."""

from __future__ import annotations

from typing import Any

import torch


class Returns:
    """Adds up an environment's rewards into the returns of its episodes."""

    def __init__(self, env: Any) -> None:
        self.finished: list[float] = []
        """Returns of the episodes that ended, in order."""
        self.lengths: list[int] = []
        """Their lengths, in steps."""
        self.running = torch.zeros(env.num_envs, device=env.device)
        """Returns so far of the current episodes, (num_envs,)."""
        self._steps = torch.zeros(env.num_envs, dtype=torch.long, device=env.device)
        self._env = env

    def add_step(self) -> None:
        """Count the step that has just been taken."""
        env = self._env
        # Episodes that the caller reset do not count.
        fresh = env.episode_length_buf == 1
        self.running.masked_fill_(fresh, 0.0).add_(env.reward_buf)
        self._steps.masked_fill_(fresh, 0).add_(1)
        ended = env.reset_buf.nonzero().squeeze(-1)
        if len(ended):
            self.finished += self.running[ended].tolist()
            self.lengths += self._steps[ended].tolist()
            self.running[ended] = 0.0
            self._steps[ended] = 0
