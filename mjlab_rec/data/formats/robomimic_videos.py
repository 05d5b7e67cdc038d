"""The pictures of episodes in robomimic's layout as mp4 files next to the HDF5 file.

A channel with the codec H.264 has no dataset. Its video is complete before the episode's group
exists, and the group says where it is and which checksum its bytes have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.mp4 import find_ffmpeg, frame_rate
from mjlab_rec.data.pictures import mp4
from mjlab_rec.data.pictures.codec import parse
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo
from mjlab_rec.data.values import check_count
from mjlab_rec.data.video_folder import remove_videos, video_folder, video_path, videos

CODECS = ("h264",)
_LEAST_S = 1e-4  # from a picture to the next; players need a time
_USUAL_S = 0.04
_MOST_OVERHEAD = 1 << 16  # bytes by which a picture in a video may be larger than its values
_LONGEST = 100  # characters of a folder's name


def has_video(spec: ChannelSpec) -> bool:
    """Whether a channel is stored as videos; otherwise as arrays."""
    return bool(spec.codec) and parse(spec.codec).name in CODECS and spec.dtype == np.uint8


@dataclass(frozen=True, kw_only=True)
class Video:
    """Where the pictures of a channel in an episode are."""

    path: str
    """The file, relative to the folder of the HDF5 file."""

    first: int
    """The picture of the first row. Two channels may share a file."""

    frames: int
    """Pictures in the file."""

    bytes: int
    """Size of the file."""

    crc32: int
    """Checksum of the bytes."""

    codec: str
    """The channel's codec."""


class VideoWriter:
    """Writes the videos of episodes."""

    def __init__(self, info: RunInfo) -> None:
        # The channel that another one is the next value of comes first.
        specs = sorted(filter(has_video, info.channels), key=lambda spec: bool(spec.next_of))
        self._specs = {spec.name: spec for spec in specs}
        self.channels = frozenset(self._specs)
        """Names of the channels that are stored as videos."""
        self._folders = dataset_paths(self._specs, _folder_name)
        seconds = info.step_dt * info.every
        self._rate: Fraction = frame_rate(seconds if seconds >= _LEAST_S else _USUAL_S)
        self._ffmpeg = find_ffmpeg("pictures='h264'") if specs else ""

    def begin(self, file: Path, overwrite: bool) -> None:
        """Make sure that there are no videos of an earlier file of this name."""
        folder = video_folder(file)
        if not self._specs or not os.path.lexists(folder):
            return
        if folder.is_symlink() or not folder.is_dir():
            raise DataError(
                f"Cannot record videos: '{folder}' is a link or a file, but it must be a folder."
                " Move it, or choose another path."
            )
        if overwrite:
            remove_videos(file)
        if videos(file):
            raise DataError(
                f"Cannot record videos: '{folder}' has videos already, but there is no"
                f" '{file.name}'. Move or remove that folder, choose another path, or set if_exists"
                " to 'number' (use the next free name)."
            )

    def write(self, episode: Episode, file: Path, demo: int, sync: bool) -> dict[str, Video]:
        """Write the videos of an episode; returns them by channel. If that fails, none stays.

        Args:
            episode: The episode.
            file: The HDF5 file.
            demo: Number of the episode in it.
            sync: Whether to wait until they are on the disk.
        """
        clips, shared = self._clips(episode)
        paths = {name: video_folder(file) / video_path(self._folders[name], demo) for name in clips}
        new = [path for path in paths.values() if not os.path.lexists(path)]
        found: dict[str, Video] = {}
        try:
            for name, clip in clips.items():
                crf, path = parse(self._specs[name].codec).quality, paths[name]
                mp4.write(path, clip, crf, self._rate, self._ffmpeg)
                if sync:
                    for each in (path, *list(path.parents)[:3]):
                        plain_files.sync_to_disk(each)
                content = plain_files.read(path)
                found[name] = Video(
                    path=path.relative_to(file.parent).as_posix(),
                    first=0,
                    frames=sum(map(len, clip)),
                    bytes=len(content),
                    crc32=crc32(content),
                    codec=self._specs[name].codec,
                )
        except BaseException as error:
            for path in new:
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise plain_files.cannot_write(video_folder(file), error) from error
            raise
        for name, source in shared.items():
            found[name] = Video(**{**asdict(found[source]), "first": 1})
        return found

    def _clips(self, episode: Episode) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
        """The pictures of each video, and the channels that share the one of another channel.

        If a next picture is always the picture of the next row, only the last one is added.
        """
        clips: dict[str, list[np.ndarray]] = {}
        shared: dict[str, str] = {}
        for name, spec in self._specs.items():
            values, clip = episode.arrays[name], clips.get(spec.next_of)
            if (
                clip is not None
                and np.array_equal(values[:-1], clip[0][1:])
                and (len(clip) == 1 or np.array_equal(values[-1:], clip[1]))
            ):
                clip[1:] = [values[-1:]]
                shared[name] = spec.next_of
            else:
                clips[name] = [values]
        return clips, shared


