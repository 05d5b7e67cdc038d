"""Recorder manager: calls recorders at the right moments of a rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers.manager_base import (
    ManagerBase,
    ManagerTermBase,
    ManagerTermBaseCfg,
    NullManager,
    find_term,
)
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@dataclass
class RecorderTermCfg(ManagerTermBaseCfg):
    """Configuration of a recorder: ``func`` is a subclass of ``RecorderTerm``."""


class RecorderTerm(ManagerTermBase):
    """Base class of recorders: override the hooks you need, the others cost nothing.

    The environment is ``self._env``; its observation, reward, flags and managers are valid as each
    hook's docstring says. What the environment may reuse must be copied if it is kept.
    """

    def __init__(self, cfg: RecorderTermCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(env)
        self.cfg = cfg

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

    def close(self) -> None:
        """Called when the environment closes: write what is left and release files."""


_HOOKS = (
    "record_pre_step",
    "record_substep",
    "record_pre_reset",
    "record_post_reset",
    "record_post_step",
)


class RecorderManager(ManagerBase):
    """Forwards each hook to the recorders that override it."""

    def __init__(self, cfg: dict[str, RecorderTermCfg], env: ManagerBasedRlEnv) -> None:
        self.cfg = cfg
        super().__init__(env)
        self._hooks = {
            hook: [
                getattr(term, hook)
                for term in self._terms.values()
                if getattr(type(term), hook) is not getattr(RecorderTerm, hook)
            ]
            for hook in _HOOKS
        }

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
        """Whether any recorder wants to be called after every substep."""
        return bool(self._hooks["record_substep"])

    def get_term(self, name: str) -> RecorderTerm:
        """The recorder of this name."""
        return find_term("recorder", name, self._terms)

    def record_pre_step(self) -> None:
        """A control step begins."""
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

    def close(self) -> None:
        """Close every recorder, even if one fails; then raise what went wrong, all together."""
        errors = []
        for name, term in self._terms.items():
            try:
                term.close()
            except Exception as error:
                error.add_note(f"while closing recorder '{name}'")
                errors.append(error)
        if errors:
            raise ExceptionGroup("Some recorders failed to close.", errors)

    def _call(self, name: str, *args: torch.Tensor) -> None:
        hooks = self._hooks[name]
        if hooks:
            # Random numbers that a recorder draws must not be missing in the rollout.
            with self._env.rng.suspended():
                for hook in hooks:
                    hook(*args)

    def _prepare_terms(self) -> None:
        self._terms: dict[str, RecorderTerm] = {}
        for name, cfg in self.cfg.items():
            if cfg is not None and not (
                isinstance(cfg.func, type) and issubclass(cfg.func, RecorderTerm)
            ):
                raise TypeError(
                    f"Recorder term '{name}': func must be a subclass of RecorderTerm, got"
                    f" {cfg.func!r}. Recorders keep files and buffers, so a function will not do."
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
        self._terms[term_name] = term_cfg.func(cfg=term_cfg, env=self._env)


NullRecorderManager = NullManager
