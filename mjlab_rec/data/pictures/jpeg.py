"""JPEG pictures, by simplejpeg where it is installed, otherwise by Pillow.

Both use libjpeg-turbo, and decode a file to the same values. simplejpeg takes a third of the time,
and other threads of Python go on meanwhile.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.utils.extras import require

try:
    import simplejpeg as fast  # type: ignore[import-not-found]
except ImportError:
    fast = None


def load(user: str) -> None:
    """Raise if no package for JPEG is installed."""
    if fast is None:
        require("PIL.Image", "video", user)


def encode(values: np.ndarray, quality: int) -> list[bytes]:
    """Each of the values (n, *shape) of uint8 as a JPEG file."""
    pictures = np.ascontiguousarray(as_pictures(values))
    # Colours at full resolution: pictures for learning are small.
    if fast is not None:
        colours = "RGB" if pictures.shape[3] == 3 else "GRAY"
        return [fast.encode_jpeg(each, quality, colours, "444") for each in pictures]
    from PIL import Image

    files = []
    for picture in pictures:
        image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, subsampling=0)
        files.append(stream.getvalue())
    return files


def decode(files: Sequence[bytes], out: np.ndarray) -> None:
    """Write pictures to values (n, *shape); raises ValueError for other files."""
    pictures = np.empty((len(files), *size_of(out.shape[1:])), np.uint8)
    decode_one = _with_pillow if fast is None else _with_simplejpeg
    for file, picture in zip(files, pictures, strict=True):
        decode_one(file, picture)
    into_values(pictures, out)


# The size is compared before anything is decoded, because a small file may claim a huge one.


def _with_simplejpeg(file: bytes, picture: np.ndarray) -> None:
    assert fast is not None
    grey = picture.shape[2] == 1
    try:
        height, width, colours, _ = fast.decode_jpeg_header(file)
        fits = (height, width) == picture.shape[:2] and (colours == "Gray") == grey
        if fits:
            fast.decode_jpeg(file, "GRAY" if grey else "RGB", buffer=picture)
    except ValueError as error:
        raise ValueError(f"it cannot be decoded: {error}") from None
    if not fits:
        raise ValueError(f"it is a picture of {(width, height)} and {colours}")


def _with_pillow(file: bytes, picture: np.ndarray) -> None:
    from PIL import Image

    height, width, channels = picture.shape
    try:
        with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
            if image.size != (width, height) or image.mode != ("L" if channels == 1 else "RGB"):
                raise ValueError(f"it is a picture of {image.size} and {image.mode}")
            picture[:] = np.asarray(image).reshape(picture.shape)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"it cannot be decoded: {error}") from None
