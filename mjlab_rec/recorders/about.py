"""Description of the recorded environment, as plain data."""

from __future__ import annotations

import enum
import functools
import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from mjlab_rec.utils.cpu import cpu_name

PACKAGES = ("mjlab_rec", "mjlab", "torch", "mujoco", "mujoco-warp", "warp-lang", "mjbatch", "numpy")


def about(env: Any) -> dict[str, Any]:
    """Task, seed, engine, versions, notes and cfg of an environment, as JSON data."""
    return {
        "task": getattr(env.cfg, "task", None) or type(env).__name__,
        "num_envs": env.num_envs,
        "device": str(env.device),
        "cpu": cpu_name(),
        "engine": getattr(env.sim, "engine_name", "warp"),
        "seed": env.cfg.seed,
        "physics_dt": env.physics_dt,
        "step_dt": env.step_dt,
        "recomputed_constants": _recomputes(env),
        "versions": versions(),
        "notes": list(getattr(env, "recording_notes", ())),
        "env_cfg": as_json(env.cfg),
    }


def versions() -> dict[str, str]:
    """Versions of the installed packages that a rollout depends on."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def _recomputes(env: Any) -> bool:
    """Whether constants of the model are recomputed from fields that differ between worlds."""
    sim = env.sim
    more = getattr(sim, "per_world_fields", set()) - getattr(sim, "expanded_fields", set())
    events = getattr(env.cfg, "events", None)
    terms = events.values() if isinstance(events, Mapping) else ()
    return bool(more) or any(getattr(getattr(e, "func", None), "recompute", 0) for e in terms)


def as_json(value: Any, depth: int = 0) -> Any:
    """A cfg as JSON data: functions and classes by name, everything else by value."""
    if value is None or isinstance(value, (bool, int, str)):
        return value if not isinstance(value, enum.Enum) else value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, enum.Enum):
        return value.name
    if depth > 30:
        return "..."
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name, None), depth + 1) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        # Their order differs from process to process.
        return sorted((as_json(item, depth + 1) for item in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [as_json(item, depth + 1) for item in value]
    if isinstance(value, (np.ndarray, torch.Tensor)) and math.prod(value.shape) <= 1000:
        return as_json(value.tolist(), depth + 1)
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{getattr(value, '__module__', '')}:{name}"
    return f"<{type(value).__name__}>"


@functools.cache  # Reading it takes milliseconds, and each recording asks for all.
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
