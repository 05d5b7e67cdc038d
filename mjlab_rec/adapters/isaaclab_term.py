"""The recorder term that Isaac Lab builds; importing this module imports Isaac Lab."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from isaaclab.managers import (  # pyright: ignore[reportMissingImports]
    DatasetExportMode,
    RecorderManagerBaseCfg,
)
from isaaclab.managers import RecorderTerm as IsaacTerm  # pyright: ignore[reportMissingImports]
from isaaclab.managers import (  # pyright: ignore[reportMissingImports]
    RecorderTermCfg as IsaacTermCfg,
)

from mjlab_rec.adapters.final_obs import FinalObservations
from mjlab_rec.adapters.hosted import HostedRecorders
from mjlab_rec.adapters.view import EnvView
from mjlab_rec.managers.observation_manager import map_observations
from mjlab_rec.managers.recorder_manager import RecorderManager, RecorderTermCfg
from mjlab_rec.recorders import RerunRecorderCfg, VideoRecorderCfg

_NOTES = (
    "Recorded in Isaac Lab, which tells recorders that a step is over before its last observation"
    " is computed; rows are completed when the next step begins.",
    "Final observations are computed by the recorder, with noise of its own.",
    "Isaac Lab does not tell recorders when a step fails; such a step has no row.",
)
_NOTHING = (None, None)  # What Isaac Lab is to store: no name, no value.


class IsaacLabRecorder(IsaacTerm):
    """Holds recorders of this package in Isaac Lab's environment, and calls their hooks."""

    def __init__(self, cfg: IsaacTermCfg, env: Any) -> None:
        super().__init__(cfg, env)
        self._cfg = cfg
        self._driver: _Driver | None = None  # Most managers are made after the recorders.

    @property
    def manager(self) -> RecorderManager:
        """The recorders, by name; there are none before the first reset."""
        return self._driving().host.manager

    def record_pre_step(self) -> tuple[None, None]:
        """A step begins, and its action is known."""
        self._driving().begin_step()
        return _NOTHING

    def record_post_physics_decimation_step(self) -> tuple[None, None]:
        """A physics step is over."""
        host = self._driving().host
        if host.manager.has_substep_terms:
            host.call(host.manager.record_substep)
        return _NOTHING

    def record_post_step(self) -> tuple[None, None]:
        """The results of a step are known, and nothing was reset yet."""
        self._driving().take_step()
        return _NOTHING

    def record_pre_reset(self, env_ids: Any) -> tuple[None, None]:
        """Environments are about to be reset, in a step or by ``reset()``."""
        self._driving().begin_reset()
        return _NOTHING

    def record_post_reset(self, env_ids: Any) -> tuple[None, None]:
        """Environments were reset; what they look like now is not known yet."""
        self._driving().end_reset(env_ids)
        return _NOTHING

    def close(self) -> None:
        """Finish all recordings."""
        if self._driver is not None:
            self._driver.close()

    def _driving(self) -> _Driver:
        if self._driver is None:
            if not hasattr(self._env, "reward_manager"):
                raise TypeError(
                    f"{type(self._env).__name__} has no rewards and terminations. for_isaaclab() is"
                    " for Isaac Lab's ManagerBasedRLEnv and what derives from it."
                )
            self._driver = _Driver(self._env, self._cfg.recorders, self._cfg.task)
            # Isaac Lab closes no terms, it deletes them.
            weakref.finalize(self, self._driver.close)
        return self._driver


