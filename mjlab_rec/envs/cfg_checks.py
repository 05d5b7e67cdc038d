"""Checks of an environment's config, made before anything is built from it."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import os
import reprlib
from typing import Any

import torch

from mjlab_rec.envs.env_cfg import ManagerBasedRlEnvCfg
from mjlab_rec.managers.action_manager import ActionTermCfg
from mjlab_rec.managers.command_manager import CommandTermCfg
from mjlab_rec.managers.curriculum_manager import CurriculumTermCfg
from mjlab_rec.managers.event_manager import EventTermCfg
from mjlab_rec.managers.manager_base import ManagerTermBaseCfg
from mjlab_rec.managers.metrics_manager import MetricsTermCfg
from mjlab_rec.managers.observation_manager import ObservationGroupCfg, ObservationTermCfg
from mjlab_rec.managers.recorder_manager import RecorderTermCfg
from mjlab_rec.managers.reward_manager import RewardTermCfg
from mjlab_rec.managers.termination_manager import TerminationTermCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sim import SimulationCfg
from mjlab_rec.sim.engine import state_layout
from mjlab_rec.sim.viewer_config import ViewerConfig

_PARTS: dict[str, type] = {"scene": SceneCfg, "sim": SimulationCfg, "viewer": ViewerConfig}
_TERMS: dict[str, type] = {
    "observations": ObservationGroupCfg,
    "actions": ActionTermCfg,
    "events": EventTermCfg,
    "rewards": RewardTermCfg,
    "terminations": TerminationTermCfg,
    "commands": CommandTermCfg,
    "curriculum": CurriculumTermCfg,
    "metrics": MetricsTermCfg,
    "recorders": RecorderTermCfg,
}

# Up to this many environments, any model is worth a try. The least bytes that a world takes were
# measured for models from cartpole to humanoid: per number of its state, plus a constant.
_WORTH_A_TRY = 1 << 16
_BYTES_PER_STATE_NUMBER = {"cpu": 24, "cuda": 200}
_BYTES_PER_WORLD = 300


def check_cfg(cfg: Any, render_mode: str | None) -> None:
    """Raise for values that no environment can have."""
    _check_type("cfg", cfg, ManagerBasedRlEnvCfg)
    for name, kind in _PARTS.items():
        _check_type(f"cfg.{name}", getattr(cfg, name), kind)
    for name, kind in _TERMS.items():
        _check_terms(f"cfg.{name}", getattr(cfg, name), kind)
    for name, group in cfg.observations.items():
        if group is not None:
            _check_terms(f"cfg.observations[{name!r}].terms", group.terms, ObservationTermCfg)
    try:
        operator.index(cfg.scene.num_envs)
    except TypeError:
        _fail("cfg.scene.num_envs", cfg.scene.num_envs, "an int")
    if cfg.decimation < 1:
        raise ValueError(f"decimation must be at least 1, got {cfg.decimation}.")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"Unknown render_mode '{render_mode}'. Known: 'rgb_array', None.")


def check_memory(cfg: ManagerBasedRlEnvCfg, device: str) -> None:
    """Raise if there are more environments than fit into memory, before any is allocated.

    The estimate is a lower bound, so what passes may still be too much.
    """
    num_envs = cfg.scene.num_envs
    if num_envs <= _WORTH_A_TRY:
        return
    model = Scene(dataclasses.replace(cfg.scene, num_envs=1)).compile()
    where = torch.device(device)
    numbers = state_layout(model)[-1].columns.stop
    per_world = _BYTES_PER_WORLD + numbers * _BYTES_PER_STATE_NUMBER[where.type]
    there_is = _total_memory(where)
    if num_envs * per_world > there_is:
        owner = "this machine" if where.type == "cpu" else device
        raise ValueError(
            f"num_envs={num_envs} environments of this model need at least"
            f" {num_envs * per_world / 1e9:,.0f} GB of memory, but {owner} has"
            f" {there_is / 1e9:,.0f} GB. Use at most {there_is // per_world}, better half that."
        )


def _total_memory(device: torch.device) -> float:
    """Return the device's memory in bytes; infinite where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _check_terms(where: str, terms: Any, kind: type) -> None:
    if not isinstance(terms, dict):
        example = f"{{'name': {kind.__name__}(...)}}"
        _fail(where, terms, f"a dict of {kind.__name__} by name", f"Write {example}, or {{}}.")
    for name, term in terms.items():
        if term is not None:
            _check_type(f"{where}[{name!r}]", term, kind)


def _check_type(where: str, value: Any, kind: type) -> None:
    if isinstance(value, kind):
        return
    cure = ""
    if kind is ManagerBasedRlEnvCfg and callable(value):
        cure = f"Did you mean {_name(value)}()?"
    elif isinstance(value, type) and issubclass(value, kind):
        cure = f"Did you mean {_name(value)}(...)?"
    elif issubclass(kind, ManagerTermBaseCfg) and callable(value):
        cure = f"Write {kind.__name__}(func={_name(value)}, ...)."
    _fail(where, value, f"of type {kind.__name__}", cure)


def _fail(where: str, value: Any, expected: str, cure: str = "") -> None:
    if isinstance(value, type):
        given = f"the class {_name(value)}"
    elif inspect.isroutine(value):
        given = f"the function {_name(value)}"
    else:
        given = f"{reprlib.repr(value)} ({_name(type(value))})"
    raise TypeError(f"{where} must be {expected}, got {given}. {cure}".rstrip())


def _name(value: Any) -> str:
    return getattr(value, "__name__", type(value).__name__)
