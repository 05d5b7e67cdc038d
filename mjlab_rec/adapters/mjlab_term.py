"""The recorder term that mjlab builds; importing this module imports mjlab."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mjlab.managers.recorder_manager import (  # pyright: ignore[reportMissingImports]
    RecorderTerm as MjlabTerm,
)
from mjlab.managers.recorder_manager import (  # pyright: ignore[reportMissingImports]
    RecorderTermCfg as MjlabTermCfg,
)

from mjlab_rec.adapters.final_obs import FinalObservations
from mjlab_rec.adapters.hosted import HostedRecorders
from mjlab_rec.adapters.mjlab_sim import MjlabPhysics, MjlabSim, model_zip
from mjlab_rec.adapters.view import EnvView
from mjlab_rec.managers.recorder_manager import RecorderManager, RecorderTerm, RecorderTermCfg
from mjlab_rec.sim.viewer_config import ViewerConfig

logger = logging.getLogger(__name__)

_MISSING = ("record_pre_step", "record_substep", "record_post_physics")
_NOTES = (
    "Recorded in mjlab, whose reset comes before the final observation is computed: the recorder"
    " computes it, with the command of the last step and noise of its own.",
    "mjlab does not tell recorders when a step fails; the step after it has no row.",
)


class MjlabRecorder(MjlabTerm):
    """Holds recorders of this package in mjlab's environment, and calls their hooks."""

    def __init__(self, cfg: MjlabTermCfg, env: Any) -> None:
        super().__init__(cfg, env)
        given = cfg.params
        view = MjlabView(env, given["task"], given["final_obs"])
        finals = FinalObservations(env.observation_manager, MjlabPhysics(env), view.rng)
        self._host = HostedRecorders(given["recorders"], view, finals, "mjlab", _MISSING)
        self._view = view
        self._in_step = False
        self._ended: torch.Tensor | None = None  # Episodes that the current step ended.
        self._between_steps()

    @property
    def manager(self) -> RecorderManager:
        """The recorders, by name."""
        return self._host.manager

    @property
    def recorder(self) -> RecorderTerm:
        """The recorder, if there is only one."""
        names = self.manager.active_terms
        if len(names) != 1:
            raise ValueError(f"There are several: use manager.get_term(name), of {names}.")
        return self.manager.get_term(names[0])

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """The step ended episodes, which are about to be reset."""
        self._begin_step()
        self._ended = env_ids
        self._host.end_episodes(env_ids)

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """Environments were reset, in a step or by ``reset()``."""
        if self._in_step and env_ids is self._ended:
            self._view.complete_final_obs()
            self._host.call(self.manager.record_post_reset, env_ids)
            return
        if self._in_step or self._substeps() != self._known_substeps:
            self._lose_step(at_least=1)
        self._host.begin_episodes(env_ids)
        self._between_steps()

    def record_post_step(self) -> None:
        """A step is over."""
        view = self._view
        if not self._in_step or self._is_next():
            self._begin_step()
            view.set_final_obs(None)
        view.complete_final_obs()
        self._host.call(self.manager.record_post_step)
        view.set_final_obs(None)
        self._in_step, self._ended = False, None
        self._between_steps()

    def close(self) -> None:
        """Finish all recordings."""
        self._host.call(self.manager.close)

    def _begin_step(self) -> None:
        """Notice that a step has begun, and that another one has failed before it."""
        env = self._env
        if self._in_step or self._substeps() != self._known_substeps + env.cfg.decimation:
            self._lose_step(at_least=2)
        self._host.begin_step()
        self._in_step = True
        self._step = env.common_step_counter

    def _lose_step(self, at_least: int) -> None:
        """Tell recorders about a failed step, which the counter includes if it rose this much."""
        counted = self._env.common_step_counter - self._known_steps >= at_least
        self._host.lose_step(begun=self._in_step, counted=counted)
        self._in_step = False

    def _is_next(self) -> bool:
        """Whether the step that recorders know is not the one that is over now."""
        return self._step != self._env.common_step_counter

    def _substeps(self) -> int:
        env = self._env
        return getattr(env, "_sim_step_counter", env.common_step_counter * env.cfg.decimation)

    def _between_steps(self) -> None:
        self._known_substeps = self._substeps()
        self._known_steps = self._env.common_step_counter
        self._view.command_manager.keep()


def term_cfg(
    recorders: Mapping[str, RecorderTermCfg], task: str | None, final_obs: bool
) -> MjlabTermCfg:
    """The cfg of a ``MjlabRecorder``."""
    params = {"recorders": recorders, "task": task, "final_obs": final_obs}
    return MjlabTermCfg(func=MjlabRecorder, params=params)


class MjlabView(EnvView):
    """mjlab's environment as recorders see it."""

    def __init__(self, env: Any, task: str | None, final_obs: bool) -> None:
        super().__init__(env, task, final_obs)
        self.cfg.viewer = _viewer(env.cfg.viewer)
        self.sim = MjlabSim(env.sim)
        self.recording_notes += _NOTES if final_obs else _NOTES[1:]

    def update_visualizers(self, visualizer: Any) -> None:
        """Let mjlab's terms and sensors draw, without an effect on the rollout."""
        with self.rng.rewound():
            self.env.update_visualizers(visualizer)

    def model_attachments(self) -> dict[str, bytes]:
        """The model as XML with its files, which other versions of MuJoCo read, too."""
        try:
            return {"model.zip": model_zip(self.env.scene, self.env.sim.mj_model)}
        except Exception:  # Only replays with another version of MuJoCo need it.
            logger.exception("The model could not be stored as XML; the compiled one is stored.")
            return {}


def _viewer(theirs: Any) -> ViewerConfig:
    """Mjlab's camera settings in the type that the video recorder takes."""
    known = {f.name for f in dataclasses.fields(ViewerConfig)} & set(vars(theirs))
    values = {name: getattr(theirs, name) for name in known}
    values["origin_type"] = ViewerConfig.OriginType[theirs.origin_type.name]
    return ViewerConfig(**values)
