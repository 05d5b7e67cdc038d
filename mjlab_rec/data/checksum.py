"""The checksum of all formats: CRC-32, as in zlib, gzip and PNG."""

from __future__ import annotations

import numpy as np

try:
    from isal.isal_zlib import crc32 as crc32
except (
    ImportError
):  # isal does not exist for this processor; zlib's CRC-32 takes ten times as long.
    from zlib import crc32 as crc32


def array_crc32(values: np.ndarray) -> int:
    """The checksum of an array's values."""
    return crc32(np.ascontiguousarray(values).data)
