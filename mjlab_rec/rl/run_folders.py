"""Folders of training runs, and the checkpoints in them.

A run is ``ROOT/EXPERIMENT/DATE[_RUN_NAME]/`` with ``model_<iteration>.pt``, ``model_best.pt``,
``agent.json``, ``env.json``, the curves of TensorBoard, ``videos/`` and ``rollouts/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.formats.plain_files import replace
from mjlab_rec.utils.string import nearest

ROOT = "logs"
"""Where runs are by default, in the current folder."""

BEST = "model_best.pt"
"""The checkpoint with the highest mean return so far."""

AGENT = "agent.json"
"""The task and the learner's cfg of a run."""

ENV = "env.json"
"""The environment's cfg of a run, to read; functions are named."""

_CHECKPOINT = re.compile(r"model_(\d+)\.pt")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DATE = "%Y-%m-%d_%H-%M-%S"


class NoCheckpointError(ValueError):
    """There is no checkpoint where one was looked for."""


def new_run_folder(
    experiment: str, run_name: str = "", root: str | Path = ROOT, now: datetime | None = None
) -> Path:
    """Create the folder of a new run, named after the time.

    Args:
        experiment: Name of the experiment: the folder of its runs.
        run_name: Appended to the name.
        root: Folder of all experiments.
        now: The time; None means the present.
    """
    for field, value in (("experiment_name", experiment), ("run_name", run_name)):
        if value in (".", "..") or set(value) & set("/\\"):
            raise ValueError(
                f"{field} must be the name of a folder, not a path; got {value!r}. Where all"
                " experiments are is --log-root."
            )
    name = (now or datetime.now()).strftime(_DATE) + (f"_{run_name}" if run_name else "")
    parent = Path(root) / experiment
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise ValueError(f"{parent / name} exists a thousand times. Choose another run_name.")


def write_cfgs(
    run: Path, task_id: str, agent: Any, env: Any, options: Mapping[str, Any] | None = None
) -> None:
    """Write agent.json and env.json into a run's folder.

    Args:
        run: The folder.
        task_id: Id of the task.
        agent: The learner's cfg, as it is before training.
        env: The environment's cfg.
        options: Options of the command line, to go on with later.
    """
    about = {"task": task_id, "agent": as_plain(agent), "options": dict(options or {})}
    _write(run / AGENT, about)
    _write(run / ENV, {"task": task_id, "env": as_plain(env)})


def read_agent(run: Path) -> dict[str, Any]:
    """Read agent.json of a run: ``task``, ``agent``, ``options``; empty if there is none."""
    try:
        return json.loads((run / AGENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def checkpoints(run: Path) -> list[Path]:
    """The numbered checkpoints of a run, by iteration."""
    found = [(int(match[1]), path) for path in run.iterdir() if (match := _numbered(path))]
    return [path for _, path in sorted(found)]


def runs(task_id: str, root: str | Path = ROOT) -> list[Path]:
    """The runs of a task, of all experiments, from the oldest to the newest."""
    found = [path.parent for path in Path(root).glob(f"*/*/{AGENT}")]
    return sorted((run for run in found if read_agent(run).get("task") == task_id), key=_age)


def find_checkpoint(source: str | Path, task_id: str, root: str | Path = ROOT) -> Path:
    """Find the file of a checkpoint.

    Args:
        source: Path of a checkpoint; a run's folder, which means its last checkpoint; ``latest``:
            the last checkpoint of the task's newest run; ``best``: ``model_best.pt`` of the newest
            run that has one.
        task_id: Id of the task.
        root: Folder of all experiments.
    """
    path = Path(source).expanduser()
    if str(source) == "latest":
        return _of_newest(task_id, root, lambda run: _last(checkpoints(run)), "checkpoint")
    if str(source) == "best":
        return _of_newest(task_id, root, _best, BEST)
    if path.is_dir():
        last = _last(checkpoints(path)) or _best(path)
        if last is None:
            raise NoCheckpointError(
                f"The folder {path} has no checkpoint (model_<iteration>.pt). Give the folder of"
                " one run."
            )
        return last
    if path.is_file():
        return path
    message = f"There is no checkpoint {str(source)!r}."
    if path.parent.is_dir() and path.suffix == ".pt":
        message += f" {nearest(path.name, sorted(p.name for p in path.parent.glob('*.pt')))}"
    raise NoCheckpointError(f"{message} Give a file, the folder of a run, latest or best.")


def as_plain(value: Any) -> Any:
    """Turn a cfg into what JSON can hold: functions and types become their names."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return _ADDRESS.sub("", str(value))


def _of_newest(
    task_id: str, root: str | Path, choose: Callable[[Path], Path | None], what: str
) -> Path:
    """What a function finds in the newest run of a task in which it finds anything."""
    known = runs(task_id, root)
    for run in reversed(known):
        found = choose(run)
        if found is not None:
            return found
    there = f"{len(known)} runs there, none with a {what}" if known else "no run of it there"
    raise NoCheckpointError(
        f"No {what} of the task {task_id!r} in {Path(root).resolve()}: {there}. Train it first:"
        f" mjlab-rec train --task {task_id}"
    )


def _numbered(path: Path) -> re.Match[str] | None:
    return _CHECKPOINT.fullmatch(path.name)


def _last(paths: list[Path]) -> Path | None:
    return paths[-1] if paths else None


def _best(run: Path) -> Path | None:
    return run / BEST if (run / BEST).is_file() else None


def _age(run: Path) -> tuple[str, str]:
    """Sort key of runs: their names begin with the time."""
    return run.name, str(run.parent)


def _write(path: Path, data: Mapping[str, Any]) -> None:
    replace(path, (json.dumps(data, indent=2) + "\n").encode(), sync=False)