class VideoReader:
    """Reads the videos of an episode, each once.

    Args:
        file: The HDF5 file.
        check: Whether to compare checksums.
    """

    def __init__(self, file: Path, check: bool) -> None:
        self._file, self._check = file, check
        self._decoded: dict[Any, np.ndarray] = {}

    def values(self, video: Video, spec: ChannelSpec, rows: int) -> np.ndarray:
        """The pictures of a channel in all rows."""
        key = video.path, video.frames, spec.shape
        if key not in self._decoded:
            self._decoded[key] = self._decode(video, spec)
        return self._decoded[key][video.first : video.first + rows].copy()

    def _decode(self, video: Video, spec: ChannelSpec) -> np.ndarray:
        what = f"The video '{self._file.parent / video.path}' of '{spec.name}'"
        content = self._content(video, spec, what)
        ffmpeg = find_ffmpeg(f"Reading '{spec.name}'")
        found = np.empty((video.frames, *spec.shape), spec.dtype)
        try:
            mp4.decode(content, found, ffmpeg)
        except ValueError as error:
            raise _damaged(what, str(error)) from None
        return found

    def _content(self, video: Video, spec: ChannelSpec, what: str) -> bytes:
        most = (spec.nbytes + _MOST_OVERHEAD) * (video.frames + 1)
        if not mp4.LEAST_BYTES * video.frames <= video.bytes <= most:
            raise _damaged(what, f"{video.frames} pictures cannot have {video.bytes} bytes")
        # A path that leads elsewhere, by its name or by a link, could make us read any file.
        folder = Path(os.path.realpath(self._file)).parent
        path = folder / video.path
        if os.path.realpath(path.parent) != str(path.parent):
            raise DataError(f"{what} is behind a link. Links are not followed.")
        if not os.path.lexists(path):
            raise DataError(
                f"{what} is missing. Keep the folder '{Path(video.path).parts[0]}' next to"
                f" '{self._file.name}', under this name. Everything else can be read."
            )
        content = plain_files.read(path, video.bytes + 1, follow=False)
        if len(content) != video.bytes:
            more = "more" if len(content) > video.bytes else f"{len(content)}"
            raise _damaged(what, f"it has {more} bytes instead of {video.bytes}")
        if self._check and crc32(content) != video.crc32:
            raise _damaged(what, "wrong checksum")
        return content


def checked(data: Any, info: RunInfo, rows: int, file: Path) -> dict[str, Video]:
    """The videos that an episode's group lists; raises DataError for anything impossible."""
    specs = {spec.name: spec for spec in info.channels if has_video(spec)}
    found = {}
    try:
        for name, fields in data.items():
            video = Video(**fields)
            for number in (video.first, video.frames, video.bytes, video.crc32):
                check_count(number, "A number of a video", below=1 << 62)
            # A file has the pictures of all rows, and perhaps the one after the last.
            if not rows <= video.first + rows <= video.frames <= rows + 1:
                raise ValueError
            if video.codec != specs[name].codec or not _is_inside(video.path):
                raise ValueError
            found[name] = video
    except (AttributeError, TypeError, ValueError, KeyError):
        raise DataError(
            f"'{file}' is damaged: the list of an episode's videos cannot be read."
        ) from None
    return found


def as_json(videos: Mapping[str, Video]) -> dict[str, Any]:
    """The inverse of ``checked``."""
    return {name: asdict(video) for name, video in videos.items()}


def _is_inside(path: Any) -> bool:
    """Whether a path is that of a file in a folder in a folder, as a writer names them."""
    if not isinstance(path, str) or not path.endswith(".mp4") or "\0" in path or "\\" in path:
        return False
    parts = path.split("/")
    return len(parts) == 3 and not {"", ".", ".."} & set(parts)


def _folder_name(channel: str) -> str:
    return re.sub(r"[^\w.-]+", ".", channel)[:_LONGEST].strip(".") or "pictures"


def _damaged(what: str, why: str) -> DataError:
    return DataError(f"{what} is damaged: {why}. Everything else can be read.")
