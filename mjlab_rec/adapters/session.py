"""The recorders of one wrapped environment: tells them of each reset and step, in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from mjlab_rec.adapters.face import Face
from mjlab_rec.adapters.hosted import Recorders, named
from mjlab_rec.envs.recordings import Recordings
from mjlab_rec.managers.recorder_manager import RecorderManager, RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders.cfg import TransitionRecorderCfg
from mjlab_rec.recorders.channels import DEFAULT_CHANNELS

Step = tuple[Any, Any, Any, Any, Any]
"""Observations, rewards, terminated, truncated and infos of all environments."""


class Session:
    """Runs recorders next to an environment, of which it passes on everything untouched.

    Args:
        face: What the recorders read.
        recorders: The recorders by name, or one; None: none.
    """

    def __init__(self, face: Face, recorders: Recorders | None) -> None:
        self.face = face
        self._pid = os.getpid()
        self._closed = self._is_running = False
        self._recordings = Recordings(face)  # pyright: ignore[reportArgumentType]
        if recorders:
            given = named(recorders, "recorders")
            cfgs = {name: self._with_infos(cfg) for name, cfg in given.items()}
            face.use_recorders(RecorderManager(cfgs, face))  # pyright: ignore[reportArgumentType]

    def reset(
        self, call: Callable[[], Any], obs_of: Callable[[Any], Any], env_ids: torch.Tensor | None
    ) -> Any:
        """Reset environments, and return what that returned.

        Args:
            call: Resets them.
            obs_of: Returns the observations of all environments, given what `call` returned.
            env_ids: The environments that are reset; None: all.
        """
        self._check()
        result = call()
        face = self.face
        with _outside_of_inference(), torch.no_grad():
            face.put_reset(obs_of(result), env_ids)
            ids = torch.arange(face.num_envs, device=face.device) if env_ids is None else env_ids
            face.running_episodes.reset(ids)
            face.recorder_manager.record_post_reset(ids)
        return result

    def step(self, action: Any, call: Callable[[], Any], values_of: Callable[[Any], Step]) -> Any:
        """Take a step, and return what that returned.

        Args:
            action: The actions of all environments.
            call: Takes the step.
            values_of: Returns the values of all environments, given what `call` returned.
        """
        self._check()
        face = self.face
        recorders, running = face.recorder_manager, face.running_episodes
        if not face.obs_buf:
            raise RuntimeError("Call reset() before step(): the first observation is not known.")
        self._is_running = True
        try:
            running.begin_step()
            with _outside_of_inference(), torch.no_grad():
                recorders.record_pre_step()
                face.put_action(action)
            result = call()
            # A learner may take some steps in torch's inference mode, but recorders' memory is for
            # all of them.
            with _outside_of_inference(), torch.no_grad():
                self._record(values_of(result))
        except BaseException as error:
            running.cut()
            recorders.record_exception(error)
            raise
        finally:
            self._is_running = False
        return result

    def _record(self, values: Step) -> None:
        """Tell recorders what a step returned."""
        face = self.face
        recorders = face.recorder_manager
        was_reset, ended = face.put_step(*values)
        # len() of a tensor takes several times as long.
        over = ended.shape[0] > 0 and face.cfg.auto_reset
        if over:
            recorders.record_pre_reset(ended)
        face.advance()
        if over and face.pending_resets is None:
            was_reset = ended
        if was_reset.shape[0]:
            recorders.record_post_reset(was_reset)
        recorders.record_post_step()
        face.running_episodes.end_step(ended if over else None)

    def start_recording(
        self, data: Any, cfg: RecorderTermCfg | None = None, *, name: str | None = None
    ) -> RecorderTerm:
        """Record from the next step on; see ``ManagerBasedRlEnv.start_recording``."""
        self._check()
        self._check_between_steps()
        given = [data] if isinstance(data, str) else data
        if isinstance(given, (tuple, list)):
            self._add_infos(given)
        if isinstance(data, RecorderTermCfg):
            data = self._with_infos(data)
        with _outside_of_inference(), torch.no_grad(), self.face.rng.rewound():
            return self._recordings.start(data, cfg, name)

    def stop_recording(self, recording: RecorderTerm | str | None = None) -> None:
        """Finish what ``start_recording`` began; None means all of it."""
        if os.getpid() == self._pid:
            self._check_between_steps()
            self._recordings.stop(recording)

    def close(self, close_env: Callable[[], Any]) -> Any:
        """Close the recorders, which write what is left, and then the environment. Idempotent."""
        try:
            if not self._closed:
                self._closed = True
                self.face.recorder_manager.close()
        finally:
            result = close_env()
        return result

    def _with_infos(self, cfg: RecorderTermCfg) -> RecorderTermCfg:
        """Let a recorder record entries of infos: those it names, or by default all."""
        channels = getattr(cfg, "channels", ())
        self._add_infos(channels)
        is_default = isinstance(cfg, TransitionRecorderCfg) and channels == DEFAULT_CHANNELS
        if is_default and self.face.infos.names:
            return replace(cfg, channels=(*channels, "info"))  # pyright: ignore[reportCallIssue]
        return cfg

    def _add_infos(self, channels: Any) -> None:
        for name in channels:
            if isinstance(name, str) and name.startswith("info/"):
                self.face.infos.add(name.removeprefix("info/"))

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("The environment is closed. Make a new one to continue.")
        if os.getpid() != self._pid:
            raise RuntimeError(
                "This process was forked from the one that made the wrapper, whose recorders write"
                " in threads that a fork does not copy. Make the wrapper in each process."
            )

    def _check_between_steps(self) -> None:
        if self._is_running:
            raise RuntimeError(
                "Recordings cannot be started or closed inside step(). Call start_recording() and"
                " stop_recording() between two steps."
            )


def _outside_of_inference() -> AbstractContextManager[Any]:
    """Leave torch's inference mode; outside of it the context costs nothing."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def refuse_pickling(wrapper: Any) -> Any:
    """Raise TypeError: files and threads cannot be pickled."""
    raise TypeError(
        f"{type(wrapper).__name__} cannot be pickled or copied, because its recorders have files"
        " and threads. Make it in the process that steps the environments, for example inside the"
        " function that AsyncVectorEnv calls there; or wrap the AsyncVectorEnv itself."
    )
