"""What the cfgs of several recorders share: which environments, how often, and plain cfgs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral
from typing import Any

from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)


def env_ids(envs: int | Iterable[int], num_envs: int, owner: str) -> tuple[int, ...]:
    """The environments that a cfg's field ``envs`` names, of this many.

    Args:
        envs: The first so many, or these.
        num_envs: How many there are.
        owner: The cfg's name, for the message if there are no such environments.
    """
    if isinstance(envs, Iterable):
        ids = tuple(envs)
    else:
        ids = tuple(range(envs)) if isinstance(envs, Integral) else ()
    wrong = [i for i in ids if not isinstance(i, Integral) or not 0 <= i < num_envs]
    if not ids or wrong or len(set(ids)) < len(ids):
        raise ValueError(
            f"{owner}.envs is {envs!r}: it must name different environments from 0 to"
            f" {num_envs - 1}, or be a count from 1 to {num_envs}."
        )
    return ids


def stride(every: int, hz: float | None, step_dt: float, owner: str) -> int:
    """Steps from one row to the next, given as such or as rows per second of simulated time.

    Args:
        every: Steps, if ``hz`` is None.
        hz: Rows per second.
        step_dt: Seconds of a step.
        owner: The cfg's name, for the warning if that is no whole number of steps.
    """
    if hz is None:
        return every
    every = max(1, round(1.0 / (hz * step_dt)))
    if abs(every * hz * step_dt - 1.0) > 1e-6:
        logger.warning(
            "%s: %g Hz is not a whole number of steps of %g s; recording every %d steps, at %g Hz.",
            *(owner, hz, step_dt, every, 1.0 / (every * step_dt)),
        )
    return every


def typed(cfg: RecorderTermCfg, cfg_type: type[RecorderTermCfg]) -> Any:
    """A cfg of the recorder's own type; ``params`` of a plain RecorderTermCfg are its fields."""
    if isinstance(cfg, cfg_type):
        return cfg
    known = [field.name for field in fields(cfg_type)]
    for name in cfg.params:
        if name not in known:
            raise ValueError(f"{cfg_type.__name__} has no field '{name}'. {nearest(name, known)}")
    return cfg_type(**{"func": cfg.func, "on_error": cfg.on_error, **cfg.params})
