"""Write pictures as PNG files, with only numpy and zlib."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB_8_BIT = bytes([8, 2, 0, 0, 0])


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8 (height, width, 3); a file of that name is replaced."""
    height, width, _ = image.shape
    # Each line begins with the number of its filter: 1, the difference to the pixel on the left.
    lines = image.astype(np.uint8).reshape(height, width, 3)
    left = np.zeros_like(lines)
    left[:, 1:] = lines[:, :-1]
    filtered = np.empty((height, 1 + 3 * width), np.uint8)
    filtered[:, 0] = 1
    filtered[:, 1:] = (lines - left).reshape(height, -1)
    path.write_bytes(
        _SIGNATURE
        + _chunk(b"IHDR", struct.pack(">II", width, height) + _RGB_8_BIT)
        + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
