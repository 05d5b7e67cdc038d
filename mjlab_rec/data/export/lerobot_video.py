"""Pictures of a LeRobot dataset: an mp4 file for each file of rows, and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.export.lerobot_stats import QUANTILES, Stats
from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg, frame_rate
from mjlab_rec.data.pictures.codec import as_pictures, is_picture, size_of
from mjlab_rec.data.schema import ChannelSpec

MOST_BYTES = 200_000_000  # of a file, which is LeRobot's limit
_SAMPLES = 100_000  # pixels of an episode that count in its statistics
_GROUP = 10  # pictures that are decoded at most to read one


def fits(spec: ChannelSpec) -> bool:
    """Whether the values of a channel are pictures for LeRobot: of uint8, grey or with colours."""
    if spec.dtype != np.uint8 or len(spec.shape) != 3:
        return False
    channels = size_of(spec.shape)[2]
    one_picture = channels in (spec.shape[0], spec.shape[-1])
    return one_picture and channels in (1, 3) and is_picture(spec.dtype, spec.shape)


def _colours(values: np.ndarray) -> np.ndarray:
    """Pictures (n, ...) as (n, height, width, 3)."""
    pictures = as_pictures(values)
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


class Video:
    """Writes the pictures of a channel.

    Args:
        folder: The folder of the files of this feature.
        spec: The channel.
        seconds: Time from one picture to the next.
        crf: Quality, from 0 (lossless) to 51 (worst).
    """

    def __init__(self, folder: Path, spec: ChannelSpec, seconds: float, crf: int) -> None:
        self._folder, self._spec, self._seconds, self._crf = folder, spec, seconds, crf
        self._ffmpeg = find_ffmpeg("An export of pictures to LeRobot")
        self._writer: Mp4Writer | None = None

    def add(self, file: str, values: np.ndarray, counts: np.ndarray) -> list[pl.Series]:
        """Write pictures; returns when each episode begins and ends in the file.

        Args:
            file: Name of the file, which may have been begun already.
            values: The pictures of all episodes.
            counts: Pictures of each episode.
        """
        if self._writer is None:
            height, width, _ = size_of(self._spec.shape)
            self._writer = Mp4Writer(
                *(self._folder / file, width, height, frame_rate(self._seconds), self._ffmpeg),
                crf=self._crf,
                group=_GROUP,
            )
        ends = self._writer.frames + np.cumsum(counts)
        for picture in _colours(values):
            self._writer.write(picture)
        return [
            pl.Series("from_timestamp", (ends - counts) * self._seconds),
            pl.Series("to_timestamp", ends * self._seconds),
        ]

    @property
    def full(self) -> bool:
        """Whether the file has the size at which the next one begins."""
        return self._writer is not None and self._writer.nbytes >= MOST_BYTES

    def flush(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def feature(self, rate: float) -> dict[str, Any]:
        """What info.json says about it."""
        # The encoder pads pictures with an odd number of rows or columns.
        height, width = (side + side % 2 for side in size_of(self._spec.shape)[:2])
        return {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": rate,
                "video.channels": 3,
                "has_audio": False,
            },
        }


def picture_stats(values: np.ndarray, counts: np.ndarray) -> Stats:
    """Statistics of the colours in each episode, from 0 to 1, of some pixels: each (E, 3)."""
    found: dict[str, list[Any]] = {}
    for end, count in zip(np.cumsum(counts), counts, strict=True):
        pictures = _colours(values[end - count : end])
        pixels = pictures.reshape(-1, 3)
        pixels = pixels[:: max(1, len(pixels) // _SAMPLES)] / 255.0
        stats = {
            "min": pixels.min(axis=0),
            "max": pixels.max(axis=0),
            "mean": pixels.mean(axis=0),
            "std": pixels.std(axis=0),
            "count": np.array([count]),
        }
        quantiles = np.quantile(pixels, list(QUANTILES.values()), axis=0)
        for name, each in (stats | dict(zip(QUANTILES, quantiles, strict=True))).items():
            found.setdefault(name, []).append(each)
    return {name: np.stack(each) for name, each in found.items()}
