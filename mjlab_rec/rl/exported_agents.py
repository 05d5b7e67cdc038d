"""Policies from TorchScript and ONNX files, those that ``export_agent`` writes and others."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.rl.agents import Agent, AgentInputs, groups_of
from mjlab_rec.rl.checkpoints import CheckpointError
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

METADATA = "mjlab_rec"
"""Key of the description in an ONNX file; ``mjlab_rec.json`` is its file in TorchScript."""

# Buffers in which exported networks of other libraries remember one robot's episode.
_STATE_BUFFERS = ("hidden_state", "cell_state")


class TorchScriptAgent(Agent):
    """A policy in TorchScript.

    Files of ``export_agent`` take and return what a recurrent network remembers. Those of RSL-RL
    and Isaac Lab keep it in buffers for one robot, which are replaced by buffers for all.

    Args:
        path: The file.
        env: The environment.
        rl_cfg: The learner's cfg as a dict, for files without a description.
    """

    def __init__(
        self, path: Path, env: ManagerBasedRlEnv, rl_cfg: Mapping[str, Any] | None = None
    ) -> None:
        described = _described_torchscript(path)
        super().__init__(path, _inputs(path, env, described, rl_cfg), _clip(described, rl_cfg))
        self.iteration = described.get("iteration")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of TorchScript's future.
                self._module = torch.jit.load(str(path), map_location=str(env.device)).eval()
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} cannot be read as TorchScript: {str(error).splitlines()[0]}"
            ) from None
        count, device = env.num_envs, env.device
        buffers = dict(self._module.named_buffers())
        self._buffers = [name for name in _STATE_BUFFERS if name in buffers]
        for name in self._buffers:
            layers, _, width = buffers[name].shape
            setattr(self._module, name, torch.zeros(layers, count, width, device=device))
        self._states = [
            torch.zeros(layers, count, width, device=device)
            for layers, width in described.get("state_shapes", {}).values()
        ]
        self.is_recurrent = bool(self._states or self._buffers)
        parameters = self._module.forward.schema.arguments[1:]
        self._takes_list = len(parameters) == 2 and str(parameters[1].type) == "List[Tensor]"
        self._try(env)

    def reset(self, dones: torch.Tensor | None = None) -> None:
        """Forget the episodes of these environments; None means all."""
        where = slice(None) if dones is None else dones.bool()
        for state in [*self._states, *(getattr(self._module, name) for name in self._buffers)]:
            state[:, where] = 0.0

    def _act(self, obs: Mapping[str, Any]) -> torch.Tensor:
        tensors: list[Any] = self.inputs.tensors(obs)
        if self._takes_list:
            tensors = [self.inputs.vector(obs), [obs[group] for group in self.inputs.images]]
        if not self._states:
            return self._module(*tensors)
        action, *self._states = self._module(*tensors, *self._states)
        return action

    @torch.no_grad()
    def _try(self, env: ManagerBasedRlEnv) -> None:
        """Act once, so that a file for another task is found now."""
        try:
            action = self._act(env.get_observations())
        except RuntimeError as error:
            reason = [line for line in str(error).splitlines() if line.strip()][-1]
            raise CheckpointError(
                f"{self.path} does not fit the environment, where it sees"
                f" {self.inputs.describe()}: {reason}"
            ) from None
        self.reset()
        _check_action(self, action, env)


class OnnxAgent(Agent):
    """A policy in an ONNX file, run by onnxruntime on the CPU.

    Inputs that end in ``_in`` and outputs that end in ``_out`` are what a recurrent network
    remembers, (layers, batch, width). A file made for one robot is run for each environment in
    turn.

    Args:
        path: The file.
        env: The environment.
        rl_cfg: The learner's cfg as a dict, for files without a description.
    """

    def __init__(
        self, path: Path, env: ManagerBasedRlEnv, rl_cfg: Mapping[str, Any] | None = None
    ) -> None:
        onnxruntime = require("onnxruntime", None, "Playing ONNX files")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # Others would take cores away from the physics engine.
        options.log_severity_level = 3  # Errors only.
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # Its error classes have no common base but this one.
            raise CheckpointError(
                f"{path} cannot be read as ONNX: {str(error).splitlines()[0]}"
            ) from None
        properties = self._session.get_modelmeta().custom_metadata_map
        described = _parsed(properties.get(METADATA), path)
        super().__init__(path, _inputs(path, env, described, rl_cfg), _clip(described, rl_cfg))
        self.iteration = described.get("iteration")
        self._device = env.device
        nodes = {node.name: node.shape for node in self._session.get_inputs()}
        states = {name: shape for name, shape in nodes.items() if name.endswith("_in")}
        self._names = [name for name in nodes if name not in states]
        self._check_shapes(nodes)
        batch = nodes[self._names[0]][0]
        if isinstance(batch, int) and batch not in (1, env.num_envs):
            raise CheckpointError(
                f"{path} takes {batch} robots at a time, and there are {env.num_envs} environments."
                f" Play with --num-envs {batch}, or export it for any batch."
            )
        self._one_by_one = batch == 1 and env.num_envs > 1
        self._states = {
            name: np.zeros((shape[0], env.num_envs, shape[2]), np.float32)
            for name, shape in states.items()
        }
        self.is_recurrent = bool(self._states)
        outputs = [node.name for node in self._session.get_outputs()]
        self._outputs = [outputs[0], *(f"{name.removesuffix('_in')}_out" for name in states)]
        action = self._act(env.get_observations())
        self.reset()
        _check_action(self, action, env)

    def reset(self, dones: torch.Tensor | None = None) -> None:
        """Forget the episodes of these environments; None means all."""
        where = slice(None) if dones is None else dones.bool().cpu().numpy()
        for state in self._states.values():
            state[:, where] = 0.0

    def _act(self, obs: Mapping[str, Any]) -> torch.Tensor:
        tensors = [tensor.cpu().numpy() for tensor in self.inputs.tensors(obs)]
        if self._one_by_one:
            rows = [
                self._run(
                    [tensor[i : i + 1] for tensor in tensors],
                    [state[:, i : i + 1] for state in self._states.values()],
                )
                for i in range(len(tensors[0]))
            ]
            action, *states = [
                np.concatenate(parts, axis=0 if number == 0 else 1)
                for number, parts in enumerate(zip(*rows, strict=True))
            ]
        else:
            action, *states = self._run(tensors, list(self._states.values()))
        self._states = dict(zip(self._states, states, strict=True))
        return torch.from_numpy(action).to(self._device)

    def _run(self, tensors: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> list[np.ndarray]:
        feed = dict(zip([*self._names, *self._states], [*tensors, *states], strict=True))
        return self._session.run(self._outputs, feed)

    def _check_shapes(self, nodes: Mapping[str, Any]) -> None:
        """Compare the inputs of the file with what there is."""
        wanted = {name: nodes[name][1:] for name in self._names}
        shapes: list[list[int]] = [[self.inputs.size]] * bool(self.inputs.vectors)
        shapes += [list(self.inputs.shapes[group]) for group in self.inputs.images]
        if len(wanted) != len(shapes) or not all(map(_agree, wanted.values(), shapes)):
            raise CheckpointError(
                f"{self.path} does not fit the environment: its inputs are {wanted}, where the"
                f" policy sees {self.inputs.describe()}."
            )


def _agree(wanted: Sequence[Any], shape: Sequence[int]) -> bool:
    """Whether a shape is one that a file takes; its dimensions that have names take any size."""
    return len(wanted) == len(shape) and all(
        not isinstance(want, int) or want == size for want, size in zip(wanted, shape, strict=True)
    )


def _described_torchscript(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        ending = f"/extra/{METADATA}.json"
        name = next((name for name in archive.namelist() if name.endswith(ending)), None)
        return _parsed(archive.read(name) if name else None, path)


def _parsed(text: str | bytes | None, path: Path) -> dict[str, Any]:
    """The description in a file; empty if there is none."""
    if not text:
        return {}
    try:
        described = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} has a damaged description: {error}") from None
    return described if isinstance(described, dict) else {}


def _inputs(
    path: Path,
    env: ManagerBasedRlEnv,
    described: Mapping[str, Any],
    rl_cfg: Mapping[str, Any] | None,
) -> AgentInputs:
    """What the policy sees, after a comparison with the description in the file."""
    obs = env.get_observations()
    groups = described.get("observation_groups")
    trained_on = f", exported for {described['task']!r}," if described.get("task") else ""
    who = f"The policy in {path}{trained_on}"
    if groups is None:
        return AgentInputs.of(groups_of(rl_cfg, obs, "actor"), obs, who)
    inputs = AgentInputs.of(list(groups), obs, who)
    there = {group: tuple(entry["shape"]) for group, entry in groups.items()}
    if there != inputs.shapes:
        raise CheckpointError(
            f"{who} sees {AgentInputs((), (), there).describe()}, but here there is"
            f" {inputs.describe()}."
        )
    return inputs


def _clip(described: Mapping[str, Any], rl_cfg: Mapping[str, Any] | None) -> float | None:
    """The limit of the actions, unless the file applies it itself."""
    return None if described else (rl_cfg or {}).get("clip_actions")


def _check_action(agent: Agent, action: Any, env: ManagerBasedRlEnv) -> None:
    expected = (env.num_envs, env.action_manager.total_action_dim)
    shape = tuple(action.shape) if hasattr(action, "shape") else type(action).__name__
    if shape != expected:
        raise CheckpointError(
            f"{agent.path} does not fit the environment: its actions have the shape {shape}, but"
            f" {expected} is needed: {env.num_envs} environments, {expected[1]} numbers."
        )
