"""Recorder manager: calls recorders at the right moments of a rollout."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    ManagerTermBase,
    ManagerTermBaseCfg,
    find_term,
)
from mjlab_rec.utils.interrupts import finishing, interrupts, uninterrupted
from mjlab_rec.utils.string import nearest
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

RecorderState = Literal["recording", "paused", "stopped"]


@dataclass
class RecorderTermCfg(ManagerTermBaseCfg):
    """Configuration of a recorder: ``func`` is a subclass of ``RecorderTerm``."""

    on_error: Literal["raise", "disable"] = "raise"
    """What an error in a hook does: end the ``step()`` or ``reset()`` that called it, or log the
    error, close this recorder for good and let the rollout go on. ``close()`` is treated alike."""


class RecorderTerm(ManagerTermBase):
    """Base class of recorders: override the hooks you need, the others cost nothing.

    The environment is ``self._env``; its observation, reward, flags and managers are valid as each
    hook's docstring says. What the environment may reuse must be copied if it is kept.

    Hooks and ``close()`` never run at the same time, whichever threads call them, and signals such
    as Ctrl-C take effect after them.
    """

    draws_random_numbers: bool = True
    """Whether hooks may draw from torch's global generators or ``env.rng``. If so they are kept
    apart from the rollout's random numbers, which costs some 20 us per call of the hook."""

    needs_final_obs: bool = False
    """Whether the environment must provide ``extras["final_obs"]``."""

    hooks_when_idle: tuple[str, ...] = ()
    """Names of hooks that are called also while the recorder is paused or stopped."""

    # On the class, so that they exist in subclasses that do not call __init__; and with names that
    # subclasses will hardly use for something else.
    _recorder_state: RecorderState = "recording"
    _recorder_closed = False
    _recorder_changed: Callable[[], None] | None = None
    _recorder_lock = threading.RLock()  # The manager gives it one for its recorders.

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(env)
        self.cfg = cfg

    @property
    def state(self) -> RecorderState:
        """Whether it is recording, paused or stopped; once closed it is stopped for good."""
        return self._recorder_state

    def start(self) -> None:
        """Record (again): go on after ``pause()``, begin a new recording after ``stop()``."""
        if self._recorder_closed:
            raise RuntimeError(
                f"The recorder {self.name} is closed and cannot start again. It closes with the"
                ' environment, or after an error if its cfg says on_error="disable".'
            )
        self._set_state("recording")

    def pause(self) -> None:
        """Leave out what happens until ``start()``; the recording goes on after it."""
        if self._recorder_state == "recording":
            self._set_state("paused")

    def stop(self) -> None:
        """End the recording; a later ``start()`` begins a new one.

        This base class only ceases to be called, as in a pause. A recorder that can finish its
        file before ``close()`` does so in an override, and calls this method.
        """
        self._set_state("stopped")

    def _set_state(self, state: RecorderState) -> None:
        if state != self._recorder_state:
            self._recorder_state = state
            if self._recorder_changed is not None:
                self._recorder_changed()

    @finishing
    def close_for_good(self) -> None:
        """Close it unless it was closed; no hook is called any more, and it cannot start again."""
        with self._recorder_lock:
            if self._recorder_closed:
                return
            self._recorder_closed = True
            try:
                self._recorder_close()
            finally:
                self._set_state("stopped")

    def _recorder_close(self) -> None:
        """Close; a base class does here what must happen before ``close``."""
        self.close()

    def record_pre_step(self) -> None:
        """Called first in ``step()``, with the state and observation that the action answers.

        ``action_manager.action`` is still the previous step's.
        """

    def record_substep(self) -> None:
        """Called after every physics substep."""

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """Called in ``step()`` before the environments whose episode ended are reset.

        ``action_manager.action``, ``reward_buf``, ``reset_terminated`` and ``reset_time_outs`` are
        those of the episode's last step. ``obs_buf`` is the observation that this action answered;
        what the action led to is in ``extras["final_obs"]`` if the environment's ``final_obs`` is
        on.
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

        A Ctrl-C is one too, and SystemExit.
        """

    def close(self) -> None:
        """Called once, when the environment closes: write what is left and release files."""


