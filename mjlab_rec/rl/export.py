"""Policies as ONNX and TorchScript files, for a robot's own program."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from mjlab_rec.data.formats.plain_files import replacing
from mjlab_rec.rl.exported_agents import METADATA
from mjlab_rec.rl.exporter_utils import attach_metadata_to_onnx, get_base_metadata
from mjlab_rec.rl.policy_metadata import describe_policy
from mjlab_rec.utils.extras import require
from mjlab_rec.utils.plain_data import json_text

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.rl.checkpoint_agent import CheckpointAgent

Format = Literal["onnx", "torchscript"]
FORMATS: tuple[Format, ...] = ("onnx", "torchscript")
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".jit"}

_OPSET = 18


class PolicyGraph(torch.nn.Module):
    """A policy as a function: observations and states in, actions and next states out.

    Normalization of observations and the limits of actions are inside. What a recurrent network
    remembers goes in and comes out, (layers, batch, width), zero at the start of an episode.

    Args:
        agent: The policy.
    """

    def __init__(self, agent: CheckpointAgent) -> None:
        super().__init__()
        self.inner = agent.model.as_onnx(verbose=False).cpu().eval()
        self.clip = agent.clip_actions
        inputs = agent.inputs
        self.has_vector = bool(inputs.vectors)
        self.input_names = ["obs"] * self.has_vector + list(inputs.images)
        shapes = [(inputs.size,)] * self.has_vector + [inputs.shapes[g] for g in inputs.images]
        self.examples = [torch.zeros(2, *shape) for shape in shapes]
        self.state_shapes = {
            name.removesuffix("_in"): (example.shape[0], example.shape[2])
            for name, example in zip(
                self.inner.input_names, self.inner.get_dummy_inputs(), strict=True
            )
            if name.endswith("_in")
        }
        for name, (layers, width) in self.state_shapes.items():
            self.input_names.append(f"{name}_in")
            self.examples.append(torch.zeros(layers, 2, width))
        self.output_names = ["actions", *(f"{name}_out" for name in self.state_shapes)]

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Return the actions (batch, n), or a tuple of them and the next states."""
        if not self.has_vector:  # RSL-RL's network for images takes a vector, too.
            tensors = (tensors[0].flatten(1)[:, :0], *tensors)
        found = self.inner(*tensors)
        actions, *states = found if isinstance(found, tuple) else (found,)
        if self.clip is not None:
            actions = actions.clamp(-self.clip, self.clip)
        if not self.state_shapes:
            return actions
        return (actions, *states[: len(self.state_shapes)])


def export_agent(
    agent: CheckpointAgent,
    env: ManagerBasedRlEnv,
    folder: str | Path,
    name: str = "policy",
    formats: Sequence[Format] = FORMATS,
    task_id: str | None = None,
) -> list[Path]:
    """Write a policy as files that need no part of this package, and describe it in them.

    The description (``describe_policy``) is JSON: under the key ``mjlab_rec`` of an ONNX file's
    metadata, in the file ``mjlab_rec.json`` of a TorchScript archive. An ONNX file also has the
    keys of mjlab's, if the task has what they describe.

    Args:
        agent: The policy of a checkpoint.
        env: Its environment.
        folder: Where the files go.
        name: Their name, without a suffix.
        formats: "onnx", "torchscript" or both.
        task_id: Id of the task; None: that of the environment's cfg.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    graph = PolicyGraph(agent).eval()
    described = describe_policy(agent, env, task_id or env.cfg.task)
    described["inputs"] = _shapes(graph.input_names, graph.examples)
    described["outputs"] = graph.output_names
    described["state_shapes"] = graph.state_shapes
    text = json_text(described)
    written = []
    for kind in formats:
        path = folder / f"{name}{SUFFIXES[kind]}"
        with replacing(path, sync=False) as hidden:
            if kind == "onnx":
                export_onnx(graph, graph.examples, hidden)
                attach_metadata_to_onnx(str(hidden), {METADATA: text, **_mjlabs(env, agent)})
            else:
                _export_torchscript(graph, hidden, text)
        written.append(path)
    return written


def export_onnx(
    network: Any, examples: Sequence[torch.Tensor], path: Path, verbose: bool = False
) -> None:
    """Write a network as an ONNX file that takes any batch: one robot, or all environments.

    Args:
        network: It has ``input_names`` and ``output_names``; names that end in ``_in`` or ``_out``
            are states, whose batch is the second axis.
        examples: Its inputs.
        path: The file.
        verbose: Let the exporter tell what it does.
    """
    require("onnx", "train", "Writing ONNX files")
    axes = {
        name: {1 if name.endswith(("_in", "_out")) else 0: "batch"}
        for name in [*network.input_names, *network.output_names]
    }
    with warnings.catch_warnings(), torch.no_grad():
        # Of the exporter's own future, and of LSTMs without initial states, which ours has.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(examples),
            str(path),
            opset_version=_OPSET,
            verbose=verbose,
            input_names=network.input_names,
            output_names=network.output_names,
            dynamic_axes=axes,
            # The other exporter warns of arguments that RSL-RL's models need.
            dynamo=False,
        )


def _export_torchscript(graph: PolicyGraph, path: Path, text: str) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # Of TorchScript's future.
        traced = torch.jit.trace(graph, tuple(graph.examples), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={f"{METADATA}.json": text})


def _shapes(names: Sequence[str], examples: Sequence[torch.Tensor]) -> dict[str, list[Any]]:
    """Shapes of the inputs, with the batch by name."""
    found = {}
    for name, example in zip(names, examples, strict=True):
        shape: list[Any] = list(example.shape)
        shape[1 if name.endswith("_in") else 0] = "batch"
        found[name] = shape
    return found


def _mjlabs(env: ManagerBasedRlEnv, agent: CheckpointAgent) -> dict[str, Any]:
    """Return mjlab's description, or nothing if the task is not what it describes."""
    has_robot = "robot" in env.scene.entities
    if not (has_robot and "joint_pos" in env.action_manager.active_terms):
        return {}
    try:
        return get_base_metadata(env, run_path=agent.path.parent.name)
    except (TypeError, KeyError):
        return {}
