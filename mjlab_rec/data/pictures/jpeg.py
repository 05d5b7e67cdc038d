"""JPEG pictures, by simplejpeg: libjpeg-turbo without Python's lock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.utils.extras import require


def load(user: str) -> None:
    """Raise if simplejpeg is not installed, which `user` needs."""
    require("simplejpeg", "video", user)


def encode(values: np.ndarray, quality: int) -> list[bytes]:
    """Each of the values (n, *shape) of uint8 as a JPEG file."""
    import simplejpeg

    pictures = np.ascontiguousarray(as_pictures(values))
    colours = "RGB" if pictures.shape[3] == 3 else "GRAY"
    # Colours at full resolution: pictures for learning are small.
    return [simplejpeg.encode_jpeg(each, quality, colours, "444") for each in pictures]


def decode(files: Sequence[bytes], out: np.ndarray) -> None:
    """Write pictures to values (n, *shape); raises ValueError for other files."""
    pictures = np.empty((len(files), *size_of(out.shape[1:])), np.uint8)
    for file, picture in zip(files, pictures, strict=True):
        _decode(file, picture)
    into_values(pictures, out)


def _decode(file: bytes, picture: np.ndarray) -> None:
    import simplejpeg

    grey = picture.shape[2] == 1
    try:
        # The size is compared first, because a small file may claim a huge one.
        height, width, colours, _ = simplejpeg.decode_jpeg_header(file)
        fits = (height, width) == picture.shape[:2] and (colours == "Gray") == grey
        if fits:
            simplejpeg.decode_jpeg(file, "GRAY" if grey else "RGB", buffer=picture)
    except ValueError as error:
        raise ValueError(f"it cannot be decoded: {error}") from None
    if not fits:
        raise ValueError(f"it is a picture of {(width, height)} and {colours}")
