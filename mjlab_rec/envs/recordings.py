"""Recorders that are added to a running environment, and removed from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mjlab_rec.managers.recorder_manager import (
    NullRecorderManager,
    RecorderManager,
    RecorderTerm,
    RecorderTermCfg,
)
from mjlab_rec.utils.interrupts import uninterrupted
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


class Recordings:
    """What ``start_recording`` has added to an environment; called between two steps."""

    def __init__(self, env: ManagerBasedRlEnv) -> None:
        self._env = env
        self._names: set[str] = set()  # All that were ever given.

    def start(self, data: Any, cfg: RecorderTermCfg | None, name: str | None) -> RecorderTerm:
        """Add a recorder, or raise and leave the environment as it was."""
        return self._add(_cfg_of(data, cfg, self._env), name)

    @uninterrupted
    def _add(self, cfg: RecorderTermCfg, name: str | None) -> RecorderTerm:
        manager = self._env.recorder_manager
        if isinstance(manager, NullRecorderManager):
            manager = RecorderManager({}, self._env)
        name, handle = manager.add(cfg, name)
        self._names.add(name)
        self._env.use_recorders(manager)
        return handle

    def stop(self, recording: RecorderTerm | str | None) -> None:
        """Close a recorder and remove it; None means all that were added."""
        manager = self._env.recorder_manager
        names = self._find(recording)
        if names:
            try:
                manager.remove(names)
            finally:
                left = manager if manager.active_terms else NullRecorderManager()
                self._env.use_recorders(left)

    def _find(self, recording: RecorderTerm | str | None) -> list[str]:
        """Names of the recorders to remove; none if that has been done before."""
        manager = self._env.recorder_manager
        terms = {name: manager.get_term(name) for name in manager.active_terms}
        added = [name for name in terms if name in self._names]
        if recording is None:
            return added
        if isinstance(recording, str):
            found, known = [name for name in added if name == recording], recording in self._names
        else:
            found = [name for name in added if terms[name] is recording]
            known = recording not in terms.values() and getattr(
                recording, "_recorder_closed", False
            )
        if not found and not known:
            name, shown = "", repr(type(recording))
            if isinstance(recording, str):
                name, shown = recording, repr(recording)
            raise ValueError(
                "stop_recording() takes what start_recording() of this environment returned, or"
                f" its name, got {shown}. {nearest(name, added)} To finish a recorder of the"
                " environment's cfg, call its stop()."
            )
        return found


def _cfg_of(data: Any, cfg: RecorderTermCfg | None, env: ManagerBasedRlEnv) -> RecorderTermCfg:
    """Return the recorder's cfg that the arguments of ``start_recording`` describe."""
    given = data if cfg is None else cfg
    if isinstance(given, type) and issubclass(given, RecorderTermCfg):
        raise TypeError(
            f"start_recording() takes a recorder's cfg, got the class {given.__name__}. Did you"
            f" mean {given.__name__}(...)?"
        )
    if not isinstance(given, RecorderTermCfg):
        raise TypeError(
            f"start_recording() got no recorder's cfg but {type(given).__name__}. It comes second,"
            " after what to record: start_recording(data, NpzRecorderCfg(path='run'))."
        )
    return (given if cfg is None else cfg.with_data(data, env)).started_by_hand()