_HOOKS = (
    "record_pre_step",
    "record_substep",
    "record_pre_reset",
    "record_post_reset",
    "record_post_step",
    "record_exception",
)


_Hook = tuple[str, RecorderTerm, Callable[..., None]]


class RecorderManager(ManagerBase):
    """Forwards each hook to the recorders that override it and are recording."""

    def __init__(self, cfg: dict[str, RecorderTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        self._pid = os.getpid()
        self._lock = threading.RLock()  # Held in hooks and while recorders are closed.
        self._selecting = threading.Lock()
        self._stepping = False  # Whether a step began and is not complete.
        super().__init__(env)
        self.needs_final_obs = any(term.needs_final_obs for term in self._terms.values())
        """Whether the environment must provide final observations."""
        for term in self._terms.values():
            term._recorder_changed = self._select_hooks
        self._select_hooks()

    def __str__(self) -> str:
        rows = [
            (i, name, type(term).__name__) for i, (name, term) in enumerate(self._terms.items())
        ]
        return format_table("Recorder terms", ("Index", "Name", "Type"), rows)

    def __contains__(self, name: str) -> bool:
        return name in self._terms

    @property
    def active_terms(self) -> list[str]:
        """Names of the recorders."""
        return list(self._terms)

    @property
    def has_substep_terms(self) -> bool:
        """Whether any recorder wants to be called after every substep, be it recording or not."""
        return any(_overrides(term, "record_substep") for term in self._terms.values())

    def get_term(self, name: str) -> RecorderTerm:
        """The recorder of this name."""
        return find_term("recorder", name, self._terms)

    def record_pre_step(self) -> None:
        """A control step begins."""
        interrupts.begin_step()
        self._stepping = True
        self._call("record_pre_step")

    def record_substep(self) -> None:
        """A physics substep is done."""
        self._call("record_substep")

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """These episodes ended and are about to be reset."""
        self._call("record_pre_reset", env_ids)

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """These environments were reset."""
        self._call("record_post_reset", env_ids)

    def record_post_step(self) -> None:
        """A control step is done."""
        self._call("record_post_step")
        self._stepping = False

    @uninterrupted
    def record_exception(self, error: BaseException) -> None:
        """``step()`` is about to raise this error. What fails here never takes its place."""
        with self._lock:
            if not (self._stepping or isinstance(error, Exception)):
                return  # A signal came right after the step, which did not fail.
            self._stepping = False
            for name, term, hook in self._selected[0]["record_exception"]:
                try:
                    if not term._recorder_closed:
                        hook(error)
                except Exception as second:
                    error.add_note(f"The recorder '{name}' failed to record this: {second!r}")
                    logger.exception("Recorder '%s' failed to record an error of step().", name)

    @uninterrupted
    def start(self, name: str) -> None:
        """Let a recorder record (again); one that cannot start is left as it was."""
        term = self.get_term(name)
        before = term.state
        try:
            term.start()
        except BaseException:
            if not term._recorder_closed:
                term._set_state(before)
            raise

    @uninterrupted
    def pause(self, name: str) -> None:
        """Let a recorder leave out what happens until it is started again."""
        self.get_term(name).pause()

    @finishing
    def stop(self, name: str) -> None:
        """Let a recorder end its recording; started again, it begins a new one."""
        self.get_term(name).stop()

    @finishing
    def close(self) -> None:
        """Close every recorder, even if one fails; then raise what went wrong, all together.

        In a process that was forked from the one that made them, they are left alone.
        """
        if os.getpid() != self._pid:
            return
        errors = []
        for name, term in self._terms.items():
            try:
                term.close_for_good()
            except Exception as error:
                if self._on_error[name] == "disable":
                    logger.exception("Recorder '%s' failed to close.", name)
                else:
                    error.add_note(f"while closing recorder '{name}'")
                    errors.append(error)
        if errors:
            raise ExceptionGroup("Some recorders failed to close.", errors)

    @uninterrupted
    def _select_hooks(self) -> None:
        """Find out whom to call at each hook, so that nothing is looked up in a step."""
        with self._selecting:
            hooks: dict[str, list[_Hook]] = {}
            for hook in _HOOKS:
                hooks[hook] = [
                    (name, term, getattr(term, hook))
                    for name, term in self._terms.items()
                    if _overrides(term, hook)
                    and not term._recorder_closed
                    and (term.state == "recording" or hook in term.hooks_when_idle)
                ]
            drawing = {
                hook
                for hook, called in hooks.items()
                if any(term.draws_random_numbers for _, term, _ in called)
            }
            # In one piece: another thread may be stepping.
            self._selected = hooks, drawing if hasattr(self._env, "rng") else set()

    def _call(self, hook: str, *args: torch.Tensor) -> None:
        if self._selected[0][hook]:
            self._call_selected(hook, args)

    @uninterrupted
    def _call_selected(self, hook: str, args: tuple[torch.Tensor, ...]) -> None:
        with self._lock:
            hooks, drawing = self._selected
            if hook in drawing:
                # Random numbers that a recorder draws must not be missing in the rollout.
                with self._env.rng.suspended():
                    self._call_each(hook, hooks[hook], args)
            else:
                self._call_each(hook, hooks[hook], args)
            if hook == "record_post_step":
                self._stepping = False  # Here: a signal may be raised right after this function.

    def _call_each(self, hook: str, called: list[_Hook], args: tuple[torch.Tensor, ...]) -> None:
        for name, term, method in called:
            if term._recorder_closed:
                continue
            try:
                method(*args)
            except Exception as error:
                if self._on_error[name] == "raise":
                    error.add_note(f"in {hook} of recorder '{name}'")
                    raise
                self._disable(name, hook)

    def _disable(self, name: str, hook: str) -> None:
        """Log the error being handled, and close the recorder for good."""
        logger.exception(
            "Recorder '%s' failed in %s. It is closed, and the rollout goes on without it.",
            *(name, hook),
        )
        try:
            self._terms[name].close_for_good()
        except Exception:
            logger.exception("Recorder '%s' also failed to close.", name)

    def _prepare_terms(self) -> None:
        self._terms: dict[str, RecorderTerm] = {}
        given = {name: cfg for name, cfg in self.cfg.items() if cfg is not None}
        self._on_error = {name: cfg.on_error for name, cfg in given.items()}
        for name, cfg in given.items():
            if not (isinstance(cfg.func, type) and issubclass(cfg.func, RecorderTerm)):
                raise TypeError(
                    f"Recorder term '{name}': func must be a subclass of RecorderTerm, got"
                    f" {cfg.func!r}. Recorders keep files and buffers, so a function will not do."
                )
            if cfg.on_error not in ("raise", "disable"):
                raise ValueError(
                    f"Recorder term '{name}': unknown on_error {cfg.on_error!r}."
                    f" {nearest(str(cfg.on_error), ['raise', 'disable'])}"
                )
        try:
            self._resolve(self.cfg)
        except BaseException:
            # Those that were built may have opened files.
            self.close()
            raise

    def _resolve_common_term_cfg(self, term_name: str, term_cfg: RecorderTermCfg) -> None:
        # Recorders read cfg.params themselves, so there is no signature to check them against.
        self._resolve_entities(f"Recorder term '{term_name}'", term_cfg.params)
        term = term_cfg.func(cfg=term_cfg, env=self._env)
        term._recorder_lock = self._lock
        self._terms[term_name] = term


def _overrides(term: RecorderTerm, hook: str) -> bool:
    return getattr(type(term), hook) is not getattr(RecorderTerm, hook)


class NullRecorderManager(RecorderManager):
    """Stands in where there are no recorders: every hook returns at once."""

    needs_final_obs = False

    def __init__(self) -> None:
        self.cfg = {}
        self._prepare_terms()

    def record_pre_step(self) -> None:
        """Nothing to call."""

    def record_substep(self) -> None:
        """Nothing to call."""

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """Nothing to call."""

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """Nothing to call."""

    def record_post_step(self) -> None:
        """Nothing to call."""

    def record_exception(self, error: BaseException) -> None:
        """Nothing to call."""

    def close(self) -> None:
        """Nothing to close."""
