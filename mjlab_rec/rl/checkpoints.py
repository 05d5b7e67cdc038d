"""Files of checkpoints: tensors and plain data, which are read without unpickling anything.

``infos`` of a checkpoint describes what it is for: ``task``, ``agent`` (the learner's cfg),
``obs`` (shape of each group), ``obs_groups``, ``num_actions``, and ``env_state`` (how far the task
was). With it a policy can be rebuilt without the task's rl_cfg.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mjlab_rec.data.formats.plain_files import replacing

NETWORKS = ("actor", "critic", "student", "teacher")
"""Names of networks in algorithms and checkpoints."""

_MAX_LISTED = 6


class CheckpointError(ValueError):
    """A file is no checkpoint, or not one of this task and these networks."""


def write(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write a file that ``read`` reads; a kill leaves either the old file or the new one."""
    with replacing(Path(path), sync=True) as hidden:
        torch.save(dict(data), hidden)


def read(path: str | Path, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint, or raise an error that says what is wrong with the file."""
    try:
        found = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {str(path)!r}.") from None
    except Exception as error:  # torch raises all kinds, also for files that are cut off.
        reason = str(error).partition("\n")[0]
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = "it holds Python objects other than tensors and plain data, which could run"
            reason += " any code when they are read"
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}.") from error
    if not isinstance(found, dict) or not any(key.endswith("_state_dict") for key in found):
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint of RSL-RL: it holds {keys or 'nothing'}, and no networks."
        )
    return found


def check_plain(value: Any, where: str = "infos") -> None:
    """Raise TypeError for what a checkpoint cannot hold."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            check_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            check_plain(entry, f"{where}[{index}]")
    elif not (value is None or type(value) in (bool, int, float, str)) and not isinstance(
        value, torch.Tensor
    ):
        raise TypeError(
            f"{where} is a {type(value).__name__}: checkpoints hold only tensors, numbers, texts,"
            " lists and dicts, so that reading one cannot run code."
        )


def describe(env: Any, agent: Mapping[str, Any], obs_groups: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its task and networks.

    Args:
        env: The environment, as RslRlVecEnvWrapper.
        agent: The learner's cfg as plain data.
        obs_groups: The observation groups of each network.
    """
    obs = env.get_observations()
    return {
        "task": env.unwrapped.cfg.task,
        "agent": dict(agent),
        "obs": {name: _shape(value) for name, value in obs.items()},
        "obs_groups": {name: list(groups) for name, groups in obs_groups.items()},
        "num_actions": env.num_actions,
    }


def check_fits(
    path: str | Path,
    checkpoint: Mapping[str, Any],
    here: Mapping[str, Any],
    learner: Mapping[str, Any],
    load_cfg: Mapping[str, Any] | None = None,
) -> None:
    """Raise CheckpointError if the networks of a learner cannot take a checkpoint's weights.

    Args:
        path: Its file.
        checkpoint: As read.
        here: What ``describe`` says here.
        learner: What the learner would save.
        load_cfg: Which parts are to be loaded; None means all.
    """
    its, ours = dict(checkpoint), dict(learner)
    if "teacher_state_dict" in ours and "actor_state_dict" in its:
        its["teacher_state_dict"] = its["actor_state_dict"]
        ours.pop("student_state_dict")
    if load_cfg is not None:
        ours = {k: v for k, v in ours.items() if load_cfg.get(k.removesuffix("_state_dict"))}
    found = differences(its, here, ours)
    if found:
        raise CheckpointError(
            f"{path} does not fit this task and its networks: {'; '.join(found)}."
        )


def differences(
    checkpoint: Mapping[str, Any], here: Mapping[str, Any], networks: Mapping[str, Any]
) -> list[str]:
    """What keeps the networks of a checkpoint from being loaded, in words; empty if nothing does.

    Args:
        checkpoint: As read.
        here: What ``describe`` says here.
        networks: The state dicts here, by their names in checkpoints.
    """
    wrong = []
    for name in NETWORKS:
        key = f"{name}_state_dict"
        if key in checkpoint and key in networks:
            wrong += _network_differences(name, checkpoint[key], networks[key])
    absent = [key for key in networks if key.endswith("_state_dict") and key not in checkpoint]
    wrong += [f"it has no {key}" for key in absent if "optimizer" not in key and "rnd" not in key]
    if not wrong:
        return []
    there = checkpoint.get("infos") or {}
    return _context(there, here) + wrong


def _context(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Differences of task and observations, which explain those of the networks."""
    found = []
    if there.get("task") not in (None, here["task"]):
        found.append(f"it is of the task {there['task']!r}, this is {here['task']!r}")
    for kind, word in (("obs", "observation group"), ("obs_groups", "groups of the network")):
        if kind not in there:
            continue
        for name in dict.fromkeys([*there[kind], *here[kind]]):
            its, ours = there[kind].get(name), here[kind].get(name)
            if its != ours:
                found.append(f"{word} {name!r} is {_said(its)} there and {_said(ours)} here")
    if there.get("num_actions") not in (None, here["num_actions"]):
        found.append(
            f"there are {there['num_actions']} actions there and {here['num_actions']} here"
        )
    return found


def _network_differences(name: str, its: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    found = []
    for key in dict.fromkeys([*its, *ours]):
        a, b = its.get(key), ours.get(key)
        shapes = [None if t is None else tuple(t.shape) for t in (a, b)]
        if shapes[0] != shapes[1]:
            found.append(f"{name} {key} is {_said(shapes[0])} there and {_said(shapes[1])} here")
    if len(found) > _MAX_LISTED:
        found[_MAX_LISTED:] = [f"{len(found) - _MAX_LISTED} more weights of the {name}"]
    return found


def _said(value: Any) -> str:
    return "missing" if value is None else str(value)


def _shape(value: Any) -> Any:
    """The shape of one environment's observation; of each term if they are separate."""
    if isinstance(value, torch.Tensor):
        return list(value.shape[1:])
    return {name: _shape(part) for name, part in value.items()}
