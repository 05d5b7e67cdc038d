"""HDF5 files in the layout of robomimic and Isaac Lab: a group for each episode.

Learning code for this layout can read them directly. It suits small recordings: each episode costs
a flush and several objects, and a kill while an episode is written can destroy the whole file. The
format "hdf5" has neither drawback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data import files
from mjlab_rec.data.checksum import array_crc32
from mjlab_rec.data.formats import episode_table, robomimic_layout, robomimic_videos
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5_file import Hdf5FilesWriter, RawFile, content, place, put_text
from mjlab_rec.data.formats.plain_files import removed
from mjlab_rec.data.formats.robomimic_layout import OWN, mark
from mjlab_rec.data.formats.robomimic_reader import RobomimicReader
from mjlab_rec.data.formats.robomimic_videos import Video, VideoWriter
from mjlab_rec.data.schema import DataError, Episode, RunInfo
from mjlab_rec.data.values import check_name

__all__ = ["RobomimicReader", "RobomimicWriter"]

_OBJECT = 8 << 10  # maximum overhead of a dataset
_MOST_TEXT = 60 << 10  # bytes of an attribute
_GYM = 2  # robomimic's number for Gym environments


class RobomimicWriter(Hdf5FilesWriter):
    """Writes ``data/demo_<i>`` with obs, next_obs, actions, rewards, dones and states.

    The file may be lost if the process is killed, or the machine loses power, while an episode is
    written. Appended episodes continue the numbering from the highest number. Pictures with the
    codec H.264 are mp4 files in a folder next to the file.
    """

    by_episode = True
    codecs = robomimic_videos.CODECS

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        for name in info.attachments:
            check_name(name, "attached file")
        self._video_bytes = self._part_video_bytes = 0
        self._file: Any = None
        self._part: Path | None = None
        self._demos = self._rows = self._offset = 0
        self._paths = robomimic_layout.paths(info)
        with self._beginning():
            self._videos = VideoWriter(info)
            if options.if_exists == "append" and files.parts(self._path_lock.path):
                self._append_to_existing()
            self._open()

    def write_episode(self, episode: Episode) -> None:
        if not episode.rows:
            return
        try:
            self._open_next()
            self._reserve(episode)
            videos = self._videos.write(episode, self._files[-1], self._demos, self._power)
        except OSError as error:
            raise self._failure(error) from error
        size = sum({video.path: video.bytes for video in videos.values()}.values())
        self._video_bytes += size
        self._part_video_bytes += size
        with self._filling(self._abandon):
            self._put(episode, videos)
            if self.options.safe:
                self._flush()

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._video_bytes

    def _append_to_existing(self) -> None:
        old = RobomimicReader(self._path_lock.path)
        try:
            if not old.ours:
                raise DataError(
                    f"Cannot append to '{self._path_lock.path}': it was not recorded by mjlab_rec."
                    " Choose another path, or if_exists='number'."
                )
            episode_table.check_same_run(old.info, self.info, self._path_lock.path)
            self._offset = 1 + max(old.episodes["number"].to_list(), default=-1)
        finally:
            old.close()

    def _open_next(self) -> None:
        """Open a file if none is open, and the next part if this one is large enough."""
        if self._file and self._raw.deleted:
            self._failed = True
            raise removed(self._files[-1])
        if self._file and self._demos:
            size = self._file.id.get_filesize() + self._part_video_bytes
            if size < self.options.roll_over_bytes:
                return
            self._finish(last=False)
        if not self._file:
            self._open()

    def _open(self) -> None:
        if self._part is None:
            self._part = self._path_lock.next_part()
        self._demos = self._rows = self._part_video_bytes = 0
        self._videos.begin(self._part, self.options.if_exists == "overwrite")
        self._file = place(self._part, content(0, self._fill))
        self._raw = RawFile(self._file)
        self._files.append(self._part)
        self._part = None
        self._data: Any = self._file["data"]
        if self._power:
            self._raw.sync()

    def _fill(self, file: h5py.File) -> None:
        data = file.create_group("data")
        data.attrs["total"] = 0
        name = str(self.info.about.get("task", ""))
        arguments = {"env_name": name, "type": _GYM, "env_kwargs": {}}
        data.attrs["env_args"] = json.dumps(arguments)
        own = file.create_group(OWN)  # not in data, where other programs expect only demos
        own.attrs["mark"] = np.bytes_(mark(0, finished=False, last=False))
        attached = episode_table.attached_json(self.info.attachments)
        text = episode_table.dump_info(self.info, attachments=False, attached=attached)
        put_text(own, "info", text)
        for name, attachment in self.info.attachments.items():
            own.create_dataset(f"attachments/{name}", data=np.frombuffer(attachment, np.uint8))

    def _reserve(self, episode: Episode) -> None:
        """Reserve room on the disk; if it is full, the file is not changed."""
        videos = self._videos.channels
        arrays = [values for name, values in episode.arrays.items() if name not in videos]
        values = [*arrays, *episode.model.values(), np.zeros(episode.rows, bool)]
        more = sum(value.nbytes + _OBJECT for value in values)
        self._raw.reserve(self._file.id.get_filesize() + more + _OBJECT)

    def _put(self, episode: Episode, videos: dict[str, Video]) -> None:
        demo = self._data.create_group(f"demo_{self._demos}")
        for name, values in episode.arrays.items():
            if name not in videos:
                demo.create_dataset(self._paths[name], data=values, **self._filters(values))
        dones = np.zeros(episode.rows, np.uint8)
        dones[-1] = not episode.cut
        demo.create_dataset("dones", data=dones)
        for name, value in episode.model.items():
            demo.create_dataset(f"model_fields/{name}", data=value)
        row = episode_table.row_of(episode, self._offset)
        attrs = {
            "num_samples": row["rows"],
            "env": row["env"],
            "episode": row["number"],
            "terminated": row["terminated"],
            "truncated": row["truncated"],
        }
        if row["success"] is not None:
            attrs["success"] = row["success"]
        if isinstance(self.info.about.get("seed"), int):
            attrs["seed"] = self.info.about["seed"]
        names = ["step", *(spec.name for spec in self.info.channels)]
        row["checksums"] = [
            None if name in videos else array_crc32(episode.arrays[name]) for name in names
        ]
        if videos:
            row["videos"] = robomimic_videos.as_json(videos)
            attrs["videos"] = json.dumps(row["videos"])
        row["model"] = episode_table.model_json(episode.model)
        row["model_checksums"] = [array_crc32(value) for value in episode.model.values()]
        # The other attributes are for other programs. Our reader uses this one, which has a
        # checksum.
        text = episode_table.seal(json.dumps(row)).encode()
        if len(text) > _MOST_TEXT:
            raise DataError(
                f"{len(names)} channels are too many for this format. Choose the format hdf5."
            )
        attrs[OWN] = np.bytes_(text)
        demo.attrs.update(attrs)
        self._demos += 1
        self._rows += episode.rows
        self._data.attrs.modify("total", self._rows)
        self._mark(finished=False, last=False)

    def _mark(self, *, finished: bool, last: bool) -> None:
        value = np.bytes_(mark(self._demos, finished=finished, last=last))
        self._file[OWN].attrs.modify("mark", value)

    def _finish(self, last: bool = True) -> None:
        if self._file:
            self._mark(finished=True, last=last)
            self._flush()
            self._file.close()

    def _abandon(self) -> None:
        self._raw.abandon()
        self._file.close()

    def _flush(self) -> None:
        self._file.flush()
        if self._power:
            self._raw.sync()

    def _filters(self, values: np.ndarray) -> dict[str, Any]:
        if self.options.compression is None or not values.size:
            return {}
        return {"compression": self.options.compression}
