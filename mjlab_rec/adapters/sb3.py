"""Recorders around a VecEnv of stable-baselines3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mjlab_rec.adapters.face import Face, FaceCfg
from mjlab_rec.adapters.facts import chain, facts, step_dt_of, task_of
from mjlab_rec.adapters.frames import RenderedFrames
from mjlab_rec.adapters.hosted import Recorders
from mjlab_rec.adapters.session import Session, Step, refuse_pickling
from mjlab_rec.managers.recorder_manager import RecorderManager, RecorderTerm, RecorderTermCfg
from mjlab_rec.utils.extras import require

_vec_env = require("stable_baselines3.common.vec_env", None, "RecordVecEnv", "stable-baselines3")


class RecordVecEnv(_vec_env.VecEnvWrapper):
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
        super().__init__(venv)
        spaces = venv.observation_space, venv.action_space
        cfg = FaceCfg(task=task or task_of(venv), autoreset="same_step", about=facts(venv, *spaces))
        face = Face(
            venv.num_envs,
            "cpu",
            *spaces,
            step_dt if step_dt is not None else step_dt_of(venv),
            cfg,
            engine_name=type(chain(venv)[-1]).__name__,
            infos=infos,
            success=success,
        )
        face.frames = RenderedFrames(
            venv.get_images,
            venv.num_envs,
            lambda: face.reset_buf if face.resetting else None,
            cfg.task,
        )
        self._session = Session(face, recorders)
        self._given: Any = None

    @property
    def recorder_manager(self) -> RecorderManager:
        """The recorders: ``get_term(name)`` is one of them."""
        return self._session.face.recorder_manager

    def seed(self, seed: int | None = None) -> Any:
        """Seed the environments for their next reset."""
        self._session.face.cfg.seed = seed
        return self.venv.seed(seed)

    def reset(self) -> Any:
        """Reset all environments."""
        return self._session.reset(self.venv.reset, _same, None)

    def step_async(self, actions: Any) -> None:
        """Begin a step."""
        self._given = np.array(actions)  # A copy: the caller may reuse the array.
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Wait for the step to end."""
        return self._session.step(self._given, self.venv.step_wait, _values)

    def start_recording(
        self, data: Any, cfg: RecorderTermCfg | None = None, *, name: str | None = None
    ) -> RecorderTerm:
        """Record from the next step on; see ``RecordVector.start_recording``."""
        return self._session.start_recording(data, cfg, name=name)

    def stop_recording(self, recording: RecorderTerm | str | None = None) -> None:
        """Finish what ``start_recording`` began, or None: all of it."""
        self._session.stop_recording(recording)

    def close(self) -> None:
        """Close the recorders, which write what is left, and then the VecEnv. Idempotent."""
        self._session.close(self.venv.close)

    def __enter__(self) -> RecordVecEnv:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return refuse_pickling(self)


def _same(result: Any) -> Any:
    return result


def _values(result: Any) -> Step:
    obs, rewards, dones, infos = result
    limits = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
    truncated = dones & limits
    return obs, rewards, dones & ~truncated, truncated, infos
