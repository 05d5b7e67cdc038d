"""Policies from RSL-RL's checkpoints, whose networks are built from plain data."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.rl.agents import Agent, AgentInputs, WrongAgentError, groups_of
from mjlab_rec.rl.run_folders import read_agent
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

logger = logging.getLogger(__name__)

_USER = "Playing checkpoints of RSL-RL"
_MOST_SHOWN = 4


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
    from mjlab_rec.rl.runner import _update_format

    checkpoint = read_checkpoint(path, str(env.device))
    _update_format(checkpoint)
    infos = checkpoint.get("infos") or {}
    of_run = read_agent(path.parent)
    trained_on = infos.get("task") or of_run.get("task") or task_id
    cfg = infos.get("agent") or of_run.get("agent") or rl_cfg
    role = next((r for r in ("actor", "student") if f"{r}_state_dict" in checkpoint), None)
    if role is None:
        raise WrongAgentError(
            f"{path} is no checkpoint of RSL-RL: it has no 'actor_state_dict' or"
            f" 'student_state_dict', but {sorted(map(str, checkpoint))}."
        )
    if cfg is None or role not in cfg:
        raise WrongAgentError(
            f"{path} does not describe its network, and there is no learner's cfg of {task_id!r}"
            f" with the field {role!r}. Give one to register_task(rl_cfg=...), or to"
            " load_agent(rl_cfg=...)."
        )
    who = f"The {role} in {path}, trained on {trained_on!r},"
    obs = env.get_observations()
    inputs = AgentInputs.of(groups_of(cfg, obs, role), obs, who)
    model = build_model(cfg, role, inputs, env, who)
    weights = checkpoint[f"{role}_state_dict"]
    if differences := differences_of(model.state_dict(), weights):
        raise WrongAgentError(
            f"{who} does not fit the task {task_id!r}: {differences} Here it sees"
            f" {inputs.describe()} and acts with {env.action_manager.total_action_dim} numbers."
        )
    model.load_state_dict(weights)
    if trained_on != task_id:
        logger.warning("%s plays another task, %r.", who.rstrip(","), task_id)
    agent = CheckpointAgent(path, inputs, model.to(env.device).eval(), cfg.get("clip_actions"))
    agent.iteration = checkpoint.get("iter")
    state = infos.get("env_state") or {}
    env.common_step_counter = state.get("common_step_counter", env.common_step_counter)
    return agent


def read_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint with tensors and plain data; anything else is refused.

    Args:
        path: The file.
        device: Where its tensors go.
    """
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise WrongAgentError(
            f"{path} is no checkpoint, or one with Python objects, which are not loaded because"
            f" that could run any code: {str(error).splitlines()[0]}"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WrongAgentError(
            f"{path} cannot be read: {str(error).splitlines()[0]} It may be damaged, or not be"
            " written to its end yet."
        ) from None
    if not isinstance(checkpoint, dict):
        raise WrongAgentError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint.")
    return checkpoint


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
    from mjlab_rec.rl.runner import _without_unused

    fields = _without_unused(copy.deepcopy(dict(cfg[role])))
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
            raise WrongAgentError(
                f"{who} cannot be built for {inputs.describe()}: {error}"
            ) from error


def differences_of(
    here: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor], most: int = _MOST_SHOWN
) -> str:
    """Say in which weights a network differs from a file; empty if in none.

    Args:
        here: The weights of the network.
        there: Those in the file.
        most: How many differences to name.
    """
    shapes = [
        f"{name} is {tuple(there[name].shape)} in the file and {tuple(here[name].shape)} here"
        for name in here
        if name in there and here[name].shape != there[name].shape
    ]
    missing = [f"{name} is missing in the file" for name in here if name not in there]
    others = [f"{name} is only in the file" for name in there if name not in here]
    found = [*shapes, *missing, *others]
    if len(found) > most:
        found = [*found[:most], f"and {len(found) - most} more"]
    return f"{', '.join(found)}." if found else ""


def _network(name: Any, base: type, who: str) -> type:
    """Find a class by its name in a file, which must not be able to name just anything."""
    resolve = require("rsl_rl.utils", "train", _USER).resolve_callable
    module = name.rpartition(":" if ":" in name else ".")[0]
    if module and module.partition(".")[0] not in sys.modules:
        raise WrongAgentError(
            f"{who} is a {name!r}. Import {module.partition('.')[0]!r} first, if you trust it: on"
            " the command line with --task-module."
        )
    try:
        found = resolve(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WrongAgentError(f"{who} is a {name!r}, which does not exist: {error}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise WrongAgentError(f"{who} names {name!r}, which is no {base.__name__}.")
    return found
