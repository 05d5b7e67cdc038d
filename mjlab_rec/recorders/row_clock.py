"""The row clock: when a row begins, is complete, ends an episode or is discarded."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from mjlab_rec.data.schema import DataError
from mjlab_rec.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab_rec.recorders.channels import Source
from mjlab_rec.recorders.counters import EpisodeCounters
from mjlab_rec.recorders.physics_probe import PhysicsProbe
from mjlab_rec.recorders.shutdown import close_at_exit, closed
from mjlab_rec.recorders.trigger_windows import TriggerWindows
from mjlab_rec.recorders.triggers import TriggerLike
from mjlab_rec.utils.indexing import checked_ids
from mjlab_rec.utils.interrupts import finishing

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

Request = Literal["start", "pause", "stop", "fire", "flush"] | Callable[[], None]


class RowClock(RecorderTerm):
    """Turns the environment's hooks into rows and episodes: the base of all built-in recorders.

    A subclass overrides the methods below "moments". A row begins when its observation is new, at
    the end of the previous step or after a reset; it is complete at the end of the step that
    follows the observation. A step calls the methods in this order: ``on_step``, ``on_row_taken``,
    ``on_episodes_end``, ``on_episodes_begin``, ``on_row_complete``, ``on_row_begins``. A step that
    fails ends with ``on_step_failed``.

    Calls to ``start``, ``pause``, ``stop``, ``fire``, ``reset`` and ``flush`` from another thread,
    or during a step, take effect at the end of that step.

    Args:
        cfg: The recorder's cfg.
        env: The environment.
        every: Steps from one row to the next.
        trigger: When to record; None means always.
        length: Steps to record each time the trigger fires.
        success: Returns which environments have succeeded; None if success is not defined.
        sums: Whether to sum each reward term over an episode.
        autostart: Whether to start recording at the first reset.
    """

    windows_type: ClassVar[type[TriggerWindows]] = TriggerWindows

    # Episodes are counted even while no rows are recorded.
    hooks_when_idle = (
        *("record_pre_step", "record_pre_reset", "record_post_reset", "record_post_step"),
        "record_exception",
    )

    def __init__(
        self,
        cfg: RecorderTermCfg,
        env: ManagerBasedRlEnv,
        *,
        every: int = 1,
        trigger: TriggerLike | None = None,
        length: int | None = None,
        success: Callable[[], torch.Tensor] | None = None,
        sums: bool = False,
        autostart: bool = True,
    ) -> None:
        super().__init__(cfg, env)
        self.rows = 0
        """Recorded steps."""
        self.counters = EpisodeCounters(env, success, sums)
        """Counters of the running episodes."""
        self._every = every
        self._windows = self.windows_type(trigger, length, env)
        self._auto_reset = bool(getattr(env.cfg, "auto_reset", True))
        # The environments that the next step only resets, so that it has no row. None: never.
        self._pending: torch.Tensor | None = getattr(env, "pending_resets", None)
        # Another package's environment may tell that a step is over when the next has begun.
        self._ends_late = bool(getattr(env, "ends_steps_late", False))
        self._all_envs = torch.arange(env.num_envs, device=env.device)
        self._no_envs = self._all_envs[:0]
        self._thread = threading.get_ident()
        self._requests: deque[tuple[Request, threading.Event]] = deque()
        # The only record of where in a step the environment is.
        self._phase: Literal["between steps", "in a step", "after its resets"] = "between steps"
        self._step_counted = False  # whether the counters include the current step
        self._open = False  # whether there is a recording, paused or not
        self._on = False  # whether steps are being recorded
        self._due = False  # whether the next or current step has a row
        # Whether the values at the next step's start are unknown.
        self._stale = getattr(getattr(env, "running_episodes", None), "step_failed", False)
        self._said_stale = False  # whether the user was told of a step without a row because of it
        self._active: torch.Tensor | None = None  # the environments with a row; None: all
        self._probes: list[PhysicsProbe] = []
        if not autostart:
            super().stop()

    def use_probes(self, sources: Sequence[Source]) -> None:
        """Call the probes of these sources around the physics steps of rows."""
        self._probes = list({id(s.probe): s.probe for s in sources if s.probe}.values())

    @property
    def unused_hooks(self) -> Collection[str]:
        """Names of the hooks around physics steps, unless a probe needs them."""
        needed = {
            "record_substep": any(probe.needs_substeps for probe in self._probes),
            "record_post_physics": bool(self._probes),
        }
        return [
            hook
            for hook, needs in needed.items()
            if not needs and getattr(type(self), hook) is getattr(RowClock, hook)
        ]

    # -- moments, for subclasses -------------------------------------------------------------------

    def on_open(self) -> None:
        """A recording begins: all values can be read now."""

    def on_step(self, ended: torch.Tensor) -> None:
        """Called after each step, before it is counted and before any reset, rows or no rows.

        Args:
            ended: The environments whose episodes the step ended.
        """

    def on_row_taken(self) -> None:
        """The step has a row: read the action's results before a reset overwrites them."""

    def on_episodes_end(self, env_ids: torch.Tensor, cut: bool, in_row: bool) -> None:
        """Episodes end, those without a step included; ``counters`` still holds them.

        This and ``on_episodes_begin`` are also called while no rows are recorded.

        Args:
            env_ids: The environments.
            cut: Neither terminated nor truncated.
            in_row: Whether they end with the row of the current step.
        """

    def on_episodes_begin(self, env_ids: torch.Tensor) -> None:
        """New episodes begin in these environments, which have been reset."""

    def on_row_complete(self, was_reset: bool) -> None:
        """The step is over and its row is complete."""

    def on_rows_start(self) -> None:
        """Rows are recorded from the next step on, possibly after a gap."""

    def on_row_begins(self, has_row: bool) -> None:
        """Read the values at the next step's start. Called again if a manual reset changes them.

        Args:
            has_row: Whether the next step has a row; if not, the values may still complete the
                last one.
        """

    def on_rows_stop(self) -> None:
        """No rows are recorded from the next step on, until ``on_rows_start``."""

    def on_step_failed(self) -> None:
        """The step failed after ``on_step``: discard what was stored for it."""

    def on_fire(self) -> None:
        """Fire the manual trigger."""
        self._windows.fire()

    def on_flush(self) -> None:
        """Start writing everything recorded so far, without waiting."""

    def on_finish(self) -> None:
        """The recording ends: write the rest and release everything."""

    @property
    def full(self) -> bool:
        """Whether a limit of the cfg is reached."""
        return False

    # -- what the environment calls ----------------------------------------------------------------

    def record_pre_step(self) -> None:
        """A step begins."""
        self._thread = threading.get_ident()
        self._answer_requests()
        # After a failed step nothing has looked ahead to this one, but its trigger may fire.
        self._windows.ask_once(self._env.common_step_counter)
        self._phase = "in a step"
        self._step_counted = False
        if self._stale and self._open and self.state == "recording" and not self._said_stale:
            self._said_stale = True
            logger.warning(
                "%s: the step before this one failed, so the values at the start of this one are"
                " not known, and it has no row. Reset the environments after a failed step to"
                " avoid that.",
                self.name,
            )
        for probe in self._probes:
            probe.begin_step()

    def record_substep(self) -> None:
        """A physics step is over."""
        for probe in self._probes if self._due else ():
            probe.after_substep()

    def record_post_physics(self) -> None:
        """The physics steps of a step are over."""
        for probe in self._probes if self._due else ():
            probe.after_physics()

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """The step ended episodes; their environments are about to be reset."""
        self._take_step(env_ids)
        self._phase = "after its resets"
        if self._pending is not None:
            self._begin(env_ids)

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """New episodes begin, in a step or because of ``reset()``."""
        if self._pending is not None and self._phase != "between steps":
            return  # They were begun by the step before, which ended the last ones.
        if self._phase == "after its resets":
            self._begin(env_ids)
            return
        self._thread = threading.get_ident()
        self._end_here(env_ids)
        self._stale = False
        self._look_ahead()
        self._answer_requests()

    def record_post_step(self) -> None:
        """A step is over."""
        was_reset = self._phase == "after its resets"
        if not was_reset:
            self._take_step_without_reset()
        if self._due:
            self.on_row_complete(was_reset and not self._ends_late)
        self._phase = "between steps"
        self._stale = False
        self._look_ahead()  # First, because the last row needs what follows it.
        self._answer_requests()

    def record_exception(self, error: BaseException) -> None:
        """A step failed: it has no row, and the running episodes end before it as cut."""
        self._fail()
        self._answer_requests()

    @finishing
    def close(self) -> None:
        """Write the rest and finish the files."""
        with self._recorder_lock:
            self._finish()

    def _recorder_close(self) -> None:
        try:
            self._finish()
        finally:
            self.close()

    # -- what the user may call --------------------------------------------------------------------

    def start(self) -> None:
        """Record from the next step on: resume after ``pause()``, or begin a new recording."""
        if self._recorder_closed:
            super().start()  # Raises with the reason.
        self._request("start")

    def pause(self) -> None:
        """Record no steps from the next one on, until ``start()``; files stay open."""
        self._request("pause")

    def stop(self) -> None:
        """Finish the recording. A later ``start()`` begins a new one."""
        self._request("stop")

    def fire(self) -> None:
        """Record from the next step on, if the trigger is ``manual()``."""
        self._windows.check_manual()
        self._request("fire")

    def reset(self, env_ids: Any = None) -> None:
        """End the running episodes of these environments here, as cut, and begin new ones.

        The recorder does what it does when the environment resets them, which is left alone.

        Args:
            env_ids: Indices or a mask (num_envs,); None means all.
        """
        ids = checked_ids(env_ids, self.num_envs, self.device)
        self._request(lambda: self._end_here(ids))

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything recorded so far is written.

        Args:
            timeout: Seconds until a ``DataError`` is raised; None waits forever.
        """
        self._request("flush", timeout)

    def _recorder_join(self) -> None:
        self._windows.begin(self._all_envs, self.counters.episode)
        if self.state == "recording":
            self._request("start")

    # -- steps and episodes ------------------------------------------------------------------------

    def _take_step(self, ended: torch.Tensor) -> None:
        """Process a step, before its resets."""
        self.on_step(ended)
        self.counters.add_step(self._due, self._active)
        self._step_counted = True
        if self._due:
            self.on_row_taken()
        if ended.shape[0]:  # Faster than len().
            self.on_episodes_end(ended, cut=False, in_row=self._due)

    def _take_step_without_reset(self) -> None:
        """Process a step without resets; the user resets the environments that ended."""
        ended = self._no_envs
        if not self._auto_reset:
            ended = self._env.reset_buf.nonzero().flatten()
        self._take_step(ended)
        if ended.shape[0]:
            # The reset that follows ends an episode without a step, which is not counted.
            self.counters.restart(ended)

    def _end_here(self, env_ids: torch.Tensor) -> None:
        """Between steps: end these episodes, as cut, and begin new ones."""
        self.on_episodes_end(env_ids, cut=True, in_row=False)
        self._begin(env_ids)

    def _begin(self, env_ids: torch.Tensor) -> None:
        self.counters.restart(env_ids)
        self._windows.begin(env_ids, self.counters.episode)
        self.on_episodes_begin(env_ids)

    def _look_ahead(self) -> None:
        """Between steps: decide whether the next has a row, and read the values at its start."""
        self._due = False
        step = self._env.common_step_counter
        starts = self.state == "recording" and not self._open
        # Also while nothing is recorded, to keep its state.
        wanted = self._windows.want(step, starts)
        if starts:
            self.counters.begin_recording()
            self.on_open()
            self._open = True
            close_at_exit(self)
        if not self._open:
            return
        on = wanted and self.state == "recording" and not self.full
        due = on and step % self._every == 0 and not self._stale
        was_on = self._on
        if on and not was_on:
            self.on_rows_start()
        if due or was_on:
            self._active = self._find_active(step) if due else None
            self.on_row_begins(due)
        self._on, self._due = on, due
        if was_on and not on:
            self.on_rows_stop()

    def _find_active(self, step: int) -> torch.Tensor | None:
        """The environments that have a row of the next step; None: all."""
        env: Any = self._env
        active = self._windows.active(step, self.counters.length)
        if self._pending is not None and env.has_pending_resets:
            takes_step = self.counters.length >= 0
            active = takes_step if active is None else active & takes_step
        return active

    def _fail(self) -> None:
        """Undo the current step, if there is one."""
        if self._phase == "between steps":
            return
        self._phase = "between steps"
        self._due = False
        self._stale = True
        was_on, self._on = self._on, False
        if self._step_counted:
            self._step_counted = False
            self.counters.undo_step()
            if self._open:
                self.on_step_failed()
        self._end_here(self._all_envs)
        if self._open and was_on:
            self.on_rows_stop()

    def _finish(self) -> None:
        """End the recording, if there is one."""
        try:
            if self._open:
                self._fail()
                self.on_finish()
        finally:
            self._open = self._on = self._due = False
            closed(self)

    # -- requests ----------------------------------------------------------------------------------

    @finishing
    def _request(self, what: Request, timeout: float | None = None) -> None:
        """Handle a request now, or at the end of the current step; it may be a function."""
        mine = threading.get_ident() == self._thread
        if mine and self._phase == "between steps":
            with self._recorder_lock, torch.no_grad(), self._preserving_rng():
                self._answer(what)
        else:
            done = threading.Event()
            self._requests.append((what, done))
            if what == "flush" and not mine and not done.wait(timeout):
                raise DataError(
                    f"{self.name}: no step ended within {timeout} s, so nothing was flushed."
                )
        if what == "flush" and self._open:
            self.wait_until_written(timeout)

    def wait_until_written(self, timeout: float | None) -> None:
        """Wait until everything handed over is written."""

    def _answer_requests(self) -> None:
        for _ in range(len(self._requests)):  # Later requests wait for the next time.
            what, done = self._requests.popleft()
            try:
                self._answer(what)
            finally:
                done.set()

    def _answer(self, what: Request) -> None:
        if what == "start":
            super().start()
        elif what == "pause":
            super().pause()
        elif what == "stop":
            super().stop()
            self._finish()
        elif what == "fire":
            self.on_fire()
        elif callable(what):
            what()
        elif self._open:
            self.on_flush()
        if what != "flush" and self._env.obs_buf:  # Otherwise the first reset does this.
            self._look_ahead()

    def _preserving_rng(self) -> Any:
        """Keep reads outside of hooks from using up the rollout's random numbers."""
        rng = getattr(self._env, "rng", None) if self.draws_random_numbers else None
        return nullcontext() if rng is None else rng.rewound()