class _Driver:
    """Turns Isaac Lab's hooks into those of this package."""

    def __init__(self, env: Any, recorders: Mapping[str, RecorderTermCfg], task: str | None):
        for cfg in recorders.values():
            if isinstance(cfg, (VideoRecorderCfg, RerunRecorderCfg)):
                raise TypeError(
                    f"{type(cfg).__name__.removesuffix('Cfg')} draws MuJoCo's model, which Isaac"
                    " Lab does not simulate. Use Isaac Lab's own video recorder."
                )
        self._env = env
        self._view = view = IsaacLabView(env, task)
        finals = FinalObservations(env.observation_manager, _Fresh(env), view.rng)
        self.host = HostedRecorders(recorders, view, finals, "Isaac Lab", ("record_post_physics",))
        self._in_step = False  # Begun, and its results are not known.
        self._ended: torch.Tensor | None = None  # Of the step whose results are known.
        self._resets_due = False  # Whether resets of that step follow,
        self._resetting = False  # and whether they have begun.
        self._was_reset: torch.Tensor | None = None  # By reset(), whose observation follows.
        self._closed = False

    def begin_step(self) -> None:
        self._settle()
        self.host.call(self.host.manager.record_pre_step)
        self._in_step = True

    def take_step(self) -> None:
        self._in_step = False
        self._ended = ended = self._env.reset_buf.nonzero().flatten()
        self._resets_due = len(ended) > 0
        self.host.end_episodes(ended)

    def begin_reset(self) -> None:
        if self._resets_due and not self._resetting:
            self._resetting = True  # Inside the step.
        else:
            self._settle()

    def end_reset(self, env_ids: Any) -> None:
        if self._resets_due:
            self._resets_due = self._resetting = False
        else:
            self._was_reset = _as_ids(env_ids, self._env)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._env.obs_buf:  # env.close() has dropped it.
            self._view.forget_obs()
        self._settle()
        self.host.call(self.host.manager.close)

    def _settle(self) -> None:
        """Complete what happened before, now that its last observation is known."""
        host, view = self.host, self._view
        if self._in_step or self._resets_due:
            host.fail()
            self._in_step = self._resets_due = self._resetting = False
            self._ended = None
        if self._ended is not None:
            ended, self._ended = self._ended, None
            view.complete_final_obs()
            if len(ended):
                host.call(host.manager.record_post_reset, ended)
            host.call(host.manager.record_post_step)
        if self._was_reset is not None:
            ids, self._was_reset = self._was_reset, None
            host.begin_episodes(ids)
        view.keep_obs()


class IsaacLabView(EnvView):
    """Isaac Lab's environment as recorders see it."""

    ends_steps_late = True

    def __init__(self, env: Any, task: str | None) -> None:
        super().__init__(env, task, final_obs=True)
        self.recording_notes += _NOTES
        # Closing the environment deletes them before the recorders.
        for name in ("action", "observation", "reward", "termination"):
            setattr(self, f"{name}_manager", getattr(env, f"{name}_manager"))
        self.sim = SimpleNamespace(engine_name="isaac", device=env.device)
        self.scene = IsaacLabScene(env.scene)
        self._obs: Mapping[str, Any] = {}
        self._forgotten = False

    @property
    def obs_buf(self) -> Mapping[str, Any]:
        """The latest observation; NaN if it is not known."""
        return self._obs if self._forgotten else self.env.obs_buf

    def keep_obs(self) -> None:
        """Remember what an observation looks like."""
        self._obs = self._obs or dict(self.env.obs_buf)

    def forget_obs(self) -> None:
        """Show NaN from now on, as the environment no longer has its observation."""

        def unknown(value: torch.Tensor) -> torch.Tensor:
            return torch.full_like(value, torch.nan if value.is_floating_point() else 0)

        self._obs = map_observations(unknown, dict(self._obs))
        self._forgotten = True


class IsaacLabScene:
    """Isaac Lab's scene, with all robots and objects as entities."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene

    def __getattr__(self, name: str) -> Any:
        if name == "_scene":
            raise AttributeError(name)
        return getattr(self._scene, name)

    def __getitem__(self, name: str) -> Any:
        return self._scene[name]

    @property
    def entities(self) -> dict[str, Any]:
        """Articulations and rigid objects, by name."""
        parts = ("articulations", "rigid_objects")
        return {k: v for part in parts for k, v in getattr(self._scene, part, {}).items()}


class _Fresh:
    """Isaac Lab's buffers, which are up to date after each step."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def objects(self) -> Sequence[object]:
        return ()

    def left_out(self) -> Sequence[object]:
        env = self._env
        managers = [value for name, value in vars(env).items() if name.endswith("_manager")]
        scene = env.scene
        parts = ("articulations", "rigid_objects", "sensors")
        contents = [item for part in parts for item in getattr(scene, part, {}).values()]
        return [env, env.cfg, env.sim, scene, *managers, *contents]

    def save(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    def restore(self) -> None:
        pass


def manager_cfg(
    recorders: Mapping[str, RecorderTermCfg], task: str | None, name: str, add_to: Any
) -> RecorderManagerBaseCfg:
    """The cfg of a recorder manager with an ``IsaacLabRecorder``."""
    cfg = add_to
    if cfg is None:
        cfg = RecorderManagerBaseCfg()
        cfg.dataset_export_mode = DatasetExportMode.EXPORT_NONE
    term: Any = IsaacTermCfg(class_type=IsaacLabRecorder)
    term.recorders, term.task = dict(recorders), task
    setattr(cfg, name, term)
    return cfg


def _as_ids(env_ids: Any, env: Any) -> torch.Tensor:
    every = torch.arange(env.num_envs, device=env.device)
    if env_ids is None:
        return every
    if isinstance(env_ids, slice):
        return every[env_ids]
    return torch.as_tensor(env_ids, dtype=torch.long, device=env.device)
