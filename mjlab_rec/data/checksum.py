"""The checksum of all recordings: CRC-32 as zlib, gzip and PNG have it."""

from __future__ import annotations

import numpy as np

try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # There is no isal for this processor: zlib's takes ten times as long.
    from zlib import crc32 as crc32


def array_crc32(values: np.ndarray) -> int:
    """The checksum of an array's values."""
    return crc32(np.ascontiguousarray(values).data)
