"""Consecutive pictures as an mp4 file that every player plays, and back.

Unlike the streams of ``h264``, these have colours at half the resolution, because many players
support nothing else. So pictures change more.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mjlab_rec.data.mp4 import Mp4Writer
from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.data.pictures.h264 import QUIET, run
from mjlab_rec.data.schema import DataError

LEAST_BYTES = 16  # of a picture in a file, which has an entry for each in its tables
_GROUP = 10  # pictures that a program decodes at most to show one


def write(path: Path, clips: Sequence[np.ndarray], crf: int, rate: Fraction, ffmpeg: str) -> None:
    """Write the pictures of clips, each (n, *shape) of uint8, one after another to a new file.

    Args:
        path: The file.
        clips: The pictures, at least one.
        crf: Quality, from 0 (best) to 51 (worst).
        rate: Pictures per second.
        ffmpeg: Path of the program.
    """
    height, width, _ = size_of(clips[0].shape[1:])
    rows, columns = _even(height), _even(width)
    writer = Mp4Writer(path, columns, rows, rate, ffmpeg, crf=crf, group=_GROUP)
    image = np.empty((rows, columns, 3), np.uint8)
    try:
        for clip in clips:
            for picture in as_pictures(clip):
                image[:height, :width] = picture  # Grey becomes three equal colours.
                # A black line would change the colours next to it.
                image[height:, :width] = image[height - 1 : height, :width]
                image[:, width:] = image[:, width - 1 : width]
                writer.write(image)
    finally:
        writer.close()


def decode(content: bytes, out: np.ndarray, ffmpeg: str) -> None:
    """Write the pictures of a file to values (n, *shape).

    Raises ValueError if the file has another number of pictures, or smaller ones.
    """
    height, width, channels = size_of(out.shape[1:])
    rows, columns = _even(height), _even(width)
    size, count = rows * columns * 3, len(out)
    # To crop fails if the pictures are smaller.
    filters = f"crop={columns}:{rows}:0:0,scale=in_color_matrix=bt601:in_range=tv"
    command = [
        *(ffmpeg, *QUIET, "-threads", "1", "-max_pixels", str(max(rows * columns, 1 << 14))),
        # Only this decoder and this container, as the file may contain anything. A file, not a
        # pipe, because it begins with what is at its end.
        *("-c:v", "h264", "-noautorotate", "-f", "mp4", "-i", "file:/dev/stdin"),
        # One more than there should be, because it must not be there.
        *("-map", "0:v:0", "-vf", filters, "-fps_mode", "passthrough"),
        *("-frames:v", str(count + 1), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"),
    ]
    try:
        found = run(command, [np.frombuffer(content, np.uint8)], (count + 1) * size)
    except DataError as error:
        raise ValueError(str(error)) from None
    if len(found) != count * size:
        raise ValueError(f"it gives {len(found) / size:g} pictures instead of {count}")
    pictures = np.frombuffer(found, np.uint8).reshape(count, rows, columns, 3)
    into_values(pictures[:, :height, :width, :channels], out)


def _even(side: int) -> int:
    return side + side % 2
