"""Another package's environment, as recorders see it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from mjlab_rec.adapters.random_numbers import GlobalRandom
from mjlab_rec.managers.observation_manager import map_observations

# Results of a step, which some environments do not have before the first one.
_RESULTS = {
    "reward_buf": torch.float32,
    "reset_buf": torch.bool,
    "reset_terminated": torch.bool,
    "reset_time_outs": torch.bool,
}


class EnvView:
    """Shows an environment with what it lacks; everything else is the environment's own.

    Args:
        env: The environment.
        task: The task's name, for descriptions and file names.
        final_obs: Whether final observations are provided.
    """

    ends_steps_late = False

    def __init__(self, env: Any, task: str | None, final_obs: bool) -> None:
        self.env = env
        """The environment itself."""
        self.cfg = copy.copy(env.cfg)
        self.cfg.task = task
        if final_obs:
            self.cfg.final_obs = True
        self.rng = GlobalRandom(env.device, env.cfg.seed or 0)
        self.recording_notes: list[str] = []
        """What recordings say about what they cannot know."""
        self.command_manager = CommandsView(env.command_manager)
        self.hidden_steps = 0
        """How many of the environment's last steps recorders have not been told about yet."""
        self._final_obs: Mapping[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # While a copy is being made.
            raise AttributeError(name)
        if name in _RESULTS and not hasattr(self.env, name):
            return torch.zeros(self.env.num_envs, dtype=_RESULTS[name], device=self.env.device)
        return getattr(self.env, name)

    @property
    def common_step_counter(self) -> int:
        """Steps so far."""
        return self.env.common_step_counter - self.hidden_steps

    @property
    def extras(self) -> Mapping[str, Any]:
        """The environment's extras, and the final observation if there is one."""
        if self._final_obs is None:
            return self.env.extras
        return {**self.env.extras, "final_obs": self._final_obs}

    def set_final_obs(self, final_obs: Mapping[str, Any] | None) -> None:
        """Show this final observation from now on."""
        self._final_obs = final_obs

    def complete_final_obs(self) -> None:
        """Show the current observation as the final one where no episode ended."""
        now, final = self.obs_buf, self._final_obs
        if final is None:
            self._final_obs = now
            return
        ended = self.env.reset_buf

        def choose(last: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
            return torch.where(ended.view(-1, *[1] * (last.ndim - 1)), last, current)

        self._final_obs = map_observations(choose, dict(final), dict(now))


class CommandsView:
    """A command manager that still shows the last step's commands where a step is told late."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._kept: dict[str, torch.Tensor] = {}
        self.shows_kept = False
        """Whether commands are shown as ``keep`` found them."""

    def __getattr__(self, name: str) -> Any:
        if name == "_manager":
            raise AttributeError(name)
        return getattr(self._manager, name)

    def keep(self) -> None:
        """Remember the commands as they are."""
        names = self._manager.active_terms
        self._kept = {name: self._manager.get_command(name).clone() for name in names}

    def get_command(self, name: str) -> torch.Tensor:
        """The command that the environments follow."""
        return self._kept[name] if self.shows_kept else self._manager.get_command(name)
