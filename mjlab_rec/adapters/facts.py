"""What is known about an environment of Gymnasium: its id, time step, arguments and wrappers."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from gymnasium.envs.registration import EnvSpec

from mjlab_rec.recorders.about import as_json

_PACKAGES = ("gymnasium", "envpool", "mani_skill", "stable_baselines3", "ale_py", "jax")


_INNER = ("env", "_env", "venv")
"""Where wrappers keep what they wrap: Gymnasium's, ManiSkill's and those of stable-baselines3."""


def chain(env: Any) -> list[Any]:
    """An environment and those inside it, the outermost first."""
    found = []
    while env is not None and env not in found:
        found.append(env)
        own = vars(env) if hasattr(env, "__dict__") else {}
        env = next((own[name] for name in _INNER if own.get(name) is not None), None)
    return found


def one_of(env: Any) -> Any:
    """One of the environments that a vector environment steps in this process; None: unknown."""
    for each in chain(env):
        inside = vars(each).get("envs") if hasattr(each, "__dict__") else None
        if isinstance(inside, (list, tuple)) and inside:
            return inside[0]
    return None


def step_dt_of(env: Any) -> float:
    """Seconds per step: the physics' if it is known, else that of the frame rate, else 1."""
    for each in [env, one_of(env)]:
        inner = getattr(each, "unwrapped", None)
        for name in ("dt", "control_timestep"):
            value = getattr(inner, name, None)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                return float(value)
    rate = (getattr(env, "metadata", None) or {}).get("render_fps")
    return 1.0 / float(rate) if isinstance(rate, (int, float)) and rate > 0 else 1.0


def spec_of(env: Any) -> Any:
    """The spec with the id and arguments that the environment was made with; None: unknown."""
    for each in [*chain(env), one_of(env)]:
        spec = getattr(each, "spec", None)
        if isinstance(spec, EnvSpec):
            return spec
    return None


def task_of(env: Any) -> str:
    """Its id, else the name of its class."""
    spec, inside = spec_of(env), one_of(env)
    if spec is not None:
        return spec.id
    return type(chain(env if inside is None else inside)[-1]).__name__


def facts(env: Any, observation_space: Any, action_space: Any) -> dict[str, Any]:
    """More about an environment, as plain data."""
    spec = spec_of(env)
    inside = one_of(env)
    packages = {name: version for name in _PACKAGES if (version := _version(name))}
    return {
        "classes": [type(each).__name__ for each in [*chain(env), *chain(inside)]],
        "kwargs": as_json(getattr(spec, "kwargs", {})),
        "max_episode_steps": getattr(spec, "max_episode_steps", None),
        "observation_space": str(observation_space),
        "action_space": str(action_space),
        "versions": packages,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
