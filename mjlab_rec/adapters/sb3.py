"""Recorders around a VecEnv of stable-baselines3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mjlab_rec.adapters.hosted import Recorders
from mjlab_rec.adapters.session import Recorded, Step, same
from mjlab_rec.utils.extras import require

_vec_env = require("stable_baselines3.common.vec_env", None, "RecordVecEnv", "stable-baselines3")


class RecordVecEnv(Recorded, _vec_env.VecEnvWrapper):
    """Records a VecEnv, which resets environments inside the step that ends their episode.

    The observation before the reset comes from ``infos[i]["terminal_observation"]``, and
    ``infos[i]["TimeLimit.truncated"]`` tells truncated from terminated.

    Args:
        venv: The VecEnv.
        recorders: The recorders by name, or one.
        infos: Entries of infos to record, as for ``RecordVector``.
        success: Entry of infos that tells whether an episode succeeded, such as "is_success".
        task: Name of the task; "": the environment's id, if it can be seen from here.
        step_dt: Seconds per step; None: as for ``RecordVector``.
    """

    def __init__(
        self,
        venv: Any,
        recorders: Recorders | None = None,
        *,
        infos: Sequence[str] | Mapping[str, tuple[int, ...]] = (),
        success: str = "",
        task: str = "",
        step_dt: float | None = None,
    ) -> None:
        super().__init__(venv)  # pyright: ignore[reportCallIssue]
        self._begin(
            venv,
            (venv.observation_space, venv.action_space),
            recorders,
            autoreset="same_step",
            render=venv.get_images,
            step_dt=step_dt,
            task=task,
            num_envs=venv.num_envs,
            infos=infos,
            success=success,
        )
        self._given: Any = None

    def seed(self, seed: int | None = None) -> Any:
        """Seed the environments for their next reset."""
        self._session.face.cfg.seed = seed
        return self.venv.seed(seed)

    def reset(self) -> Any:
        """Reset all environments."""
        return self._session.reset(self.venv.reset, same, None)

    def step_async(self, actions: Any) -> None:
        """Begin a step."""
        self._given = np.array(actions)  # A copy: the caller may reuse the array.
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Wait for the step to end."""
        return self._session.step(self._given, self.venv.step_wait, _values)

    def close(self) -> None:
        """Close the recorders, which write what is left, and then the VecEnv. Idempotent."""
        self._session.close(self.venv.close)


def _values(result: Any) -> Step:
    obs, rewards, dones, infos = result
    limits = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
    truncated = dones & limits
    return obs, rewards, dones & ~truncated, truncated, infos
