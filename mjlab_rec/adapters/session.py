"""The recorders of one wrapped environment: tells them of each reset and step, in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Self

import gymnasium
import torch

from mjlab_rec.adapters.face import Autoreset, Face, FaceCfg
from mjlab_rec.adapters.facts import chain, facts, step_dt_of, task_of
from mjlab_rec.adapters.frames import RenderedFrames
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
        self._no_grad = torch.no_grad()  # To make one takes as long as to use it.
        self._recordings = Recordings(face)  # pyright: ignore[reportArgumentType]
        if recorders:
            given = named(recorders, "recorders")
            for cfg in given.values():  # All first: by default a recorder records all of them.
                self._add_infos(getattr(cfg, "channels", ()))
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
            with _outside_of_inference(), self._no_grad:
                recorders.record_pre_step()
                face.put_action(action)
            result = call()
            # A learner may take some steps in torch's inference mode, but recorders' memory is for
            # all of them.
            with _outside_of_inference(), self._no_grad:
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
        """Record from the next step on."""
        self._check()
        self._check_between_steps()
        given = [data] if isinstance(data, str) else data
        if isinstance(given, (tuple, list)):
            self._add_infos(given)
        if isinstance(data, RecorderTermCfg):
            self._add_infos(getattr(data, "channels", ()))
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
        """Let a recorder with the default channels record all entries of infos."""
        is_default = isinstance(cfg, TransitionRecorderCfg) and cfg.channels == DEFAULT_CHANNELS
        if is_default and self.face.infos.names:
            return replace(cfg, channels=(*DEFAULT_CHANNELS, "info"))
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


_NOTHING = nullcontext()


def _outside_of_inference() -> AbstractContextManager[Any]:
    """Leave torch's inference mode; outside of it the context costs nothing."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else _NOTHING


class Recorded:
    """What the wrappers have in common: how they begin to record, and what users call."""

    _session: Session

    def _begin(
        self,
        env: Any,
        spaces: tuple[gymnasium.Space, gymnasium.Space],
        recorders: Recorders | None,
        *,
        autoreset: Autoreset,
        render: Callable[[], Any],
        step_dt: float | None,
        task: str,
        num_envs: int = 1,
        device: str = "cpu",
        **rest: Any,
    ) -> None:
        """Make the session.

        Args:
            env: The environment.
            spaces: Those of one environment's observations and actions.
            recorders: The recorders by name, or one; None: none.
            autoreset: When environments are reset.
            render: Returns frames for videos.
            step_dt: Seconds per step; None: as far as the environment says.
            task: Name of the task; "": the environment's id.
            num_envs: Number of environments.
            device: Where recorders read.
            rest: Other arguments of the face.
        """
        cfg = FaceCfg(task=task or task_of(env), autoreset=autoreset, about=facts(env, *spaces))
        dt = step_dt_of(env) if step_dt is None else step_dt
        engine = type(chain(env)[-1]).__name__
        face = Face(num_envs, device, *spaces, dt, cfg, engine_name=engine, **rest)
        face.frames = RenderedFrames(
            render, num_envs, lambda: face.reset_buf if face.resetting else None, cfg.task
        )
        self._session = Session(face, recorders)

    @property
    def recorder_manager(self) -> RecorderManager:
        """The recorders: ``get_term(name)`` is one of them."""
        return self._session.face.recorder_manager

    def start_recording(
        self, data: Any, cfg: RecorderTermCfg | None = None, *, name: str | None = None
    ) -> RecorderTerm:
        """Record from the next step on, until ``stop_recording`` or ``close``.

        Args:
            data: What to record, or a recorder's cfg, as for
                ``ManagerBasedRlEnv.start_recording``. A function gets what recorders read: a
                ``Face`` with ``obs_buf``, ``infos`` and others.
            cfg: The recorder's cfg.
            name: Name in ``recorder_manager``; by default "recording", "recording_2", ...
        """
        return self._session.start_recording(data, cfg, name=name)

    def stop_recording(self, recording: RecorderTerm | str | None = None) -> None:
        """Finish what ``start_recording`` began, or None: all of it."""
        self._session.stop_recording(recording)

    def close(self) -> Any:
        """Close the recorders and the environment."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, because its recorders have files"
            " and threads. Make it in the process that steps the environments, for example inside"
            " the function that AsyncVectorEnv calls there; or wrap the AsyncVectorEnv itself."
        )


def first(result: Any) -> Any:
    """The observations, of what ``reset`` returned."""
    return result[0]


def same(result: Any) -> Any:
    """What was returned, as it is."""
    return result
