"""Export to TorchRL: a TensorDict of all rows in memory-mapped files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.export import record
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.utils.extras import require

_FLAGS = ("done", "terminated", "truncated")


def write_torchrl(source: Source, path: Path, *, observation: Sequence[str] = ()) -> None:
    """Write a folder that ``TensorDict.load_memmap`` reads, with the keys that TorchRL expects.

    Of each row: observation, action, done, terminated, truncated, is_init, step_count, the number
    of its "episode", and under "next" what the step led to.

    Args:
        source: What to export.
        path: The folder to write.
        observation: Groups of observations that are the observation; empty: that of the policy.
    """
    tensordict = require("tensordict", "train", "An export to TorchRL")
    source.need("action", "TorchRL")
    keys = _keys(source, observation)
    rows = source.rollouts.rows
    data: Any = tensordict.TensorDict(batch_size=[rows])
    path.mkdir()
    data.memmap_(prefix=str(path))
    for name, spec in source.specs.items():
        # TorchRL wants an axis for a single number.
        _make(data, keys[name], (rows, *(spec.shape or (1,))), spec.dtype)
    for flag in _FLAGS:
        _make(data, flag, (rows, 1), np.dtype(bool))
        if ("next", flag) not in keys.values():
            _make(data, ("next", flag), (rows, 1), np.dtype(bool))
    _make(data, "is_init", (rows, 1), np.dtype(bool))
    for key in ("step_count", ("next", "step_count")):
        _make(data, key, (rows, 1), np.dtype(np.int64))
    _make(data, "episode", (rows,), np.dtype(np.int64))
    first = 0
    for batch in source.batches():
        at = slice(first, first + batch.rows)
        first = at.stop
        for key, values in _values(source, batch, keys).items():
            into = data.get(key)
            into[at] = torch.from_numpy(values).reshape(into[at].shape)
        if any(batch.models):
            source.note("A TensorDict of rows has no place for model fields: they are left out.")
    (path / record.FILE).write_bytes(
        record.dump(source, {name: _text(key) for name, key in keys.items()})
    )


def _keys(source: Source, observation: Sequence[str]) -> dict[str, Any]:
    """The key of each channel."""
    places: dict[str, str] = {"action": "action", "reward": "next/reward"}
    places |= {flag: f"next/{flag}" for flag in ("terminated", "truncated")}
    groups = source.observations(observation)
    for group, names in groups.items():
        for name in names:
            term = name.removeprefix(group).removeprefix("/")
            one = len(groups) == 1
            places[name] = (term or "observation") if one else name.removeprefix("obs/")
            places[f"next_{name}"] = f"next/{places[name]}"

    def place(name: str) -> str:
        if name in places:
            return places[name]
        if name.startswith("next_"):
            return f"next/{name.removeprefix('next_')}"
        return name if source.specs[name].when == "before" else f"next/{name}"

    taken = [*_FLAGS, "is_init", "step_count", "next/done", "next/step_count", "episode"]
    found = dataset_paths(source.specs, place, taken=taken)
    return {name: _key(path) for name, path in found.items()}


def _values(source: Source, batch: Batch, keys: dict[str, Any]) -> dict[Any, np.ndarray]:
    """The values of each key in the rows of a batch."""
    every, step = source.info.every, batch.arrays["step"].astype(np.int64)
    values: dict[Any, np.ndarray] = {}
    flags = {flag: batch.flag(flag, every) for flag in _FLAGS[1:]}
    flags["done"] = flags["terminated"] | flags["truncated"]
    for flag, rows in flags.items():
        values["next", flag] = rows
        # Of the state before the step, which is never a final one.
        values[flag] = np.zeros(batch.rows, bool)
    for name, key in keys.items():
        values[key] = batch.arrays[name]
    first = np.zeros(batch.rows, bool)
    first[batch.starts] = True
    values["is_init"] = first
    values["step_count"], values["next", "step_count"] = step, step + 1
    values["episode"] = np.repeat(np.array(batch.numbers(), np.int64), batch.counts)
    return values


def _make(data: Any, key: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    kind = torch.from_numpy(np.zeros(0, dtype)).dtype
    data.make_memmap(key, shape=torch.Size(shape), dtype=kind)


def _key(path: str) -> Any:
    parts = tuple(path.split("/"))
    return parts if len(parts) > 1 else path


def _text(key: Any) -> str:
    return key if isinstance(key, str) else "/".join(key)
