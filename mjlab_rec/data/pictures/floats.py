"""Float pictures such as depth, without loss: differences of neighbours, compressed byte by byte.

Neighbours of a smooth surface differ little, also as the 32-bit numbers that floats are stored as.
So the higher bytes of their differences are mostly 0. That is half as large as compressed floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.data.pictures.deflate import deflated, inflated


def encode(values: np.ndarray) -> list[bytes]:
    """Each of the values (n, *shape) of float32 as compressed bytes."""
    bits = np.ascontiguousarray(as_pictures(values)).view("<u4")
    steps = bits.copy()
    steps[:, 1:] -= bits[:, :-1]
    down = steps.copy()
    steps[:, :, 1:] -= down[:, :, :-1]
    # The sign becomes the lowest bit, so that small negative numbers have zeros, too.
    folded = (steps << 1) ^ (steps.view("<i4") >> 31).view("<u4")
    planes = np.moveaxis(folded.view(np.uint8).reshape(*folded.shape, 4), -1, 1)
    return [deflated(picture) for picture in np.ascontiguousarray(planes)]


def decode(contents: Sequence[bytes], out: np.ndarray) -> None:
    """Write pictures to values (n, *shape) of float32; raises ValueError for other bytes."""
    height, width, channels = size_of(out.shape[1:])
    planes = np.empty((len(contents), 4, height, width, channels), np.uint8)
    for content, picture in zip(contents, planes, strict=True):
        inflated(content, picture)
    folded = np.ascontiguousarray(np.moveaxis(planes, 1, -1)).view("<u4")[..., 0]
    steps = (folded >> 1) ^ (0 - (folded & 1))
    np.cumsum(steps, axis=1, dtype=np.uint32, out=steps)
    np.cumsum(steps, axis=2, dtype=np.uint32, out=steps)
    into_values(steps.view(np.float32), out)
