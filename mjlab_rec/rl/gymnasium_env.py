"""The environment in the format of Gymnasium's own vector environments: numpy and final_obs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorWrapper

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.sim.renderer import Renderer, make_renderer

NumpyStep = tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class NumpyVectorEnv(VectorWrapper):
    """Takes and returns numpy arrays, in the format of ``gymnasium.vector.SyncVectorEnv``.

    In a step that ends episodes, the returned info holds what Gymnasium's autoreset mode SAME_STEP
    promises (arrays have one element per environment, masks say which ones count)::

        final_obs    object array: the episode's last observation, or None
        _final_obs   mask of the environments whose episode ended
        final_info   episode: {"r": its return, "l": its length}
                     log: the environment's log entries, averaged over the episodes that ended
        _final_info  the same mask

    On a CPU the arrays are the environment's tensors, without a copy.
    """

    env: ManagerBasedRlEnv

    def __init__(self, env: ManagerBasedRlEnv) -> None:
        super().__init__(env)
        self._auto_resets = env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        if self._auto_resets:
            env.cfg.final_obs = True
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._renderer: Renderer | None = None

    @property
    def render_mode(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How the environment renders: "rgb_array", or None if it does not."""
        return self.env.render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start new episodes everywhere, or where ``options["reset_mask"]`` is true.

        One seed serves all environments, which still differ from each other.
        """
        if seed is not None and not isinstance(seed, (int, np.integer)):
            raise TypeError(
                f"reset() takes one seed for all environments, got {seed!r}. Give a single int."
            )
        mask = None if options is None else options.get("reset_mask")
        if mask is None:
            obs, _ = self.env.reset(seed=None if seed is None else int(seed))
            mask = np.ones(self.num_envs, dtype=bool)
        else:
            mask = self._check_mask(mask)
            obs, _ = self.env.reset(seed=seed, env_ids=torch.from_numpy(mask.nonzero()[0]))
        self._forget(mask)
        return _map(_to_numpy, obs), {}

    def step(self, actions: np.ndarray) -> NumpyStep:
        """Advance every environment by one control step."""
        # A copy: the caller may reuse its array.
        action = torch.from_numpy(np.array(actions, dtype=np.float32))
        obs, *outcome, extras = self.env.step(action)
        reward, terminated, truncated = map(_to_numpy, outcome)
        self._returns += reward
        self._lengths += 1
        info: dict[str, Any] = {}
        done = terminated | truncated
        if self._auto_resets and done.any():
            info = self._final(done, _map(_to_numpy, extras["final_obs"]), extras["log"])
            self._forget(done)
        return _map(_to_numpy, obs), reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return an image (height, width, 3) of each environment, or None without a render mode.

        The environment's own ``render()`` draws only ``cfg.viewer.env_idx``, which is cheaper.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = make_renderer(self.env.sim, self.env.cfg.viewer, self.env.scene)
        renderer = self._renderer
        return tuple(renderer.draw(renderer.capture(range(self.num_envs))))

    def close(self, **kwargs: Any) -> None:
        """Close the environment, and free the renderer."""
        try:
            super().close(**kwargs)
        finally:
            if self._renderer is not None:
                self._renderer.close()

    def _final(self, done: np.ndarray, obs: dict[str, Any], log: dict[str, Any]) -> dict[str, Any]:
        """Return the info about the episodes that ended."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in done.nonzero()[0]:
            final_obs[i] = _map(lambda array, i=i: array[i], obs)

        def entry(name: str, value: Any) -> dict[str, np.ndarray]:
            return {name: np.where(done, value, np.zeros_like(value)), f"_{name}": done.copy()}

        episode = entry("r", self._returns) | entry("l", self._lengths)
        logged: dict[str, np.ndarray] = {}
        for name, value in log.items():
            logged |= entry(name, np.asarray(_to_numpy(value)))
        final_info: dict[str, Any] = {"episode": episode, "_episode": done.copy()}
        if logged:
            final_info |= {"log": logged, "_log": done.copy()}
        return {
            "final_obs": final_obs,
            "_final_obs": done.copy(),
            "final_info": final_info,
            "_final_info": done.copy(),
        }

    def _forget(self, mask: np.ndarray) -> None:
        """Restart the counts of these environments."""
        self._returns[mask] = 0.0
        self._lengths[mask] = 0

    def _check_mask(self, mask: Any) -> np.ndarray:
        if (
            not isinstance(mask, np.ndarray)
            or mask.dtype != np.bool_
            or mask.shape != (self.num_envs,)
            or not mask.any()
        ):
            given = type(mask).__name__
            if isinstance(mask, np.ndarray):
                given = f"{mask.dtype} of shape {mask.shape}"
            raise ValueError(
                f"options['reset_mask'] must be a bool array of shape ({self.num_envs},) with at"
                f" least one True, got {given}."
            )
        return mask


def _map(func: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to every array in nested dicts."""
    if isinstance(tree, dict):
        return {name: _map(func, value) for name, value in tree.items()}
    return func(tree)


def _to_numpy(value: Any) -> Any:
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else value
