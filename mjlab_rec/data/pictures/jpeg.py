"""JPEG pictures, by Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.utils.extras import require


def load(user: str) -> None:
    """Raise if Pillow is not installed."""
    require("PIL.Image", "video", user)


def encode(values: np.ndarray, quality: int) -> list[bytes]:
    """Each of the values (n, *shape) of uint8 as a JPEG file."""
    from PIL import Image

    files = []
    for picture in np.ascontiguousarray(as_pictures(values)):
        image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
        stream = io.BytesIO()
        # Colours at full resolution: pictures for learning are small.
        image.save(stream, "JPEG", quality=quality, subsampling=0)
        files.append(stream.getvalue())
    return files


def decode(files: Sequence[bytes], out: np.ndarray) -> None:
    """Write pictures to values (n, *shape); raises ValueError for other files."""
    from PIL import Image

    height, width, channels = size_of(out.shape[1:])
    pictures = np.empty((len(files), height, width, channels), np.uint8)
    for file, picture in zip(files, pictures, strict=True):
        try:
            with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
                # Before anything is decoded, because a small file may claim a huge size.
                if image.size != (width, height) or image.mode != ("L" if channels == 1 else "RGB"):
                    raise ValueError(f"it is a picture of {image.size} and {image.mode}")
                picture[:] = np.asarray(image).reshape(picture.shape)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"it cannot be decoded: {error}") from None
    into_values(pictures, out)
