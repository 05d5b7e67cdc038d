"""Export to LeRobot's dataset format, version 3.0: Parquet files, and JSON about them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.export import record
from mjlab_rec.data.export.lerobot_stats import Total, episode_stats
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.formats.row_table import stored
from mjlab_rec.data.schema import DataError

INFO = "meta/info.json"
"""The file that marks a folder as a dataset of LeRobot."""
VERSION = "v3.0"

_FILE_BYTES = 64 << 20  # of numbers in a file; LeRobot's limit is 100 MB
_CHUNK_FILES = 1000
_FILE = "chunk-{:03d}/file-{:03d}.parquet"
_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_COUNTERS = ("frame_index", "episode_index", "index", "task_index")


def write_lerobot(
    source: Source,
    path: Path,
    *,
    observation: Sequence[str] = (),
    task: str = "",
    robot_type: str = "",
) -> None:
    """Write a folder that ``LeRobotDataset(repo_id, root=folder)`` reads.

    Args:
        source: What to export.
        path: The folder to write.
        observation: Groups of observations for policies; empty: that of the policy.
        task: The task in words; empty: that of the recording.
        robot_type: The robot.
    """
    source.need("action", "LeRobot")
    seconds = source.info.step_dt * source.info.every
    if seconds <= 0:
        raise DataError(
            "LeRobot needs the frames per second, but the recording does not say how long a step"
            " is. Import it with step_dt."
        )
    rate = round(1 / seconds, 6)
    layout = _Layout(source, observation)
    task = task or str(source.info.about.get("task") or "unknown")
    files = _Files(path, layout, 1 / rate, task)
    for batch in source.batches():
        files.add(batch)
        if any(batch.models):
            source.note("LeRobot has no place for model fields, so they are left out.")
    files.flush()
    _write_tasks(path / "meta/tasks.parquet", task)
    info = {
        "codebase_version": VERSION,
        "robot_type": robot_type or None,
        "total_episodes": files.episodes,
        "total_frames": files.frames,
        "total_tasks": 1,
        "chunks_size": _CHUNK_FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{files.episodes}"},
        "data_path": f"data/{_PATTERN}.parquet",
        "video_path": None,
        "features": layout.features(),
    }
    stats = {name: total.to_json() for name, total in files.totals.items()}
    (path / "meta/stats.json").write_text(json.dumps(stats, indent=4))
    (path / record.FILE).write_bytes(record.dump(source, layout.names))
    (path / INFO).write_text(json.dumps(info, indent=4))


class _Layout:
    """The name, type and shape of each feature."""

    def __init__(self, source: Source, observation: Sequence[str]) -> None:
        self._source = source
        fixed = {"action": "action", "reward": "next.reward"}
        fixed |= {name: f"next.{name}" for name in ("terminated", "truncated")}
        groups = source.observations(observation)
        for group, names in groups.items():
            for name in names:
                term = name.removeprefix(group).removeprefix("/")
                prefix = "" if len(groups) == 1 else group.removeprefix("obs/") + "."
                fixed[name] = f"observation.{prefix}{term or 'state'}".replace("/", ".")
        self.names: dict[str, str] = {}
        taken = {"next.done", "timestamp", *_COUNTERS}
        for name in ("step", *source.specs):
            if name.startswith("next_obs/"):
                source.note(
                    "LeRobot has no place for observations after a step, so those after the last"
                    " step of each episode are left out."
                )
                continue
            feature = fixed.get(name, name.replace("/", "."))
            while feature in taken:
                feature += "_"
            taken.add(feature)
            self.names[name] = feature
        flat = [name for name in self.names if len(source.info.kinds[name][1]) > 1]
        if flat:
            source.note(f"Values of several axes are exported as vectors: {', '.join(flat)}.")

    def features(self) -> dict[str, Any]:
        """All features, as in info.json."""
        found = {}
        for name, feature in self.names.items():
            dtype, shape = self._source.info.kinds[name]
            size = int(np.prod(shape, dtype=int))
            spec = self._source.specs.get(name)
            names = list(spec.elements) if spec is not None and spec.elements else None
            found[feature] = {"dtype": stored(dtype).name, "shape": [size], "names": names}
        found["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
        found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in _COUNTERS:
            found[name] = {"dtype": "int64", "shape": [1], "names": None}
        return found

    def columns(self, batch: Batch, first: int, seconds: float) -> dict[str, np.ndarray]:
        """The values of all features in the rows of a batch: (rows,) or (rows, n)."""
        found = {}
        for name, feature in self.names.items():
            values = batch.arrays[name]
            values = values.astype(stored(values.dtype), copy=False).reshape(batch.rows, -1)
            found[feature] = values[:, 0] if values.shape[1] == 1 else values
        every = self._source.info.every
        found["next.done"] = batch.flag("terminated", every) | batch.flag("truncated", every)
        frame = np.arange(batch.rows) - np.repeat(batch.starts, batch.counts)
        found["timestamp"] = (frame * seconds).astype(np.float32)
        found["frame_index"] = frame
        found["episode_index"] = np.repeat(np.array(batch.numbers()), batch.counts)
        found["index"] = np.arange(first, first + batch.rows)
        found["task_index"] = np.zeros(batch.rows, np.int64)
        return found


class _Files:
    """Writes the rows and the table of episodes, a file of each at a time."""

    def __init__(self, path: Path, layout: _Layout, seconds: float, task: str) -> None:
        self._path, self._layout, self._seconds, self._task = path, layout, seconds, task
        self.frames = self.episodes = 0
        self.totals: dict[str, Total] = {}
        self._rows: list[pl.DataFrame] = []
        self._episodes: list[pl.DataFrame] = []
        self._bytes = self._number = 0
        for folder in ("meta/episodes", "data"):
            (path / folder).mkdir(parents=True)

    def add(self, batch: Batch) -> None:
        """Add the episodes of a batch."""
        columns = self._layout.columns(batch, self.frames, self._seconds)
        self._rows.append(pl.DataFrame([pl.Series(name, v) for name, v in columns.items()]))
        ends = self.frames + np.cumsum(batch.counts)
        table = [
            pl.Series("episode_index", np.array(batch.numbers())),
            pl.Series("tasks", [[self._task]] * len(batch)),
            pl.Series("length", batch.counts.astype(np.int64)),
            pl.Series("dataset_from_index", ends - batch.counts),
            pl.Series("dataset_to_index", ends),
            pl.Series("env", batch.table["env"]),
            pl.Series("number", batch.table["number"]),
        ]
        for name, values in columns.items():
            stats = episode_stats(values.reshape(batch.rows, -1), batch.counts)
            self.totals.setdefault(name, Total()).add(stats)
            for key, of in stats.items():
                table.append(pl.Series(f"stats/{name}/{key}", of).arr.to_list())
        self._episodes.append(pl.DataFrame(table))
        self.frames += batch.rows
        self.episodes += len(batch)
        self._bytes += sum(values.nbytes for values in columns.values())
        if self._bytes >= _FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, and their episodes."""
        if not self._rows:
            return
        chunk, number = divmod(self._number, _CHUNK_FILES)
        places = [
            pl.lit(value, pl.Int64).alias(f"{prefix}/{name}")
            for prefix in ("data", "meta/episodes")
            for name, value in (("chunk_index", chunk), ("file_index", number))
        ]
        episodes = pl.concat(self._episodes).with_columns(*places)
        for folder, frame in (("data", pl.concat(self._rows)), ("meta/episodes", episodes)):
            file = self._path / folder / _FILE.format(chunk, number)
            file.parent.mkdir(exist_ok=True)
            frame.write_parquet(file, compression="snappy")
        self._rows, self._episodes, self._bytes = [], [], 0
        self._number += 1


def _write_tasks(path: Path, task: str) -> None:
    """Write the list of tasks, as pandas writes a table whose index is the task."""
    index = "__index_level_0__"
    kinds = {"task_index": ("int64", "int64"), index: ("unicode", "object")}
    about = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {
                "name": None if name == index else name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": numpy,
                "metadata": None,
            }
            for name, (kind, numpy) in kinds.items()
        ],
        "creator": {"library": "mjlab_rec", "version": "1"},
        "pandas_version": "2.0.0",
    }
    frame = pl.DataFrame({"task_index": [0], index: [task]})
    content = io.BytesIO()
    frame.write_parquet(content, metadata={"pandas": json.dumps(about)})
    # Readers that find polars' own description of the types do not look for that of pandas.
    path.write_bytes(content.getvalue().replace(b"ARROW:schema", b"polars:types"))
