"""Policies from RSL-RL's checkpoints, whose networks are built from plain data."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.envs.state import set_settings
from mjlab_rec.rl import checkpoints
from mjlab_rec.rl.agents import Agent, AgentInputs, groups_of
from mjlab_rec.rl.checkpoints import CheckpointError
from mjlab_rec.rl.config import without_unused
from mjlab_rec.rl.old_checkpoints import update_format
from mjlab_rec.rl.run_folders import read_agent
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

_USER = "Playing checkpoints of RSL-RL"


class CheckpointAgent(Agent):
    """The actor, or the student, of a checkpoint.

    Args:
        path: The file.
        inputs: What it sees.
        model: The network, as one of ``rsl_rl.models``.
        clip_actions: Greatest action in either direction; None does not clip.
    """

    def __init__(
        self, path: Path, inputs: AgentInputs, model: Any, clip_actions: float | None = None
    ) -> None:
        super().__init__(path, inputs, clip_actions)
        self.model = model
        self.is_recurrent = bool(model.is_recurrent)
        self._tensor_dict = require("tensordict", "train", _USER).TensorDict

    def reset(self, dones: torch.Tensor | None = None) -> None:
        """Forget the episodes of these environments; None means all."""
        if self.is_recurrent:
            self.model.reset(dones)

    def _act(self, obs: Mapping[str, Any]) -> torch.Tensor:
        seen = {group: obs[group] for group in self.inputs.shapes}
        return self.model(self._tensor_dict(seen, batch_size=[len(next(iter(seen.values())))]))


def load_checkpoint_agent(
    path: Path, env: ManagerBasedRlEnv, task_id: str, rl_cfg: Mapping[str, Any] | None
) -> CheckpointAgent:
    """Build the network of a checkpoint, and load its weights.

    Args:
        path: The file.
        env: The environment.
        task_id: Id of its task.
        rl_cfg: The learner's cfg as a dict, if neither the file nor its folder holds one.
    """
    require("rsl_rl", "train", _USER)
    checkpoint = checkpoints.read(path, str(env.device))
    update_format(checkpoint)
    infos = checkpoint.get("infos") or {}
    of_run = read_agent(path.parent)
    trained_on = infos.get("task") or of_run.get("task") or task_id
    cfg = infos.get("agent") or of_run.get("agent") or rl_cfg
    role = next((r for r in ("actor", "student") if f"{r}_state_dict" in checkpoint), None)
    if role is None:
        raise CheckpointError(f"{path} has neither an actor nor a student: {list(checkpoint)}.")
    if cfg is None or role not in cfg:
        raise CheckpointError(
            f"{path} does not describe its network, and there is no learner's cfg of {task_id!r}"
            f" with the field {role!r}. Give one to register_task(rl_cfg=...), or to"
            " load_agent(rl_cfg=...)."
        )
    who = f"The {role} in {path}, trained on {trained_on!r},"
    obs = env.get_observations()
    groups = groups_of({**cfg, **_present(infos, "obs_groups")}, obs, role)
    inputs = AgentInputs.of(groups, obs, who)
    model = build_model(cfg, role, inputs, env, who)
    _check_fits(checkpoint, role, model, inputs, env, task_id, path)
    model.load_state_dict(checkpoint[f"{role}_state_dict"])
    if trained_on != task_id:
        logger.warning("%s plays another task, %r.", who.rstrip(","), task_id)
    agent = CheckpointAgent(path, inputs, model.to(env.device).eval(), cfg.get("clip_actions"))
    agent.iteration = checkpoint.get("iter")
    if env.curriculum_manager.active_terms:  # Without curricula the cfg is what the user wants.
        state = infos.get("env_state") or {}
        env.common_step_counter = state.get("common_step_counter", env.common_step_counter)
        set_settings(env, state.get("settings", {}))
    return agent


def build_model(
    cfg: Mapping[str, Any], role: str, inputs: AgentInputs, env: ManagerBasedRlEnv, who: str
) -> Any:
    """Build a network from the learner's cfg, with random weights.

    Args:
        cfg: The learner's cfg as a dict.
        role: Which of its networks.
        inputs: What it sees.
        env: The environment.
        who: What is built, for messages.
    """
    fields = without_unused(copy.deepcopy(dict(cfg[role])))
    model_class = _network(fields.pop("class_name"), torch.nn.Module, who)
    distribution = fields.get("distribution_cfg")
    if distribution is not None:
        base = require("rsl_rl.modules.distribution", "train", _USER).Distribution
        distribution["class_name"] = _network(distribution["class_name"], base, who)
    tensor_dict = require("tensordict", "train", _USER).TensorDict
    groups = list(inputs.shapes)
    zeros = {g: torch.zeros(1, *inputs.shapes[g], device=env.device) for g in groups}
    with torch.random.fork_rng(devices=[]):  # Playing has the random numbers of before.
        try:
            return model_class(
                tensor_dict(zeros, batch_size=[1]),
                {role: groups},
                role,
                env.action_manager.total_action_dim,
                **fields,
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{who} cannot be built for {inputs.describe()}: {error}"
            ) from error


def _check_fits(
    checkpoint: Mapping[str, Any],
    role: str,
    model: torch.nn.Module,
    inputs: AgentInputs,
    env: ManagerBasedRlEnv,
    task_id: str,
    path: Path,
) -> None:
    """Raise CheckpointError, which says what differs, if the network cannot take the weights."""
    here = {
        "task": task_id,
        "obs": {group: list(shape) for group, shape in inputs.shapes.items()},
        "obs_groups": {role: list(inputs.shapes)},
        "num_actions": env.action_manager.total_action_dim,
    }
    # What only its other networks see does not matter.
    infos = dict(checkpoint.get("infos") or {})
    infos |= {
        key: {name: infos[key].get(name) for name in here[key]}
        for key in ("obs", "obs_groups")
        if key in infos
    }
    key = f"{role}_state_dict"
    found = checkpoints.differences(
        {key: checkpoint[key], "infos": infos}, here, {key: model.state_dict()}
    )
    if found:
        raise CheckpointError(f"{path} does not fit the task {task_id!r}: {'; '.join(found)}.")


def _present(infos: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: infos[key]} if infos.get(key) else {}


def _network(name: Any, base: type, who: str) -> type:
    """Find a class by its name in a file, which must not be able to name just anything."""
    resolve = require("rsl_rl.utils", "train", _USER).resolve_callable
    module = name.rpartition(":" if ":" in name else ".")[0]
    if module and module.partition(".")[0] not in sys.modules:
        raise CheckpointError(
            f"{who} is a {name!r}. Import {module.partition('.')[0]!r} first, if you trust it: on"
            " the command line with --task-module."
        )
    try:
        found = resolve(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{who} is a {name!r}, which does not exist: {error}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CheckpointError(f"{who} names {name!r}, which is no {base.__name__}.")
    return found
