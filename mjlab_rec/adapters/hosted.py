"""Recorders of this package inside another package's recorder term."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mjlab_rec.adapters.final_obs import FinalObservations
from mjlab_rec.adapters.view import EnvView
from mjlab_rec.managers.recorder_manager import RecorderManager, RecorderTerm, RecorderTermCfg

Recorders = RecorderTermCfg | Mapping[str, RecorderTermCfg]


class LostStepError(RuntimeError):
    """A step ended with an error; other packages do not tell recorders which one."""


class HostedRecorders:
    """A recorder manager whose hooks are called as another package's hooks allow.

    Args:
        recorders: The recorders' cfgs by name.
        view: The environment as they see it.
        finals: Computes final observations, if a recorder needs them.
        where: What to call this in messages.
        missing: Hooks that the other package cannot call at their moment. A recorder of the user
            that needs one is refused: it would silently record nothing, or something else.
    """

    def __init__(
        self,
        recorders: Mapping[str, RecorderTermCfg],
        view: EnvView,
        finals: FinalObservations,
        where: str,
        missing: Sequence[str],
    ) -> None:
        self.view = view
        self._finals, self._finals_checked = finals, False
        self.manager = RecorderManager(dict(recorders), view)  # pyright: ignore[reportArgumentType]
        try:
            for name in self.manager.active_terms:
                _check_hooks(name, self.manager.get_term(name), where, missing)
        except BaseException:
            self.manager.close()
            raise

    def call(self, hook: Callable[..., None], *args: Any) -> None:
        """Call a hook of the manager.

        Recorders keep their tensors for a whole run, of which a learner may take only a part in
        torch's inference mode.
        """
        with torch.inference_mode(False), torch.no_grad():
            hook(*args)

    def begin_step(self, counted: bool = True) -> None:
        """Tell recorders now that the last step began, with what was true when it did.

        Args:
            counted: Whether the environment's counter includes this step.
        """
        view = self.view
        view.hidden_steps, view.command_manager.shows_kept = int(counted), True
        try:
            self.call(self.manager.record_pre_step)
        finally:
            view.hidden_steps, view.command_manager.shows_kept = 0, False

    def end_episodes(self, env_ids: torch.Tensor) -> None:
        """Tell recorders which episodes a step ended, before the environments are reset."""
        view, hook = self.view, self.manager.record_pre_reset
        if not (self.manager.needs_final_obs and env_ids.shape[0]):
            view.set_final_obs(None)
            self.call(hook, env_ids)
            return
        env = view.env
        with self._finals.current(env.common_step_counter, env.obs_buf) as final_obs:
            view.set_final_obs(final_obs)
            self.call(hook, env_ids)

    def begin_episodes(self, env_ids: torch.Tensor) -> None:
        """Tell recorders that ``reset()`` of the environment, between steps, has reset these."""
        if self.manager.needs_final_obs and not self._finals_checked:
            self._finals_checked = True
            self._finals.check()
            self.view.recording_notes += self._finals.notes
        self.view.set_final_obs(None)
        self.call(self.manager.record_post_reset, env_ids)

    def lose_step(self, begun: bool, counted: bool) -> None:
        """Tell recorders that a step failed.

        Args:
            begun: Whether they know that it began.
            counted: Whether the environment's counter includes it.
        """
        if not begun:
            self.begin_step(counted)
        self.fail()

    def fail(self) -> None:
        """Tell recorders that the step which they know has begun failed."""
        error = LostStepError("A step of the environment failed, or was left before its end.")
        self.call(self.manager.record_exception, error)


def named(recorders: Recorders, function: str) -> dict[str, RecorderTermCfg]:
    """Recorders by name; one without a name is called "recorder".

    Args:
        recorders: What the user gave.
        function: The function that got it, for messages.
    """
    found = dict(recorders) if isinstance(recorders, Mapping) else {"recorder": recorders}
    for name, cfg in found.items():
        if not isinstance(cfg, RecorderTermCfg):
            which = f" as '{name}'" if isinstance(recorders, Mapping) else ""
            raise TypeError(
                f"{function}() takes the cfg of a recorder of mjlab_rec, such as"
                f" Hdf5RecorderCfg(path='run.h5'), or a dict of them by name; got"
                f" {type(cfg).__name__}{which}."
            )
    if not found:
        raise ValueError(f"{function}() got an empty dict: there is nothing to record.")
    return found


def _check_hooks(name: str, term: RecorderTerm, where: str, missing: Sequence[str]) -> None:
    for hook in missing:
        method = getattr(type(term), hook)
        if method is getattr(RecorderTerm, hook) or hook in term.unused_hooks:
            continue
        if not method.__module__.startswith("mjlab_rec.recorders."):
            raise TypeError(
                f"The recorder '{name}' ({type(term).__name__}) overrides {hook}(), but {where} has"
                " no such moment to call it. Use record_pre_reset, record_post_reset and"
                " record_post_step, or subclass TransitionRecorder, which gets whole rows."
            )
