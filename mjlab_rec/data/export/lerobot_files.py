"""The files of a LeRobot dataset: rows, episodes and tasks in Parquet, pictures in mp4."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mjlab_rec.data.export.lerobot_stats import Total, episode_stats
from mjlab_rec.data.export.lerobot_video import Video, picture_stats
from mjlab_rec.data.export.source import Batch

if TYPE_CHECKING:
    from mjlab_rec.data.export.lerobot import Layout

CHUNK_FILES = 1000  # files in a folder
COUNTERS = ("frame_index", "episode_index", "index", "task_index")

_FILE_BYTES = 64 << 20  # of numbers in a file; LeRobot's limit is 100 MB


class Files:
    """Writes rows, pictures and the table of episodes, a file of each at a time.

    Args:
        path: The folder.
        layout: The features.
        seconds: Duration of a step.
        task: The task in words.
        crf: Quality of mp4 files.
    """

    def __init__(self, path: Path, layout: Layout, seconds: float, task: str, crf: int) -> None:
        self._path, self._layout, self._seconds, self._task = path, layout, seconds, task
        self.videos = {
            feature: Video(path / "videos" / feature, spec, seconds, crf)
            for feature, spec in layout.pictures.items()
        }
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
        for name, video in self.videos.items():
            values = batch.arrays[self._layout.pictures[name].name]
            for series in video.add(f"{self._file()}.mp4", values, batch.counts):
                table.append(series.alias(f"videos/{name}/{series.name}"))
            stats = picture_stats(values, batch.counts)
            self.totals.setdefault(name, Total()).add(stats)
            for key, of in stats.items():
                nested = of if key == "count" else of[:, :, None, None]
                table.append(pl.Series(f"stats/{name}/{key}", nested.tolist()))
        self._episodes.append(pl.DataFrame(table))
        self.frames += batch.rows
        self.episodes += len(batch)
        self._bytes += sum(values.nbytes for values in columns.values())
        if self._bytes >= _FILE_BYTES or any(video.full for video in self.videos.values()):
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, and their episodes."""
        if not self._rows:
            return
        chunk, number = divmod(self._number, CHUNK_FILES)
        for video in self.videos.values():
            video.flush()
        places = [
            pl.lit(value, pl.Int64).alias(f"{prefix}/{name}")
            for prefix in ("data", "meta/episodes", *(f"videos/{name}" for name in self.videos))
            for name, value in (("chunk_index", chunk), ("file_index", number))
        ]
        episodes = pl.concat(self._episodes).with_columns(*places)
        for folder, frame in (("data", pl.concat(self._rows)), ("meta/episodes", episodes)):
            file = self._path / folder / f"{self._file()}.parquet"
            file.parent.mkdir(exist_ok=True)
            frame.write_parquet(file, compression="snappy")
        self._rows, self._episodes, self._bytes = [], [], 0
        self._number += 1

    def _file(self) -> str:
        """The name of the files that are being written, without a suffix."""
        return "chunk-{:03d}/file-{:03d}".format(*divmod(self._number, CHUNK_FILES))

    def abandon(self) -> None:
        """End the encoders, after an error."""
        for video in self.videos.values():
            video.flush()


def write_tasks(path: Path, task: str) -> None:
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
