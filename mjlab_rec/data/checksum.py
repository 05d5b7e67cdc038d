"""The checksum of all formats: CRC-32, as in zlib, gzip and PNG."""

from __future__ import annotations

import functools

import numpy as np

try:
    from isal.isal_zlib import crc32 as crc32
except (
    ImportError
):  # isal does not exist for this processor; zlib's CRC-32 takes ten times as long.
    from zlib import crc32 as crc32

_MOST_LEVELS = 32  # of pieces that are joined in pairs


def array_crc32(values: np.ndarray) -> int:
    """The checksum of an array's values."""
    return crc32(np.ascontiguousarray(values).data)


def joined_crc32(checks: np.ndarray, nbytes: int) -> int:
    """The checksum of pieces of the same size one after another, given the checksum of each.

    Args:
        checks: The checksums, in order.
        nbytes: Size of a piece.
    """
    checks = checks.astype("<u4")
    for table in _tables(nbytes):  # join pairs, then pairs of pairs, ...
        if len(checks) <= 1:
            break
        if len(checks) % 2:
            checks = np.append(np.zeros(1, "<u4"), checks)  # nothing, before the first
        checks = _applied(table, checks[::2]) ^ checks[1::2]
    return int(checks[0]) if len(checks) else 0


# A checksum changes by bytes after it as bits do by a matrix. The matrix of 2n bytes is that of n
# bytes applied to itself.


@functools.lru_cache(maxsize=64)
def _tables(nbytes: int) -> list[np.ndarray]:
    """For 1, 2, 4, ... pieces: what their bytes make of the checksum of the pieces before them."""
    zeros = bytes(nbytes)
    columns = np.array([crc32(zeros, 1 << bit) ^ crc32(zeros) for bit in range(32)], "<u4")
    tables = []
    for _ in range(_MOST_LEVELS):
        table = np.zeros((4, 256), "<u4")  # for each value of each byte
        for byte in range(4):
            for bit in range(8):
                some = 1 << bit
                table[byte, some : 2 * some] = table[byte, :some] ^ columns[8 * byte + bit]
        tables.append(table.ravel())
        columns = _applied(tables[-1], columns)
    return tables


def _applied(table: np.ndarray, checks: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(checks).view(np.uint8).reshape(-1, 4)
    return np.bitwise_xor.reduce(table.take(values + np.arange(0, 1024, 256)), axis=1)
