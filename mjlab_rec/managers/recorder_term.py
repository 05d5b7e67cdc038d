"""The base class of recorders, and of their cfgs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from mjlab_rec.managers.manager_base import ManagerTermBase, ManagerTermBaseCfg
from mjlab_rec.utils.interrupts import finishing

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

RecorderState = Literal["recording", "paused", "stopped"]


@dataclass
class RecorderTermCfg(ManagerTermBaseCfg):
    """Configuration of a recorder: ``func`` is a subclass of ``RecorderTerm``."""

    on_error: Literal["raise", "disable"] = "raise"
    """What an error in a hook does: end the ``step()`` or ``reset()`` that called it, or log the
    error, close this recorder for good and let the rollout continue. This includes ``close()``."""

    def with_data(self, data: Any, env: ManagerBasedRlEnv) -> RecorderTermCfg:
        """Return a copy that records this, as given to ``start_recording``."""
        name = type(self).__name__
        raise TypeError(
            f"{name} cannot be told what to record. Call start_recording({name}(...)) without data."
        )

    def started_by_hand(self) -> RecorderTermCfg:
        """Return the cfg that ``start_recording`` uses instead: one that records at once."""
        return self


class RecorderTerm(ManagerTermBase):
    """Base class of recorders: override the hooks you need, the others cost nothing.

    The environment is ``self._env``; its observation, reward, flags and managers are valid as each
    hook's docstring says. Copy what you keep if the environment may reuse it.

    Hooks and ``close()`` never run at the same time, whichever threads call them, and signals such
    as Ctrl-C take effect after them.
    """

    draws_random_numbers: bool = True
    """Whether hooks may draw from torch's global generators or ``env.rng``. If so, their draws are
    isolated from the rollout's random numbers, which costs about 20 us per hook call."""

    needs_final_obs: bool = False
    """Whether the environment must provide ``extras["final_obs"]``."""

    hooks_when_idle: tuple[str, ...] = ()
    """Names of hooks that are also called while the recorder is paused or stopped."""

    @property
    def unused_hooks(self) -> Collection[str]:
        """Names of hooks that its class overrides, but that it does not need to be called."""
        return ()

    # On the class, so that they exist in subclasses that do not call __init__, and with names that
    # subclasses are unlikely to use for something else.
    _recorder_state: RecorderState = "recording"
    _recorder_closed = False
    _recorder_changed: Callable[[], None] | None = None
    _recorder_lock = threading.RLock()  # The manager sets one for all its recorders.

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(env)
        self.cfg = cfg

    @property
    def state(self) -> RecorderState:
        """Whether it is recording, paused or stopped; once closed it is stopped for good."""
        return self._recorder_state

    def start(self) -> None:
        """Start recording: continue after ``pause()``, begin a new recording after ``stop()``."""
        if self._recorder_closed:
            raise RuntimeError(
                f"The recorder {self.name} is closed and cannot start again. It closes with the"
                " environment, by stop_recording(), or after an error if its cfg says"
                ' on_error="disable".'
            )
        self._set_state("recording")

    def pause(self) -> None:
        """Skip what happens until ``start()``, which continues the recording."""
        if self._recorder_state == "recording":
            self._set_state("paused")

    def stop(self) -> None:
        """End the recording; a later ``start()`` begins a new one.

        In this base class it only stops the calls of hooks, as in a pause. A recorder that can
        finish its file before ``close()`` overrides this method and calls it too.
        """
        self._set_state("stopped")

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything recorded so far is written; this base class writes nothing."""

    def reset(self, env_ids: Any = None) -> None:
        """Treat these environments (None: all) as if they had been reset; here, do nothing."""

    def _recorder_join(self) -> None:
        """Called when it is added to a running environment, between two steps."""

    def _set_state(self, state: RecorderState) -> None:
        if state != self._recorder_state:
            self._recorder_state = state
            if self._recorder_changed is not None:
                self._recorder_changed()

    @finishing
    def close_for_good(self) -> None:
        """Close it if it is open: no hook is called any more, and it cannot start again."""
        with self._recorder_lock:
            if self._recorder_closed:
                return
            self._recorder_closed = True
            try:
                self._recorder_close()
            finally:
                self._set_state("stopped")

    def _recorder_close(self) -> None:
        """Close; base classes put here what must happen before ``close``."""
        self.close()

    def record_pre_step(self) -> None:
        """Called first in ``step()``, with the state and observation that the action is based on.

        ``action_manager.action`` is still the previous step's.
        """

    def record_substep(self) -> None:
        """Called after every physics substep."""

    def record_post_physics(self) -> None:
        """Called in ``step()`` after its physics steps, before rewards, events and resets.

        The state is what the action led to. All else is still the previous step's.
        """

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """Called in ``step()`` before the environments whose episode ended are reset.

        ``action_manager.action``, ``reward_buf``, ``reset_terminated`` and ``reset_time_outs`` are
        those of the episode's last step. ``obs_buf`` is the observation that this action was based
        on; what the action led to is in ``extras["final_obs"]`` if the environment's ``final_obs``
        is on.
        """

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """Called after a reset, by ``reset()`` or inside ``step()``.

        ``obs_buf[env_ids]`` is the first observation of the new episodes, and their action is zero.
        """

    def record_post_step(self) -> None:
        """Called last in ``step()``.

        ``obs_buf`` is what the policy sees next, ``action_manager.action`` the action of this
        step; both belong to the new episode where ``reset_buf`` is true and auto-reset is on.
        """

    def record_exception(self, error: BaseException) -> None:
        """Called when ``step()`` is about to raise this error before it is complete.

        Ctrl-C and SystemExit count too.
        """

    def close(self) -> None:
        """Called once, when the environment closes or ``stop_recording`` removes the recorder.

        Write what is left and release files.
        """
