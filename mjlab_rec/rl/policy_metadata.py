"""A description of what a policy sees and does, for the program that runs it on a robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.managers import SceneEntityCfg
from mjlab_rec.rl.exporter_utils import joint_gains

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl.agents import Agent

FORMAT = 1
"""Version of the description. It grows if a field changes its meaning."""


def describe_policy(agent: Agent, env: ManagerBasedRlEnv, task_id: str | None) -> dict[str, Any]:
    """Describe a policy as plain data: its rate, its observations term by term, its actions.

    Everything is in the order of the numbers that go in and come out. Values are those of the first
    environment as configured, before any event changes them. An action that has ``scale`` and
    ``offset`` sets its targets to ``clip(action * scale + offset)``.

    Args:
        agent: The policy.
        env: Its environment.
        task_id: Id of the task.
    """
    actions = [_action(env, name) for name in env.action_manager.active_terms]
    owners = dict.fromkeys(action["entity"] for action in actions)
    return {
        "format": FORMAT,
        "task": task_id,
        "checkpoint": agent.path.name,
        "run": agent.path.resolve().parent.name,
        "iteration": agent.iteration,
        "control_frequency_hz": 1.0 / env.step_dt,
        "control_period_s": env.step_dt,
        "physics_timestep_s": env.physics_dt,
        "clip_actions": agent.clip_actions,
        "observation_groups": {group: _group(env, group) for group in agent.inputs.shapes},
        "actions": actions,
        "entities": {name: _entity(env, env.scene[name]) for name in owners},
        "commands": list(env.command_manager.active_terms),
    }


def _group(env: ManagerBasedRlEnv, group: str) -> dict[str, Any]:
    manager = env.observation_manager
    terms = []
    for name, shape in zip(
        manager.active_terms[group], manager.group_obs_term_dim[group], strict=True
    ):
        cfg = manager.get_term_cfg(group, name)
        terms.append(
            {
                "name": name,
                "function": _name_of(cfg.func),
                "shape": list(shape),
                "scale": _plain(cfg.scale),
                "clip": _plain(cfg.clip),
                "history_length": cfg.history_length,
                "flatten_history_dim": cfg.flatten_history_dim,
                "delay_steps": [cfg.delay_min_lag, cfg.delay_max_lag],
                "command": cfg.params.get("command_name"),
                **_asset(cfg.params),
            }
        )
    return {"shape": list(env.get_observations()[group].shape[1:]), "terms": terms}  # pyright: ignore


def _asset(params: dict[str, Any]) -> dict[str, Any]:
    """The entity that a term observes, and its joints in order if they are not all."""
    assets = [value for value in params.values() if isinstance(value, SceneEntityCfg)]
    if len(assets) != 1:
        return {}
    joints = assets[0].joint_names
    if isinstance(joints, str):
        joints = [joints]
    return {"entity": assets[0].name, "joints": None if joints is None else list(joints)}


def _action(env: ManagerBasedRlEnv, name: str) -> dict[str, Any]:
    term: Any = env.action_manager.get_term(name)
    found = {
        "name": name,
        "class": type(term).__name__,
        "entity": term.cfg.entity_name,
        "size": term.action_dim,
    }
    if isinstance(getattr(term, "scale", None), torch.Tensor):
        found["scale"], found["offset"] = _first(term.scale), _first(term.offset)
    names = getattr(term, "target_names", None)
    if names is not None:
        found["targets"] = list(names)
    if isinstance(term.cfg.clip, dict):
        found["clip"] = {pattern: list(pair) for pattern, pair in term.cfg.clip.items()}
    return found


def _entity(env: ManagerBasedRlEnv, entity: Entity) -> dict[str, Any]:
    gains = joint_gains(env, entity)
    return {
        "joint_names": list(entity.joint_names),
        "default_joint_pos": _first(entity.data.default_joint_pos),
        "default_joint_vel": _first(entity.data.default_joint_vel),
        "joint_pos_limits": _first(entity.data.default_joint_pos_limits),
        "actuated_joints": list(gains),
        "stiffness": [stiffness for stiffness, _ in gains.values()],
        "damping": [damping for _, damping in gains.values()],
        "effort_limits": [_effort_limit(entity, joint) for joint in gains],
    }


def _effort_limit(entity: Entity, joint: str) -> float | None:
    """The configured limit of a joint's actuator; None if it has none, or the XML defines it."""
    for actuator in entity.actuators:
        if joint in actuator.target_names:
            return getattr(actuator.cfg, "effort_limit", None)
    return None


def _first(values: torch.Tensor) -> list[Any]:
    return values[0].tolist()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _name_of(func: Any) -> str:
    named = func if hasattr(func, "__qualname__") else type(func)
    return f"{named.__module__}:{named.__qualname__}"
