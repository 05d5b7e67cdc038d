"""Export to the HDF5 layout of robomimic and Isaac Lab: a group for each episode."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data.export import record
from mjlab_rec.data.export.hdf5_tree import EpisodeFile, Values
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.formats.robomimic_layout import INITIAL, dataset_path
from mjlab_rec.data.schema import DataError

RECORD = "mjlab_rec_export"
"""The dataset with the record of the recording."""

_TAKEN = ("dones", "model_fields", INITIAL)
_GYM = 2  # robomimic's number for Gym environments


def write_robomimic(source: Source, path: Path, *, valid: float = 0.1, seed: int = 0) -> None:
    """Write a file for robomimic.

    Args:
        source: What to export.
        path: The file.
        valid: Fraction of the episodes in the mask "valid"; the others are in "train".
        seed: Chooses which.
    """
    if not 0 <= valid < 1:
        raise DataError(f"valid is {valid}, but it must be a fraction: at least 0 and below 1.")
    write_demos(source, path, dataset_path)
    with h5py.File(path, "r+", locking=False) as file:
        demos = len(file["data"])  # type: ignore[arg-type]
        order = np.random.default_rng(seed).permutation(demos)
        split = round(valid * demos)
        for name, which in (("valid", order[:split]), ("train", order[split:])):
            names = [f"demo_{i}".encode() for i in sorted(which.tolist())]
            file.create_dataset(f"mask/{name}", data=np.array(names, f"S{5 + len(str(demos))}"))


def write_demos(
    source: Source,
    path: Path,
    place: Callable[[str], str],
    more: Callable[[Batch], dict[str, Values]] = lambda batch: {},
    about: Mapping[str, str] = MappingProxyType({}),
    taken: Sequence[str] = (),
) -> None:
    """Write a file with ``data/demo_<n>`` for each episode.

    Args:
        source: What to export.
        path: The file.
        place: The preferred path for a channel in an episode's group.
        more: More datasets of the episodes of a batch.
        about: More attributes of the group of all episodes.
        taken: Paths that no channel may have, because `more` has them.
    """
    source.need("action", "This layout")
    names = dict.fromkeys(["step", *source.specs])
    paths = dataset_paths(names, place, taken=[*_TAKEN, *taken])
    file = EpisodeFile(path, "data")
    try:
        rows = 0
        for batch in source.batches():
            rows += batch.rows
            # Episodes with a known success have an attribute for it, so their headers differ.
            known = batch.table["success"] >= 0
            for which in (known, ~known):
                if which.any():
                    some = batch if which.all() else batch.chosen(which)
                    numbers = np.array(batch.numbers())[which].tolist()
                    _add(file, source, some, numbers, paths, more(some))
        file.close()
    finally:
        file.abandon()
    with h5py.File(path, "r+", locking=False) as written:
        data: Any = written["data"]
        data.attrs["total"] = rows
        data.attrs["env_args"] = json.dumps(env_args(source))
        data.attrs.update(about)
        content = record.dump(source, paths)
        written.create_dataset(RECORD, data=np.frombuffer(content, np.uint8))


def _add(
    file: EpisodeFile,
    source: Source,
    batch: Batch,
    numbers: Sequence[int],
    paths: Mapping[str, str],
    more: Mapping[str, Values],
) -> None:
    """Write stretches that have these numbers."""
    every = source.info.every
    flags = {name: batch.flag(name, every) for name in ("terminated", "truncated")}
    datasets = {
        paths[name]: Values(items=values, counts=batch.counts)
        for name, values in batch.arrays.items()
    }
    dones = (flags["terminated"] | flags["truncated"]).astype(np.uint8)
    datasets["dones"] = Values(items=dones, counts=batch.counts)
    for name, values in batch.model().items():
        datasets[f"model_fields/{name}"] = Values(items=values)
    datasets.update(more)
    attributes = {
        "num_samples": batch.counts.astype(np.int64),
        "env": batch.table["env"],
        "episode": batch.table["number"],
        **{name: values[batch.ends] for name, values in flags.items()},
    }
    if batch.table["success"][0] >= 0:
        attributes["success"] = (batch.table["success"] == 1) & batch.last
    seed = source.info.about.get("seed")
    if isinstance(seed, int) and abs(seed) < 1 << 63:
        attributes["seed"] = np.full(len(batch), seed)
    file.add([f"demo_{number}" for number in numbers], datasets, attributes)


def env_args(source: Source) -> dict[str, Any]:
    """The environment, as robomimic and Isaac Lab describe it."""
    info = source.info
    return {
        "env_name": str(info.about.get("task", "")),
        "type": _GYM,
        "env_kwargs": {},
        "sim_args": {"dt": info.step_dt * info.every, "decimation": 1},
    }
