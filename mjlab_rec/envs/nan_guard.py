"""The recorder that ``SimulationCfg.nan_guard`` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mjlab_rec.envs.mdp.terminations import nan_detection
from mjlab_rec.utils.lookup import look_up

if TYPE_CHECKING:
    from mjlab_rec.envs.env_cfg import ManagerBasedRlEnvCfg
    from mjlab_rec.managers.recorder_manager import RecorderTermCfg

NAME = "nan_guard"


def with_nan_guard(cfg: ManagerBasedRlEnvCfg) -> dict[str, RecorderTermCfg]:
    """Return the environment's recorders, with the NaN guard's if it is enabled."""
    guard = cfg.sim.nan_guard
    if not guard.enabled or NAME in cfg.recorders:
        return cfg.recorders
    # Such a term resets diverged worlds before a recorder sees their state.
    resetting = [
        name
        for name, term in cfg.terminations.items()
        if term is not None and term.func is nan_detection
    ]
    # By its name, because recorders belong to a higher layer than environments.
    make = look_up("mjlab_rec.recorders.flight:nan_guard_recorder")
    return {**cfg.recorders, NAME: make(guard, resetting)}
