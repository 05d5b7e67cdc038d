"""Recorder manager: calls recorders at the right moments of a rollout."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    find_term,
)
from mjlab_rec.managers.recorder_term import RecorderTerm as RecorderTerm
from mjlab_rec.managers.recorder_term import RecorderTermCfg as RecorderTermCfg
from mjlab_rec.utils.interrupts import finishing, interrupts, uninterrupted
from mjlab_rec.utils.string import nearest
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

_HOOKS = (
    "record_pre_step",
    "record_substep",
    "record_post_physics",
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
        self._lock = threading.RLock()  # Held in hooks and while recorders close.
        self._selecting = threading.Lock()
        self._stepping = False  # Whether a step has begun and is not complete.
        super().__init__(env)
        self._terms_changed()

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
        """Whether any recorder has a substep hook, recording or not."""
        return any(_overrides(term, "record_substep") for term in self._terms.values())

    def get_term(self, name: str) -> RecorderTerm:
        """The recorder of this name."""
        return find_term("recorder", name, self._terms)

    def record_pre_step(self) -> None:
        """Handle the start of a control step."""
        interrupts.begin_step()
        self._stepping = True
        self._call("record_pre_step")

    def record_substep(self) -> None:
        """Handle the end of a physics substep."""
        self._call("record_substep")

    def record_post_physics(self) -> None:
        """Handle the end of the physics substeps."""
        self._call("record_post_physics")

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """Handle episodes that ended, before they are reset."""
        self._call("record_pre_reset", env_ids)

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        """Handle environments that were reset."""
        self._call("record_post_reset", env_ids)

    def record_post_step(self) -> None:
        """Handle the end of a control step."""
        self._call("record_post_step")
        self._stepping = False

    @uninterrupted
    def record_exception(self, error: BaseException) -> None:
        """Handle an error that ``step()`` is about to raise; a failure here never replaces it."""
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
        """Start a recorder; one that cannot start keeps its state."""
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
        """Pause a recorder until it is started again."""
        self.get_term(name).pause()

    @finishing
    def stop(self, name: str) -> None:
        """Stop a recorder; if started again, it begins a new recording."""
        self.get_term(name).stop()

    def add(self, cfg: RecorderTermCfg, name: str | None = None) -> tuple[str, RecorderTerm]:
        """Add a recorder between two steps, or raise and leave everything as it was.

        Returns:
            Its name and the recorder.
        """
        if name is None:
            numbers = itertools.count(2)
            name = "recording"
            while name in self._terms:
                name = f"recording_{next(numbers)}"
        elif not isinstance(name, str) or name in self._terms:
            raise ValueError(
                f"name is {name!r}: it must be a string that no recorder has yet. There are"
                f" recorders named: {', '.join(self._terms) or '(none)'}."
            )
        _check_cfg(name, cfg)
        self._on_error[name] = cfg.on_error
        try:
            self._resolve({name: cfg})
            term = self._terms[name]
            self._terms_changed()
            term._recorder_join()
        except BaseException:
            if name in self._terms:
                with contextlib.suppress(Exception):  # The error that is being raised says more.
                    self._terms[name].close_for_good()
            self._drop([name])
            raise
        return name, term

    @finishing
    def remove(self, names: Sequence[str]) -> None:
        """Close these recorders between two steps and remove them; errors as in ``close``."""
        try:
            self._close(names)
        finally:
            self._drop(names)

    def _drop(self, names: Sequence[str]) -> None:
        self._terms = {name: term for name, term in self._terms.items() if name not in names}
        self._terms_changed()

    def _terms_changed(self) -> None:
        self.needs_final_obs = any(term.needs_final_obs for term in self._terms.values())
        """Whether the environment must provide final observations."""
        for term in self._terms.values():
            term._recorder_changed = self._select_hooks
        self._select_hooks()

    @finishing
    def close(self) -> None:
        """Close every recorder, even if one fails; then raise all errors together.

        A process forked from the one that made them leaves them alone.
        """
        if os.getpid() == self._pid:
            self._close(self._terms)

    def _close(self, names: Iterable[str]) -> None:
        errors = []
        for name in names:
            try:
                self._terms[name].close_for_good()
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
        """Collect the recorders to call at each hook, so that a step looks nothing up."""
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
            # As one assignment: another thread may be stepping.
            self._selected = hooks, drawing if hasattr(self._env, "rng") else set()

    def _call(self, hook: str, *args: torch.Tensor) -> None:
        if self._selected[0][hook]:
            self._call_selected(hook, args)

    @uninterrupted
    def _call_selected(self, hook: str, args: tuple[torch.Tensor, ...]) -> None:
        with self._lock:
            hooks, drawing = self._selected
            if hook in drawing:
                # A recorder's random numbers must not be taken from the rollout's.
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
            "Recorder '%s' failed in %s. It is closed, and the rollout continues without it.",
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
            _check_cfg(name, cfg)
        try:
            self._resolve(self.cfg)
        except BaseException:
            # Those already built may have opened files.
            self.close()
            raise

    def _resolve_common_term_cfg(self, term_name: str, term_cfg: RecorderTermCfg) -> None:
        # Recorders read cfg.params themselves, so there is no signature to check them against.
        self._resolve_entities(f"Recorder term '{term_name}'", term_cfg.params)
        term = term_cfg.func(cfg=term_cfg, env=self._env)
        _warn_of_misspelt_hooks(type(term))
        term._recorder_lock = self._lock
        # A new dict, because another thread may be going through the old one.
        self._terms = {**self._terms, term_name: term}


def _check_cfg(name: str, cfg: RecorderTermCfg) -> None:
    """Raise if no recorder can be built from this cfg."""
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


def _warn_of_misspelt_hooks(cls: type[RecorderTerm]) -> None:
    """Warn of methods that are never called, because their names are almost those of hooks."""
    letters = {hook.removeprefix("record").replace("_", ""): hook for hook in _HOOKS}
    for name in dir(cls):
        if not name.startswith("record") or hasattr(RecorderTerm, name):
            continue
        word = name.removeprefix("record").replace("_", "").lower()
        for close in difflib.get_close_matches(word, letters, n=1, cutoff=0.85):
            hook = letters[close]
            if getattr(cls, hook) is getattr(RecorderTerm, hook):
                logger.warning(
                    "%s.%s is never called: it is not the name of a hook. Did you mean %s?",
                    *(cls.__name__, name, hook),
                )


def _overrides(term: RecorderTerm, hook: str) -> bool:
    is_own = getattr(type(term), hook) is not getattr(RecorderTerm, hook)
    return is_own and hook not in term.unused_hooks


class NullRecorderManager(RecorderManager):
    """Replaces the manager if there are no recorders: every hook returns at once."""

    needs_final_obs = False

    def __init__(self) -> None:
        self.cfg = {}
        self._prepare_terms()

    def record_pre_step(self) -> None:
        """Nothing to call."""

    def record_substep(self) -> None:
        """Nothing to call."""

    def record_post_physics(self) -> None:
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
