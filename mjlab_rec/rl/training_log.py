"""Returns, lengths and logged values of a training, and the curves of them."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mjlab_rec.utils.extras import require

_Logger: Any = require("rsl_rl.utils.logger", "train", "MjlabOnPolicyRunner").Logger

logger = logging.getLogger(__name__)

LOGGERS = ("tensorboard", "wandb")
"""Where curves can go."""

_EPISODES = 100  # Means are over at least that many of the last episodes.


class TrainingLog(_Logger):
    """RSL-RL's logger without its printing, which makes a GPU wait once per iteration only.

    The names of the curves are RSL-RL's.
    """

    cur_reward_sum: torch.Tensor
    """Return of the running episodes so far, (num_envs,)."""

    cur_episode_length: torch.Tensor
    """Their length in steps, (num_envs,)."""

    def __init__(self, **arguments: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(**arguments)
        self.git_status_repos = []  # Those that add_git_repo_to_log() names.
        self.logger_type = self.cfg.get("logger", "tensorboard")
        """"tensorboard" or "wandb"."""
        if self.logger_type not in LOGGERS:
            raise ValueError(
                f"Unknown logger {self.logger_type!r}. Known: {', '.join(LOGGERS)}, which writes"
                " curves for TensorBoard, too."
            )
        self._ended = torch.zeros(3, device=self.device)  # Sums of return, length and 1.
        self._recent: deque[tuple[float, float, float, int]] = deque()
        self._rnd_sums = torch.zeros(2, self.num_envs, device=self.device)
        self._rnd_ended = torch.zeros(2, device=self.device)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last episodes; None before the first one ends."""
        return self._mean(0)

    @property
    def mean_length(self) -> float | None:
        """Mean length of the last episodes, in steps."""
        return self._mean(1)

    def mean_return_since(self, iteration: int) -> float | None:
        """Mean return of the last episodes, without those that ended in earlier iterations.

        None if only a few are left.
        """
        parts = [part for part in self._recent if part[3] >= iteration]
        count = sum(part[2] for part in parts)
        if count < min(_EPISODES, self.num_envs):
            return None
        return sum(part[0] for part in parts) / count

    def init_logging_writer(self, first_iteration: int = 0) -> None:
        """Open the curves. Those of a killed run are cut where this one goes on."""
        if self.log_dir is None or self.disable_logs or self.writer is not None:
            return
        if self.logger_type == "wandb":
            from mjlab_rec.rl.wandb_writer import WandbWriter

            self.writer = WandbWriter(self.log_dir, first_iteration, self.env_cfg, self.cfg)
        else:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(self.log_dir, purge_step=first_iteration, flush_secs=10)
        if self.git_status_repos:
            with contextlib.redirect_stdout(io.StringIO()):
                self._store_code_state()
            with contextlib.suppress(OSError):  # Empty if none of them is in a repository.
                (Path(self.log_dir) / "git").rmdir()

    def process_env_step(
        self,
        rewards: torch.Tensor,
        dones: torch.Tensor,
        extras: dict[str, Any],
        intrinsic_rewards: torch.Tensor | None = None,
    ) -> None:
        """Count a step."""
        log = extras.get("episode") or extras.get("log")
        if log:
            self.ep_extras.append(log)
        over = dones > 0
        ended = over.to(self.cur_reward_sum.dtype)
        if intrinsic_rewards is not None:
            self._rnd_sums += torch.stack((rewards, intrinsic_rewards))
            self._rnd_ended += self._rnd_sums @ ended
            self._rnd_sums.masked_fill_(over, 0.0)
            rewards = rewards + intrinsic_rewards
        self.cur_reward_sum += rewards
        self.cur_episode_length += 1
        sums = torch.stack((self.cur_reward_sum, self.cur_episode_length, torch.ones_like(ended)))
        self._ended += sums @ ended
        self.cur_reward_sum.masked_fill_(over, 0.0)
        self.cur_episode_length.masked_fill_(over, 0.0)

    def end_iteration(self, iteration: int, seconds: float) -> dict[str, float]:
        """Return the iteration's values by name, those of the environments' ``extras["log"]``."""
        self.tot_timesteps += self.cfg["num_steps_per_env"] * self.num_envs * self.gpu_world_size
        self.tot_time += seconds
        values = {
            key: torch.stack(
                [_number(step[key], self.device) for step in self.ep_extras if key in step]
            )
            for key in dict.fromkeys(key for step in self.ep_extras for key in step)
        }
        self.ep_extras.clear()
        means = [value.mean() for value in values.values()]
        numbers = torch.cat((self._ended, self._rnd_ended, *(mean.view(1) for mean in means)))
        total, length, count, extrinsic, intrinsic, *rest = numbers.tolist()  # The only wait.
        found = dict(zip(values, rest, strict=True))
        if count:
            if self.cfg["algorithm"].get("rnd_cfg"):
                found["Rnd/mean_extrinsic_reward"] = extrinsic / count
                found["Rnd/mean_intrinsic_reward"] = intrinsic / count
            self._recent.append((total, length, count, iteration))
            while sum(part[2] for part in list(self._recent)[1:]) >= _EPISODES:
                self._recent.popleft()
        self._ended.zero_()
        self._rnd_ended.zero_()
        return found

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        if self.writer is None:
            return
        for name, value in values.items():
            step = int(self.tot_time) if name.endswith("/time") else iteration
            name = name if "/" in name else f"Episode/{name}"
            self.writer.add_scalar(name, value, step)

    def stop_logging_writer(self) -> None:
        """Write what is left, and close the curves."""
        if self.writer is not None:
            self.writer.close()
            super().stop_logging_writer()
            self.writer = None

    def state(self) -> dict[str, Any]:
        """What the means go on from."""
        return {
            "returns": self.cur_reward_sum,
            "lengths": self.cur_episode_length,
            "rnd": self._rnd_sums,
            "recent": [list(part) for part in self._recent],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.cur_reward_sum.copy_(state["returns"])
        self.cur_episode_length.copy_(state["lengths"])
        self._rnd_sums.copy_(state["rnd"])
        self._recent = deque(tuple(part) for part in state["recent"])

    def _mean(self, index: int) -> float | None:
        count = sum(part[2] for part in self._recent)
        return sum(part[index] for part in self._recent) / count if count else None


def _number(value: Any, device: Any) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float32, device=device).mean()
