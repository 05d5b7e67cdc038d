"""The environment: many copies of a scene stepped in lockstep, run by managers."""

from __future__ import annotations

import copy
import logging
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from mjlab_rec.envs.cfg_checks import check_cfg, check_memory
from mjlab_rec.envs.checks import check_finite, checked_action
from mjlab_rec.envs.debug_vis import debug_vis_sources
from mjlab_rec.envs.env_cfg import ManagerBasedRlEnvCfg
from mjlab_rec.envs.nan_guard import with_nan_guard
from mjlab_rec.envs.recordings import Recordings
from mjlab_rec.envs.running_episodes import RunningEpisodes
from mjlab_rec.envs.spaces import action_space, observation_space
from mjlab_rec.managers.action_manager import ActionManager
from mjlab_rec.managers.command_manager import CommandManager, NullCommandManager
from mjlab_rec.managers.curriculum_manager import CurriculumManager, NullCurriculumManager
from mjlab_rec.managers.event_manager import EventManager
from mjlab_rec.managers.manager_base import ManagerBase
from mjlab_rec.managers.metrics_manager import MetricsManager, NullMetricsManager
from mjlab_rec.managers.observation_manager import (
    ObservationManager,
    Observations,
    map_observations,
)
from mjlab_rec.managers.recorder_manager import (
    NullRecorderManager,
    RecorderManager,
    RecorderTerm,
    RecorderTermCfg,
)
from mjlab_rec.managers.reward_manager import RewardManager
from mjlab_rec.managers.termination_manager import TerminationManager
from mjlab_rec.scene import Scene
from mjlab_rec.sim import Simulation, resolve_device
from mjlab_rec.sim.debug_visualizer import DebugVisualizer, shapes_of
from mjlab_rec.utils.host import read_masks
from mjlab_rec.utils.indexing import checked_ids
from mjlab_rec.utils.random import RandomStreams
from mjlab_rec.utils.tables import format_table
from mjlab_rec.utils.threads import single_torch_thread

logger = logging.getLogger(__name__)

StepReturn = tuple[Observations, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]
ManagerT = TypeVar("ManagerT")


