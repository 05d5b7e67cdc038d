"""The environment as RSL-RL's VecEnv: observations as TensorDict, one flag for ended episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector.utils import batch_space

from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg

_NAME = "RslRlVecEnvWrapper"
_VecEnv: Any = require("rsl_rl.env", "train", _NAME).VecEnv
_TensorDict: Any = require("tensordict", "train", _NAME).TensorDict


class RslRlVecEnvWrapper(_VecEnv):
    """Lets RSL-RL's runners step an environment. It is reset once, here.

    Args:
        env: The environment, or a wrapper of it with ``unwrapped``.
        clip_actions: Greatest action in either direction; None does not clip.
    """

    def __init__(self, env: ManagerBasedRlEnv, clip_actions: float | None = None) -> None:
        self.env: Any = env
        self.clip_actions = clip_actions
        if clip_actions is not None and not clip_actions > 0.0:
            raise ValueError(f"{_NAME}: clip_actions must be positive, got {clip_actions}.")
        if not self.cfg.auto_reset:
            raise ValueError(
                f"{_NAME} needs an environment that resets what has ended, because RSL-RL does "
                "not. Set ManagerBasedRlEnvCfg(auto_reset=True)."
            )
        self.num_envs = self.unwrapped.num_envs
        self.device = torch.device(self.unwrapped.device)
        self.max_episode_length = self.unwrapped.max_episode_length
        self.num_actions = self.unwrapped.action_manager.total_action_dim
        self.env.reset()

    @classmethod
    def class_name(cls) -> str:
        """The name of this class."""
        return cls.__name__

    @property
    def unwrapped(self) -> ManagerBasedRlEnv:
        """The environment itself."""
        return self.env.unwrapped

    @property
    def cfg(self) -> ManagerBasedRlEnvCfg:
        """The environment's config."""
        return self.unwrapped.cfg

    @property
    def render_mode(self) -> str | None:
        """What ``render()`` of the environment returns."""
        return self.env.render_mode

    @property
    def observation_space(self) -> gymnasium.Space:
        """Observations of all environments."""
        return self.env.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """Actions of all environments, clipped if so configured."""
        if self.clip_actions is None:
            return self.env.action_space
        bound = np.float32(self.clip_actions)
        one = gymnasium.spaces.Box(-bound, bound, (self.num_actions,), dtype=np.float32)
        return batch_space(one, self.num_envs)

    @property
    def episode_length_buf(self) -> torch.Tensor:
        """Steps in the running episodes, (num_envs,)."""
        return self.unwrapped.episode_length_buf

    @episode_length_buf.setter
    def episode_length_buf(self, value: torch.Tensor) -> None:
        # Others hold the same tensor.
        self.unwrapped.episode_length_buf.copy_(value)

    def seed(self, seed: int = -1) -> int:
        """Restart all random streams."""
        return self.unwrapped.seed(seed)

    def get_observations(self) -> Any:
        """Return the current observations as a TensorDict; histories and delays do not advance."""
        return self._pack(self.unwrapped.get_observations())

    def reset(self) -> tuple[Any, dict[str, Any]]:
        """Reset all environments and return observations and extras."""
        obs, extras = self.env.reset()
        return self._pack(obs), extras

    def step(self, actions: torch.Tensor) -> tuple[Any, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Take a step.

        Returns:
            Observations; rewards, (num_envs,); 1 where an episode ended, else 0, (num_envs,); and
            the environment's extras. Unless the task has a finite horizon, ``extras["time_outs"]``
            tells which episodes were merely cut, so that returns go on beyond their ends.
        """
        if self.clip_actions is not None:
            actions = torch.clamp(actions, -self.clip_actions, self.clip_actions)
        obs, reward, terminated, truncated, extras = self.env.step(actions)
        if not self.cfg.is_finite_horizon:
            extras["time_outs"] = truncated
        return self._pack(obs), reward, (terminated | truncated).long(), extras

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _pack(self, obs: dict[str, Any]) -> Any:
        return _TensorDict(obs, batch_size=[self.num_envs])
