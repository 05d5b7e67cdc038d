"""Export to Minari: a folder with metadata, and an HDF5 file with a group for each episode."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.export import record
from mjlab_rec.data.export.hdf5_tree import EpisodeFile, Values
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import ChannelSpec, DataError

METADATA = "data/metadata.json"
"""The file that marks a folder as a dataset of Minari."""
VERSION = "0.5.0"
"""The oldest version of Minari that reads these datasets, and all later ones do."""
_RAW_PICTURES = "0.5.4"  # can store pictures as they are

_ID = re.compile(r"(?:[-_\w][-_\w/]*[-_\w]+/)?[-_\w]+?-v\d+")


def write_minari(
    source: Source,
    path: Path,
    *,
    final_path: Path | None = None,
    dataset_id: str = "",
    observation: Sequence[str] = (),
    author: str = "",
    author_email: str = "",
    algorithm_name: str = "",
    description: str = "",
    code_permalink: str = "",
) -> None:
    """Write a dataset that ``minari.load_dataset`` loads.

    Args:
        source: What to export.
        path: The folder to write.
        final_path: Where the folder will be; its name is the id of the dataset.
        dataset_id: The id, such as cartpole/random-v0. Empty: the name of the folder, with its
            namespaces if it is inside Minari's own folder.
        observation: Groups of observations, such as actor. Empty: that of the policy.
        author: Who recorded it.
        author_email: How to reach them.
        algorithm_name: What chose the actions.
        description: What it is.
        code_permalink: Where the code is.
    """
    dataset_id = dataset_id or _id_of(final_path or path)
    if not _ID.fullmatch(dataset_id):
        raise DataError(
            f"'{dataset_id}' is no id of a Minari dataset. Ids end in a version, such as"
            " cartpole-random-v0, and may begin with a namespace, such as cartpole/random-v0. Name"
            " the folder so, or give dataset_id."
        )
    layout = _Layout(source, observation)
    folder = path / "data"
    folder.mkdir(parents=True)
    main = folder / "main_data.hdf5"
    file = EpisodeFile(main)
    steps = 0
    try:
        for batch in source.batches():
            steps += batch.rows
            layout.add(file, batch)
        file.close()
    finally:
        file.abandon()
    (path / record.FILE).write_bytes(record.dump(source, layout.paths))
    metadata = {
        "total_episodes": sum(len(batch) for batch in source.stretches),
        "total_steps": steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(layout.observation_space()),
        "action_space": json.dumps(space(source.specs["action"])),
        "dataset_id": dataset_id,
        "minari_version": _RAW_PICTURES if layout.has_pictures else VERSION,
        "dataset_size": round(main.stat().st_size / 1e6, 1),
        "algorithm_name": algorithm_name,
        "description": description or f"Recorded by mjlab_rec: {source.info.about.get('task')}.",
        "code_permalink": code_permalink,
        "author": [author] if author else [],
        "author_email": [author_email] if author_email else [],
    }
    (path / METADATA).write_text(json.dumps({k: v for k, v in metadata.items() if v != ""}))


class _Layout:
    """Where each channel is in an episode, and its space."""

    def __init__(self, source: Source, observation: Sequence[str]) -> None:
        self._source = source
        for name in ("action", "reward"):
            source.need(name, "Minari")
        groups = source.observations(observation)
        self._observed: dict[str, str] = {}  # channel -> its path
        for group, names in groups.items():
            above = "observations" + f"/{group.removeprefix('obs/')}" * (len(groups) > 1)
            # A channel of the whole group has everything that those below it have.
            for name in [group] if group in names else names:
                # As a group of channels is a dictionary of its terms, their names have no slashes.
                below = name.removeprefix(group).removeprefix("/").replace("/", ".")
                self._observed[name] = above + f"/{below}" * bool(below)
        self._following = {name: source.following(name, "Minari") for name in self._observed}
        fixed = {"action": "actions", "reward": "rewards"}
        flags = {"terminated": "terminations", "truncated": "truncations"}
        for name, path in flags.items():
            spec = source.specs.get(name)
            if spec is not None and (spec.dtype, spec.shape) == (np.dtype(bool), ()):
                fixed[name] = path
        others = [
            name
            for name in ("step", *source.specs)
            if name not in fixed and name not in self._observed
        ]
        infos = dataset_paths([*others, "model_fields"])
        self._model = infos.pop("model_fields")
        self._infos = {name: f"infos/{path}" for name, path in infos.items()}
        self.paths = {**self._observed, **fixed, **self._infos}

    def add(self, file: EpisodeFile, batch: Batch) -> None:
        """Write the episodes of a batch; what the observations say already is left out."""
        chained = np.ones(len(batch), bool)
        for name, following in self._following.items():
            chained &= batch.chained(name, following)
        names = np.array([f"episode_{number}" for number in batch.numbers()])
        numbers = np.array(batch.numbers())
        known = batch.table["success"] >= 0
        for chain in (True, False):
            for success in (True, False):
                which = (chained == chain) & (known == success)
                if not which.any():
                    continue
                some = batch if which.all() else batch.chosen(which)
                self._add(file, some, names[which].tolist(), numbers[which], chain)

    def _add(
        self, file: EpisodeFile, batch: Batch, names: list[str], numbers: np.ndarray, chain: bool
    ) -> None:
        counts = batch.counts
        datasets: dict[str, Values] = {}
        for name, path in self._observed.items():
            values = batch.with_final(name, self._following[name])
            datasets[path] = Values(items=values, counts=counts + 1)
        datasets["actions"] = Values(items=batch.arrays["action"], counts=counts)
        datasets["rewards"] = Values(items=batch.arrays["reward"], counts=counts)
        every = self._source.info.every
        for name, path in (("terminated", "terminations"), ("truncated", "truncations")):
            datasets[path] = Values(items=batch.flag(name, every), counts=counts)
        implied = self._following.values() if chain else ()
        for name, path in self._infos.items():
            if name not in implied:
                datasets[path] = Values(items=batch.arrays[name], counts=counts)
        for name, values in batch.model().items():
            datasets[f"infos/{self._model}/{name}"] = Values(items=values)
        attributes = {
            "id": numbers,
            "total_steps": counts.astype(np.int64),
            "env": batch.table["env"],
            "episode": batch.table["number"],
        }
        if batch.table["success"][0] >= 0:
            attributes["success"] = (batch.table["success"] == 1) & batch.last
        file.add(names, datasets, attributes)

    @property
    def has_pictures(self) -> bool:
        """Whether older versions would take an observation for a compressed picture."""
        specs = (self._source.specs[name] for name in self._observed)
        return any(s.dtype == np.uint8 and len(s.shape) in (2, 3) for s in specs)

    def observation_space(self) -> dict[str, Any]:
        """The space of observations, as Minari writes it."""
        found: dict[str, Any] = {}
        for name, path in self._observed.items():
            keys = path.split("/")[1:]
            if not keys:
                return space(self._source.specs[name])
            into = found
            for key in keys[:-1]:
                into = into.setdefault(key, {"type": "Dict", "subspaces": {}})["subspaces"]
            into[keys[-1]] = space(self._source.specs[name])
        return {"type": "Dict", "subspaces": found}


def space(spec: ChannelSpec) -> dict[str, Any]:
    """The space of a channel: all values of its type."""
    if spec.dtype.kind == "f":
        low, high = -np.inf, np.inf
    elif spec.dtype.kind == "b":
        low, high = 0, 1
    else:
        low, high = np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
    return {
        "type": "Box",
        "dtype": spec.dtype.name,
        "shape": list(spec.shape),
        "low": np.full(spec.shape, low, spec.dtype).tolist(),
        "high": np.full(spec.shape, high, spec.dtype).tolist(),
    }


def _id_of(path: Path) -> str:
    """The id of a dataset in a folder: with namespaces inside Minari's own folder."""
    default = Path.home() / ".minari" / "datasets"
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or default).expanduser().resolve()
    whole = path.expanduser().resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else path.name