class ManagerBasedRlEnv(gymnasium.vector.VectorEnv):
    """A vectorized reinforcement-learning environment configured by terms.

    ``step`` takes and returns torch tensors on ``device``. You may keep returned tensors: no later
    step changes them. Recorders see the same tensors, so do not change them in place.

    Args:
        cfg: Configuration of the environment.
        device: "cpu", "cuda", "cuda:<index>", or "auto" for a GPU if there is one.
        render_mode: "rgb_array" to draw pictures with ``render()``.
    """

    def __init__(
        self,
        cfg: ManagerBasedRlEnvCfg,
        device: str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        self.closed = True  # There is nothing to close until everything is built.
        self._pid = os.getpid()
        check_cfg(cfg, render_mode)
        # Managers copy the terms they use; everything else that is read later is copied here.
        self.cfg = copy.copy(cfg)
        self.cfg.sim, self.cfg.viewer = copy.deepcopy((cfg.sim, cfg.viewer))
        self.cfg.seed = random.SystemRandom().randrange(2**31) if cfg.seed is None else cfg.seed
        self.render_mode = render_mode
        self._renderer: Any = None

        device = str(resolve_device(device))
        check_memory(cfg, device)
        self.scene = Scene(cfg.scene, device=device, seed=self.cfg.seed)
        self.sim = Simulation(
            num_envs=self.scene.num_envs,
            cfg=cfg.sim,
            spec=self.scene.spec,
            device=device,
            variant_info=self.scene.collect_variant_info(),
        )
        self.num_envs = self.scene.num_envs
        self.device = self.sim.device
        self.rng = RandomStreams(self.num_envs, self.device, self.cfg.seed)
        if self.scene.terrain is not None:
            self.scene.terrain.streams = self.rng
        self.scene.initialize(
            self.sim.mj_model, self.sim.model, self.sim.data, generator=self.rng.actuation
        )
        if self.scene.sensor_context is not None:
            self.sim.set_sensor_context(self.scene.sensor_context)

        self.common_step_counter = 0
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self.obs_buf: Observations = {}
        self.reward_buf = torch.zeros(self.num_envs, device=self.device)
        self.reset_buf = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self.reset_terminated = torch.zeros_like(self.reset_buf)
        self.reset_time_outs = torch.zeros_like(self.reset_buf)
        self.extras: dict[str, Any] = {"log": {}}
        self._awaits_reset: set[int] = set()
        self.running_episodes = RunningEpisodes(self.num_envs, self.device)
        """For recorders that are added while episodes are running."""
        self._step_lock = threading.RLock()
        self._is_running = False  # Whether a step or reset is being taken.
        self._recordings = Recordings(self)

        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 1.0 / self.step_dt,
            "autoreset_mode": AutoresetMode.SAME_STEP if cfg.auto_reset else AutoresetMode.DISABLED,
            "mujoco_version": mujoco.__version__,
        }
        self.recorder_manager: RecorderManager = NullRecorderManager()
        try:
            with torch.no_grad():
                with self._running():
                    self.load_managers()
                self._start_up(self.cfg.seed)
        except BaseException:
            self.recorder_manager.close()
            raise
        self.cfg.fix_recorders()
        self.closed = False
        logger.info("%s", self.summary())

    def __repr__(self) -> str:
        where = f"{self.sim.engine_name} on {self.device}"
        return f"<{type(self).__name__}: {self.num_envs} environments, {where}>"

    def summary(self) -> str:
        """Tables of the settings and of every manager's terms, as logged at start-up."""
        rows = [
            ("Environments", self.num_envs),
            ("Engine", f"{self.sim.engine_name} on {self.device}"),
            ("Seed", self.cfg.seed),
            ("Physics step (s)", self.physics_dt),
            ("Control step (s)", self.step_dt),
        ]
        parts = [format_table("Environment", ("Property", "Value"), rows)]
        parts += [str(manager) for manager in self._managers() if manager.active_terms]
        return "\n\n".join(part for part in parts if part)

    def __enter__(self) -> ManagerBasedRlEnv:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def physics_dt(self) -> float:
        """Duration of a physics step in seconds."""
        return self.cfg.sim.mujoco.timestep

    @property
    def step_dt(self) -> float:
        """Duration of a control step in seconds."""
        return self.cfg.sim.mujoco.timestep * self.cfg.decimation

    @property
    def max_episode_length_s(self) -> float:
        """Longest episode in seconds."""
        return self.cfg.episode_length_s

    @property
    def max_episode_length(self) -> int:
        """Longest episode in control steps."""
        # Round first: 1.1 / 0.1 is slightly more than 11 in floating point.
        return math.ceil(round(self.cfg.episode_length_s / self.step_dt, 6))

    def load_managers(self) -> None:
        """Build the managers; each may use those before it."""
        cfg = self.cfg
        self.event_manager = EventManager(cfg.events, self)
        self.sim.expand_model_fields(self.event_manager.domain_randomization_fields)
        self.command_manager = self._optional(CommandManager, NullCommandManager, cfg.commands)
        self.action_manager = ActionManager(cfg.actions, self)
        self.observation_manager = ObservationManager(cfg.observations, self)
        self.termination_manager = TerminationManager(cfg.terminations, self)
        self.reward_manager = RewardManager(cfg.rewards, self, scale_by_dt=cfg.scale_rewards_by_dt)
        self.curriculum_manager = self._optional(
            CurriculumManager, NullCurriculumManager, cfg.curriculum
        )
        self.metrics_manager = self._optional(MetricsManager, NullMetricsManager, cfg.metrics)
        self.single_observation_space = observation_space(self.observation_manager)
        self.single_action_space = action_space(self.action_manager)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        recorders = with_nan_guard(cfg)
        self.use_recorders(self._optional(RecorderManager, NullRecorderManager, recorders))

    def use_recorders(self, manager: RecorderManager) -> None:
        """Call this manager's recorders from the next step on."""
        self.recorder_manager = manager
        # Substeps can run in one call unless something acts or reads in between.
        self._acts_once = (
            self.action_manager.constant_between_substeps and self.scene.constant_between_substeps
        )
        self._substeps_matter = (
            not self._acts_once
            or self.scene.needs_substeps
            or self.metrics_manager.has_substep_terms
            or self.recorder_manager.has_substep_terms
        )

    @torch.no_grad()
    def reset(
        self,
        *,
        seed: int | None = None,
        env_ids: torch.Tensor | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start new episodes in the given environments (None: all).

        Other environments are not affected: their history, delays, commands and random numbers are
        what they would have been without this call. With ``seed`` all random streams restart and
        start-up events are repeated, so that from then on everything random depends on the seed
        alone; this needs a reset of all environments. Curricula continue where they were.

        Gymnasium's ``options={"reset_mask": mask}`` is another way to say ``env_ids=mask``. With
        ``options={"gui_reset": True}`` commands may change the first state to one that was chosen
        on the web page.
        """
        self._check_open()
        if env_ids is None and options is not None:
            env_ids = options.get("reset_mask")
        if seed is not None:
            if env_ids is not None:
                raise ValueError("reset(seed=...) restarts every random stream; omit env_ids.")
            self._start_up(seed)
        ids = checked_ids(env_ids, self.num_envs, self.device)
        self.extras = {"log": {}}
        if len(ids) == 0:
            return self.get_observations(), self.extras
        with self._running():
            # Without a forward pass after each step, the others must not get one here.
            mask = None if self.cfg.forward_after_step else ids
            self._reset_idx(ids)
            self._forward(mask)
            self.command_manager.begin(ids)
            if (options or {}).get("gui_reset") and self.command_manager.apply_gui_reset(ids):
                self.scene.write_data_to_sim()
                self._forward(mask)
            self.sim.sense()
            self.obs_buf = self.observation_manager.compute(update_history=True, env_ids=ids)
            self.running_episodes.reset(ids)
            self.recorder_manager.record_post_reset(ids)
        return self.obs_buf, self.extras

    @torch.no_grad()
    def step(self, action: torch.Tensor) -> StepReturn:
        """Advance every environment by one control step.

        The order: the action is processed and applied while the physics takes ``decimation``
        steps; counters, terminations, rewards and metrics follow; then step and interval events;
        then the environments whose episode ended are reset; one forward pass brings all derived
        quantities up to date; commands and observations come last.

        Terminations, rewards and events see derived quantities (poses and velocities of bodies,
        the root included, and sensors) from the beginning of the last physics step, as MuJoCo
        leaves them; joint positions and velocities are current. With ``cfg.fresh_terms`` a forward
        pass comes first, and everything is current. In observations everything always is, unless
        ``cfg.forward_after_step`` is off.

        Returns:
            Observations, reward (num_envs,), terminated (num_envs,), truncated (num_envs,), extras.
            ``extras["log"]`` averages the episodes that ended; with ``cfg.final_obs``,
            ``extras["final_obs"]`` is the observation before any reset.
        """
        self._check_open()
        with self._running():
            try:
                return self._step(action)
            except BaseException as error:
                self.running_episodes.cut()
                self.recorder_manager.record_exception(error)
                raise

    def _step(self, action: torch.Tensor) -> StepReturn:
        action, is_bad = checked_action(action, self.device)
        self._check_nothing_awaits_reset()
        self.extras = {"log": {}}
        self.rng.begin_step()
        self.running_episodes.begin_step()
        self.recorder_manager.record_pre_step()
        self.action_manager.process_action(action)
        self._simulate()
        self.recorder_manager.record_post_physics()
        if self.cfg.fresh_terms:
            self._forward()

        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.reset_buf = self.termination_manager.compute()
        self.reset_terminated = self.termination_manager.terminated
        self.reset_time_outs = self.termination_manager.time_outs
        self.reward_buf = self.reward_manager.compute(dt=self.step_dt)
        self.metrics_manager.compute()

        # Everything that the host needs from this step is read back here, in a single wait.
        event_masks = self.event_manager.advance_intervals(self.step_dt)
        command_masks = self.command_manager.advance(self.step_dt, frozen=self.reset_buf)
        manual = [] if self.cfg.auto_reset else [~self.reset_buf]
        (done_ids, *rest), numbers = read_masks(
            [self.reset_buf, *event_masks, *command_masks, *manual],
            [self.sim.health(), is_bad],
        )
        event_ids, rest = rest[: len(event_masks)], rest[len(event_masks) :]
        command_ids, running_ids = rest[: len(command_masks)], rest[len(command_masks) :]
        if any(numbers[0]):
            self.sim.report_health(numbers[0])
        if numbers[1][0]:
            check_finite(self.action_manager.action)

        changed = self.event_manager.apply("step")
        changed |= self.event_manager.apply_intervals(event_ids, self.step_dt)
        is_current = self.cfg.fresh_terms and not changed
        is_current |= not self.cfg.forward_after_step  # As current as it is meant to be.

        final_obs: Observations | None = None
        wants_final_obs = self.cfg.final_obs or self.recorder_manager.needs_final_obs
        ended = done_ids.shape[0] > 0  # len() of a tensor takes several times as long.
        resets = self.cfg.auto_reset and ended
        if resets:
            reads_end = wants_final_obs or self.curriculum_manager.active_terms
            if reads_end and not is_current:
                # Both read the end of the episode; neither may affect what the other sees.
                self._forward(self.reset_buf)
            if wants_final_obs:
                final_obs = self._final_observation()
                self.extras["final_obs"] = final_obs
            self.recorder_manager.record_pre_reset(done_ids)
            self._reset_idx(done_ids)
        over = ended and not self.cfg.auto_reset
        if over:
            self._awaits_reset = set(done_ids.tolist())

        if not is_current:
            self._forward()
        elif resets:
            self._forward(self.reset_buf)
        # Commands of a finished episode stay as they were: nothing follows them any more.
        self.command_manager.update(command_ids, running_ids[0] if over else None)
        self.sim.sense()
        self.obs_buf = self.observation_manager.compute(update_history=True)
        if wants_final_obs:
            self.extras["final_obs"] = self._complete_final_observation(final_obs)

        if resets:
            self.recorder_manager.record_post_reset(done_ids)
        self.recorder_manager.record_post_step()
        self.running_episodes.end_step(done_ids if resets else None)
        return (
            self.obs_buf,
            self.reward_buf,
            self.reset_terminated,
            self.reset_time_outs,
            self.extras,
        )

    @torch.no_grad()
    def get_observations(self) -> Observations:
        """Return the current observations, without advancing anything."""
        if self.obs_buf:
            return self.obs_buf
        with self._running():
            return self.observation_manager.preview()

    def seed(self, seed: int) -> int:
        """Restart all random streams, as ``reset(seed=seed)`` does before it resets."""
        with torch.no_grad():
            self._start_up(seed)
        return seed

    def start_recording(
        self, data: Any, cfg: RecorderTermCfg | None = None, *, name: str | None = None
    ) -> RecorderTerm:
        """Record from the next step on, until ``stop_recording`` or ``close``.

        Call it between two steps, at any time. An episode that is running is recorded from here.

        Args:
            data: What to record: names of channels, ``Channel``s, or a function that returns a
                tensor or array (num_envs, ...), or a dict of them. It may take the environment,
                and is called after each recorded step. Without ``cfg``, a recorder's cfg.
            cfg: The recorder's cfg, such as ``NpzRecorderCfg(path="run")``.
            name: Name in ``recorder_manager``; by default "recording", "recording_2", ...

        Returns:
            The recorder, with ``flush``, ``pause``, ``start``, ``reset`` and ``stop``.
        """
        self._check_open()
        with self._between_steps():
            return self._recordings.start(data, cfg, name)

    def stop_recording(self, recording: RecorderTerm | str | None = None) -> None:
        """Finish what ``start_recording`` began, close its files and remove it.

        Args:
            recording: What ``start_recording`` returned, or its name; None means all of them.
                Stopping the same one again does nothing.
        """
        if os.getpid() != self._pid:
            return
        with self._between_steps():
            self._recordings.stop(recording)

    def render(self) -> np.ndarray | None:
        """Return an image (height, width, 3) of the environment ``cfg.viewer.env_idx``, or None.

        None if the environment was made without ``render_mode="rgb_array"``.
        """
        self._check_open()
        if self.render_mode is None:
            return None
        if self._renderer is None:
            from mjlab_rec.sim.renderer import make_renderer

            self._renderer = make_renderer(self.sim, self.cfg.viewer, self.scene)
        shapes = None
        if self.cfg.viewer.debug_vis:
            shapes = shapes_of(self, [self.cfg.viewer.env_idx])
        return self._renderer.render(shapes=shapes)

    @property
    def debug_vis_sources(self) -> dict[str, Any]:
        """What draws in ``update_visualizers``, by name: terms, sensors and the terrain."""
        return debug_vis_sources(self)

    @torch.no_grad()
    def update_visualizers(self, visualizer: DebugVisualizer) -> None:
        """Let terms, sensors and the terrain draw, except those in ``visualizer.hidden``.

        Viewers and recorders call this where such drawings are shown. It must not change anything,
        and random numbers drawn in it do not affect the rollout.
        """
        with self._step_lock, single_torch_thread(self.device), self.rng.rewound():
            for name, source in self.debug_vis_sources.items():
                if name not in getattr(visualizer, "hidden", ()):
                    source.debug_vis(visualizer)

    def close(self, **kwargs: Any) -> None:
        """Close the recorders, which write what is left, and free the renderer. Idempotent."""
        if self.closed:
            return
        self.closed = True
        try:
            self.recorder_manager.close()
        finally:
            if self._renderer is not None:
                self._renderer.close()

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run manager code with the environment's own random numbers and torch on one thread."""
        with self._step_lock, single_torch_thread(self.device), self.rng.isolated():
            before, self._is_running = self._is_running, True
            try:
                yield
            finally:
                self._is_running = before

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Wait until no other thread takes a step, and keep what is done from affecting any."""
        with self._step_lock:
            if self._is_running:
                raise RuntimeError(
                    "Recordings cannot be started or closed inside step() or reset(). Call"
                    " start_recording() and stop_recording() between two steps; a recorder's own"
                    " pause(), start() and stop() may be called in a step."
                )
            with torch.no_grad(), self.rng.rewound():
                yield

    def _start_up(self, seed: int) -> None:
        """Start all random streams from a seed, and apply the start-up events."""
        self.cfg.seed = seed
        self.rng.seed(seed)
        with self._running():
            self.event_manager.apply("startup")
            self.event_manager.restart()

    def _simulate(self) -> None:
        """Apply the action and take the physics steps of one control step."""
        if not self._substeps_matter:
            self._act()
            self.sim.step(self.cfg.decimation)
            self.scene.update(dt=self.step_dt)
            return
        for substep in range(self.cfg.decimation):
            if substep == 0 or not self._acts_once:
                self._act()
            self.sim.step()
            self.scene.update(dt=self.physics_dt)
            self.metrics_manager.compute_substep()
            self.recorder_manager.record_substep()

    def _act(self) -> None:
        """Tell the physics what the action means."""
        self.action_manager.apply_action()
        self.scene.write_data_to_sim()

    def _forward(self, mask: torch.Tensor | None = None) -> None:
        """Bring derived quantities up to date with the state."""
        self.sim.forward(mask)
        self.scene.invalidate()

    def _final_observation(self) -> Observations:
        """Compute what ended episodes led to; other rows stay old until the step is complete."""
        self.sim.sense()
        return self.observation_manager.preview()

    def _complete_final_observation(self, final_obs: Observations | None) -> Observations:
        """The final observation where episodes ended, the current one elsewhere."""
        if final_obs is None:
            return self.obs_buf

        def choose(final: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
            done = self.reset_buf.view(-1, *[1] * (final.ndim - 1))
            return torch.where(done, final, current)

        return map_observations(choose, final_obs, self.obs_buf)

    def _reset_idx(self, env_ids: torch.Tensor) -> None:
        """Start new episodes, up to and excluding the forward pass."""
        self.rng.begin_episode(env_ids)
        self.curriculum_manager.compute(env_ids=env_ids)
        self.sim.reset(env_ids)
        self.scene.reset(env_ids)
        self.event_manager.apply(
            "reset", env_ids=env_ids, global_env_step_count=self.common_step_counter
        )
        log = self.extras["log"]
        for manager in (
            self.observation_manager,
            self.action_manager,
            self.reward_manager,
            self.metrics_manager,
            self.curriculum_manager,
            self.command_manager,
            self.event_manager,
            self.termination_manager,
        ):
            log.update(manager.reset(env_ids))
        self.episode_length_buf[env_ids] = 0
        if self._awaits_reset:
            self._awaits_reset.difference_update(env_ids.tolist())

    def _check_nothing_awaits_reset(self) -> None:
        if self._awaits_reset:
            raise RuntimeError(
                f"With auto_reset=False, environments {sorted(self._awaits_reset)[:10]} must be"
                " reset with reset(env_ids=...) before the next step()."
            )

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("The environment is closed. Make a new one to continue.")
        if os.getpid() != self._pid:
            # A fork does not copy the threads of the engine and the recorders: it would hang.
            raise RuntimeError(
                "This process was forked from the one that made the environment. Make a new one in"
                " each process, or start them with multiprocessing's 'spawn'."
            )

    def _optional(
        self, manager: Callable[..., ManagerT], null: Callable[[], ManagerT], cfg: dict[str, Any]
    ) -> ManagerT:
        """Return the manager, or the null manager if there is nothing to manage."""
        if any(term is not None for term in cfg.values()):
            return manager(cfg, self)
        return null()

    def _managers(self) -> list[ManagerBase]:
        return [
            self.event_manager,
            self.command_manager,
            self.action_manager,
            self.observation_manager,
            self.termination_manager,
            self.reward_manager,
            self.curriculum_manager,
            self.metrics_manager,
            self.recorder_manager,
        ]
