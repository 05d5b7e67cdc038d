"""Export to LeRobot's dataset format, version 3.0: Parquet files, and JSON about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mjlab_rec.data.export import record
from mjlab_rec.data.export.lerobot_files import CHUNK_FILES, COUNTERS, Files, write_tasks
from mjlab_rec.data.export.lerobot_video import fits
from mjlab_rec.data.export.source import Batch, Source
from mjlab_rec.data.formats.row_table import stored
from mjlab_rec.data.pictures.codec import size_of
from mjlab_rec.data.schema import ChannelSpec, DataError

INFO = "meta/info.json"
"""The file that marks a folder as a dataset of LeRobot."""
VERSION = "v3.0"

_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"


def write_lerobot(
    source: Source,
    path: Path,
    *,
    observation: Sequence[str] = (),
    task: str = "",
    robot_type: str = "",
    pictures: Literal["mp4", "numbers"] = "mp4",
    crf: int = 18,
) -> None:
    """Write a folder that ``LeRobotDataset(repo_id, root=folder)`` reads.

    Args:
        source: What to export.
        path: The folder to write.
        observation: Groups of observations for policies; empty: that of the policy.
        task: The task in words; empty: that of the recording.
        robot_type: The robot.
        pictures: Whether pictures become mp4 files, with a small loss, or vectors of numbers.
        crf: Quality of mp4 files, from 0 (lossless) to 51 (worst).
    """
    if pictures not in ("mp4", "numbers"):
        raise DataError(f"pictures is '{pictures}', but it must be 'mp4' or 'numbers'.")
    source.need("action", "LeRobot")
    seconds = source.info.step_dt * source.info.every
    if seconds <= 0:
        raise DataError(
            "LeRobot needs the frames per second, but the recording does not say how long a step"
            " is. Import it with step_dt."
        )
    rate = round(1 / seconds, 6)
    layout = Layout(source, observation, pictures == "mp4")
    task = task or str(source.info.about.get("task") or "unknown")
    files = Files(path, layout, seconds, task, crf)
    try:
        for batch in source.batches():
            files.add(batch)
            if any(batch.models):
                source.note("LeRobot has no place for model fields, so they are left out.")
        files.flush()
    finally:
        files.abandon()
    write_tasks(path / "meta/tasks.parquet", task)
    info = {
        "codebase_version": VERSION,
        "robot_type": robot_type or None,
        "total_episodes": files.episodes,
        "total_frames": files.frames,
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{files.episodes}"},
        "data_path": f"data/{_PATTERN}.parquet",
        "video_path": f"videos/{{video_key}}/{_PATTERN}.mp4" if files.videos else None,
        "features": {
            **layout.features(),
            **{name: video.feature(rate) for name, video in files.videos.items()},
        },
    }
    stats = {name: total.to_json(name in files.videos) for name, total in files.totals.items()}
    (path / "meta/stats.json").write_text(json.dumps(stats, indent=4))
    places = layout.names | {spec.name: name for name, spec in layout.pictures.items()}
    (path / record.FILE).write_bytes(record.dump(source, places))
    (path / INFO).write_text(json.dumps(info, indent=4))


class Layout:
    """The name, type and shape of each feature."""

    def __init__(self, source: Source, observation: Sequence[str], videos: bool) -> None:
        self._source = source
        self.pictures: dict[str, ChannelSpec] = {}  # feature -> channel
        fixed = {"action": "action", "reward": "next.reward"}
        fixed |= {name: f"next.{name}" for name in ("terminated", "truncated")}
        groups = source.observations(observation)
        for group, names in groups.items():
            for name in names:
                term = name.removeprefix(group).removeprefix("/")
                prefix = "" if len(groups) == 1 else group.removeprefix("obs/") + "."
                fixed[name] = f"observation.{prefix}{term or 'state'}".replace("/", ".")
        self.names: dict[str, str] = {}
        taken = {"next.done", "timestamp", *COUNTERS}
        for name in ("step", *source.specs):
            if name.startswith("next_obs/"):
                source.note(
                    "LeRobot has no place for observations after a step, so those after the last"
                    " step of each episode are left out."
                )
                continue
            spec = source.specs.get(name)
            picture = videos and spec is not None and fits(spec)
            feature = fixed.get(name, name.replace("/", "."))
            if picture:
                feature = f"observation.images.{name.removeprefix('obs/').replace('/', '_')}"
            while feature in taken:
                feature += "_"
            taken.add(feature)
            if picture and spec is not None:
                self.pictures[feature] = spec
                if any(side % 2 for side in size_of(spec.shape)[:2]):
                    source.note(f"Pictures of an odd size are padded with black: {name}.")
            else:
                self.names[name] = feature
        flat = [name for name in self.names if len(source.info.kinds[name][1]) > 1]
        if flat:
            source.note(f"Values of several axes are exported as vectors: {', '.join(flat)}.")

    def features(self) -> dict[str, Any]:
        """All features in files of rows, as in info.json."""
        found = {}
        for name, feature in self.names.items():
            dtype, shape = self._source.info.kinds[name]
            size = int(np.prod(shape, dtype=int))
            spec = self._source.specs.get(name)
            names = list(spec.elements) if spec is not None and spec.elements else None
            found[feature] = {"dtype": stored(dtype).name, "shape": [size], "names": names}
        found["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
        found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in COUNTERS:
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
