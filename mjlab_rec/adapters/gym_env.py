"""Recorders around one environment of Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from mjlab_rec.adapters.facts import chain
from mjlab_rec.adapters.hosted import Recorders
from mjlab_rec.adapters.session import Recorded, Step, first


class RecordEnv(Recorded, gymnasium.Wrapper):
    """Records a single environment; what it returns stays untouched.

    Args:
        env: The environment.
        recorders: The recorders by name, such as {"rows": Hdf5RecorderCfg(path="run.h5")}, or one.
        infos: Entries of infos to record, as for ``RecordVector``.
        success: Entry of infos that tells whether an episode succeeded.
        task: Name of the task; "": the environment's id.
        step_dt: Seconds per step; None: as for ``RecordVector``.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        recorders: Recorders | None = None,
        *,
        infos: Sequence[str] | Mapping[str, tuple[int, ...]] = (),
        success: str = "",
        task: str = "",
        step_dt: float | None = None,
    ) -> None:
        super().__init__(env)
        resets = any(isinstance(each, gymnasium.wrappers.Autoreset) for each in chain(env))
        self._begin(
            env,
            (env.observation_space, env.action_space),
            recorders,
            autoreset="next_step" if resets else "disabled",
            render=env.render,
            step_dt=step_dt,
            task=task,
            infos=infos,
            success=success,
            single=True,
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin an episode."""
        if seed is not None:
            self._session.face.cfg.seed = seed
        return self._session.reset(lambda: self.env.reset(seed=seed, options=options), first, None)

    def step(self, action: Any) -> Any:
        """Take a step."""
        return self._session.step(action, lambda: self.env.step(action), _values)

    def close(self) -> None:
        """Close the recorders, which write what is left, and then the environment. Idempotent."""
        self._session.close(self.env.close)


def _values(result: Any) -> Step:
    obs, reward, terminated, truncated, info = result
    return (
        obs,
        np.array([reward], np.float64),
        np.array([terminated], bool),
        np.array([truncated], bool),
        [info],
    )
