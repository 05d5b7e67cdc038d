"""Recorders around one environment of Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from mjlab_rec.adapters.face import Face, FaceCfg
from mjlab_rec.adapters.facts import chain, facts, step_dt_of, task_of
from mjlab_rec.adapters.frames import RenderedFrames
from mjlab_rec.adapters.hosted import Recorders
from mjlab_rec.adapters.session import Session, Step, refuse_pickling
from mjlab_rec.managers.recorder_manager import RecorderManager, RecorderTerm, RecorderTermCfg


class RecordEnv(gymnasium.Wrapper):
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
        spaces = env.observation_space, env.action_space
        resets = any(isinstance(each, gymnasium.wrappers.Autoreset) for each in chain(env))
        cfg = FaceCfg(
            task=task or task_of(env),
            autoreset="next_step" if resets else "disabled",
            about=facts(env, *spaces),
        )
        face = Face(
            1,
            "cpu",
            *spaces,
            step_dt if step_dt is not None else step_dt_of(env),
            cfg,
            engine_name=type(env.unwrapped).__name__,
            infos=infos,
            success=success,
        )
        face.frames = RenderedFrames(env.render, 1, lambda: None, cfg.task)
        self._session = Session(face, recorders)

    @property
    def recorder_manager(self) -> RecorderManager:
        """The recorders: ``get_term(name)`` is one of them."""
        return self._session.face.recorder_manager

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin an episode."""
        if seed is not None:
            self._session.face.cfg.seed = seed
        return self._session.reset(
            lambda: self.env.reset(seed=seed, options=options), self._obs_of, None
        )

    def step(self, action: Any) -> Any:
        """Take a step."""
        return self._session.step(
            _batch(self.action_space, action), lambda: self.env.step(action), self._values_of
        )

    def start_recording(
        self, data: Any, cfg: RecorderTermCfg | None = None, *, name: str | None = None
    ) -> RecorderTerm:
        """Record from the next step on; see ``RecordVector.start_recording``."""
        return self._session.start_recording(data, cfg, name=name)

    def stop_recording(self, recording: RecorderTerm | str | None = None) -> None:
        """Finish what ``start_recording`` began, or None: all of it."""
        self._session.stop_recording(recording)

    def close(self) -> None:
        """Close the recorders, which write what is left, and then the environment. Idempotent."""
        self._session.close(self.env.close)

    def __enter__(self) -> RecordEnv:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return refuse_pickling(self)

    def _obs_of(self, result: Any) -> Any:
        return _batch(self.observation_space, result[0])

    def _values_of(self, result: Any) -> Step:
        obs, reward, terminated, truncated, info = result
        return (
            _batch(self.observation_space, obs),
            np.array([reward], np.float64),
            np.array([terminated], bool),
            np.array([truncated], bool),
            [info],
        )


def _batch(space: gymnasium.Space, value: Any) -> Any:
    """A value of one environment as the value of a batch of one."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: _batch(part, value[key]) for key, part in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(_batch(part, each) for part, each in zip(space.spaces, value, strict=True))
    if hasattr(value, "shape") and hasattr(value, "reshape"):
        return value.reshape((1, *value.shape))
    if isinstance(
        space, (gymnasium.spaces.Text, gymnasium.spaces.Graph, gymnasium.spaces.Sequence)
    ):
        return [value]
    return np.asarray(value)[None]
