"""Files of training runs: checkpoints, and configs as YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mjlab_rec.utils.extras import require
from mjlab_rec.utils.string import nearest

_CHECKPOINT = re.compile(r"model_(\d+)\.pt")
_DOWNLOADS = "wandb_checkpoints"


def dump_yaml(filename: Path | str, data: Mapping[str, Any], sort_keys: bool = False) -> None:
    """Write a dictionary to a YAML file; folders are made, and ``.yaml`` is added if needed."""
    yaml = require("yaml", None, "dump_yaml", package="pyyaml")
    path = Path(filename)
    path = path if path.suffix else path.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(data, file, sort_keys=sort_keys)


def get_checkpoint_path(
    log_path: Path | str,
    run_dir: str = ".*",
    checkpoint: str = ".*",
    sort_alpha: bool = True,
) -> Path:
    """Find a checkpoint: the last matching file of the last matching run.

    Args:
        log_path: Folder of the runs.
        run_dir: Regular expression for the beginning of a run's name.
        checkpoint: Regular expression for the beginning of a file's name. Among those that match,
            the last one in order of length and letters counts, so ``model_200`` after ``model_90``.
        sort_alpha: Order runs by name; else by the time they last changed.
    """
    log_path = Path(log_path)
    if not log_path.exists():
        raise ValueError(f"The folder of runs does not exist: {log_path}")
    runs = [path for path in log_path.iterdir() if path.is_dir() and path.name != _DOWNLOADS]
    matching = [path for path in runs if re.match(run_dir, path.name)]
    if not matching:
        known = ", ".join(sorted(path.name for path in runs)) or "none"
        raise ValueError(f"No run in {log_path} matches {run_dir!r}. Runs there: {known}.")
    run = max(matching, key=lambda path: path.name if sort_alpha else path.stat().st_mtime)
    names = [path.name for path in run.iterdir()]
    found = [name for name in names if re.match(checkpoint, name)]
    if not found:
        known = ", ".join(sorted(names)) or "none"
        raise ValueError(f"No file in {run} matches {checkpoint!r}. Files there: {known}.")
    return run / max(found, key=lambda name: name.rjust(15, "0"))


def get_wandb_checkpoint_path(
    log_path: Path | str, run_path: Path | str, checkpoint_name: str | None = None
) -> tuple[Path, bool]:
    """Return a checkpoint of a Weights & Biases run, downloaded unless it is there already.

    Args:
        log_path: Folder of the runs; downloads go to ``wandb_checkpoints/<run>`` in it.
        run_path: The run, as ``entity/project/run``.
        checkpoint_name: Name of the file, ``model_<iteration>.pt``; None means the last one.

    Returns:
        Its path, and whether it was there already.
    """
    wandb = require("wandb", None, "get_wandb_checkpoint_path")
    run = wandb.Api().run(str(run_path))
    numbers = {
        file.name: int(match[1])
        for file in run.files(pattern="model_%.pt")
        if (match := _CHECKPOINT.fullmatch(file.name))
    }
    if not numbers:
        raise ValueError(f"The run {run_path} has no checkpoints (model_<iteration>.pt).")
    name = max(numbers, key=numbers.__getitem__) if checkpoint_name is None else checkpoint_name
    if name not in numbers:
        raise ValueError(f"The run {run_path} has no {name!r}. {nearest(name, list(numbers))}")
    folder = Path(log_path) / _DOWNLOADS / str(run_path).split("/")[-1]
    path = folder / name
    was_there = path.exists()
    if not was_there:
        folder.mkdir(parents=True, exist_ok=True)
        run.file(name).download(str(folder), replace=True)
    return path, was_there
