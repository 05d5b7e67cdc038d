"""Pictures of a LeRobot dataset: an mp4 file for each file of rows, and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.export.lerobot_stats import QUANTILES, Stats
from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg, frame_rate
from mjlab_rec.data.schema import ChannelSpec

MOST_BYTES = 200_000_000  # of a file, which is LeRobot's limit
_SAMPLES = 100_000  # pixels of an episode that count in its statistics
_LEAST_SIDE = 8  # pixels, of what is taken for a picture
_CHANNELS = (1, 3)
_GROUP = 10  # pictures that are decoded at most to read one


def is_picture(spec: ChannelSpec) -> bool:
    """Whether the values of a channel are pictures: grey or colours, on the first or last axis."""
    if spec.dtype != np.uint8 or len(spec.shape) != 3:
        return False
    first, last = spec.shape[1:], spec.shape[:-1]
    return (spec.shape[-1] in _CHANNELS and min(last) >= _LEAST_SIDE) or (
        spec.shape[0] in _CHANNELS and min(first) >= _LEAST_SIDE
    )


def as_colours(values: np.ndarray) -> np.ndarray:
    """Pictures (n, ...) as (n, height, width, 3)."""
    if values.shape[-1] not in _CHANNELS:
        values = np.moveaxis(values, 1, -1)
    return values if values.shape[-1] == 3 else np.repeat(values, 3, axis=-1)


def size_of(spec: ChannelSpec) -> tuple[int, int]:
    """Height and width of the pictures of a channel."""
    height, width = spec.shape[:-1] if spec.shape[-1] in _CHANNELS else spec.shape[1:]
    return height, width


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
            height, width = size_of(self._spec)
            self._writer = Mp4Writer(
                *(self._folder / file, width, height, frame_rate(self._seconds), self._ffmpeg),
                crf=self._crf,
                group=_GROUP,
            )
        ends = self._writer.frames + np.cumsum(counts)
        for picture in as_colours(values):
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
        height, width = (side + side % 2 for side in size_of(self._spec))
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
        pictures = as_colours(values[end - count : end])
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
