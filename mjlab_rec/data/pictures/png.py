"""PNG pictures, losslessly and fast: with a fast deflate, and filters only where they help."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.pictures.codec import as_pictures, into_values, size_of
from mjlab_rec.data.pictures.deflate import deflated, inflated

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, three methods
_LENGTH = struct.Struct(">I")
_COLOURS = {1: 0, 3: 2, 4: 6}  # colour types by number of channels
_END = _LENGTH.pack(0) + b"IEND" + _LENGTH.pack(crc32(b"IEND"))
_NONE, _SUB, _UP = range(3)  # filters
_WORTH = 0.95  # size that a filter must reach, as it costs time


def best_filter(samples: Sequence[np.ndarray]) -> int:
    """The filter that makes pictures like these, each of one or two bytes, smallest."""
    sizes = dict.fromkeys((_NONE, _SUB, _UP), 0)
    for value in samples:
        lines, pixel = _lines(value[None]), _pixel(value[None])
        for kind in sizes:
            sizes[kind] += len(deflated(_filtered(lines, kind, pixel)))
    best = min(sizes, key=lambda kind: sizes[kind])
    return best if sizes[best] <= _WORTH * sizes[_NONE] else _NONE


def encode(values: np.ndarray, kind: int) -> list[bytes]:
    """Each of the values (n, *shape), of one or two bytes, as a PNG file with this filter."""
    height, width, channels = size_of(values.shape[1:])
    start = _SIGNATURE + _chunk(
        b"IHDR",
        _HEADER.pack(width, height, 8 * values.itemsize, _COLOURS[channels], 0, 0, 0),
    )
    filtered = _filtered(_lines(values), kind, _pixel(values))
    return [start + _chunk(b"IDAT", deflated(picture)) + _END for picture in filtered]


def decode(files: Sequence[bytes], out: np.ndarray) -> None:
    """Write pictures from ``encode`` to values (n, *shape); raises ValueError for other files."""
    height, width, channels = size_of(out.shape[1:])
    pixel = _pixel(out)
    expected = _HEADER.pack(width, height, 8 * out.itemsize, _COLOURS[channels], 0, 0, 0)
    lines = np.empty((len(files), height, 1 + width * pixel), np.uint8)
    for file, picture in zip(files, lines, strict=True):
        inflated(_data(file, expected), picture)
    if (lines[:, :, 0] != lines[:, :1, 0]).any():
        raise ValueError("it has filters that mjlab_rec does not use")
    for kind in np.unique(lines[:, 0, 0]).tolist():
        mine = np.flatnonzero(lines[:, 0, 0] == kind)
        if len(mine) == len(lines):
            _unfilter(lines[:, :, 1:], kind, pixel)
        else:
            some = lines[mine]
            _unfilter(some[:, :, 1:], kind, pixel)
            lines[mine] = some
    values = lines[:, :, 1:]
    if out.itemsize == 2:
        values = np.ascontiguousarray(values).view(">u2").astype(np.uint16).view(out.dtype)
    into_values(values.reshape(len(files), height, width, channels), out)


def _pixel(values: np.ndarray) -> int:
    """Bytes of a pixel."""
    return size_of(values.shape[1:])[2] * values.itemsize


def _lines(values: np.ndarray) -> np.ndarray:
    """The bytes of values as lines (n, height, bytes of a line)."""
    pictures = as_pictures(values)
    if values.itemsize == 2:
        pictures = pictures.view(np.uint16).astype(">u2")
    pictures = np.ascontiguousarray(pictures)
    return pictures.view(np.uint8).reshape(*pictures.shape[:2], -1)


def _filtered(lines: np.ndarray, kind: int, pixel: int) -> np.ndarray:
    """Lines with the number of a filter before each, and filtered by it."""
    out = np.empty((*lines.shape[:2], 1 + lines.shape[2]), np.uint8)
    out[:, :, 0] = kind
    out[:, :, 1:] = lines
    if kind == _SUB:
        out[:, :, 1 + pixel :] -= lines[:, :, :-pixel]
    elif kind == _UP:
        out[:, 1:, 1:] -= lines[:, :-1]
    return out


def _unfilter(lines: np.ndarray, kind: int, pixel: int) -> None:
    """Undo the filter of the lines of pictures (n, height, bytes of a line), in place."""
    if kind > _UP:
        raise ValueError("it has filters that mjlab_rec does not use")
    if kind == _SUB:
        pixels = lines.reshape(*lines.shape[:2], -1, pixel)
        np.cumsum(pixels, axis=2, dtype=np.uint8, out=pixels)
    elif kind == _UP:
        for at in range(1, lines.shape[1]):  # Of many pictures: cumsum takes longer.
            lines[:, at] += lines[:, at - 1]


def _chunk(name: bytes, data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + name + data + _LENGTH.pack(crc32(data, crc32(name)))


def _data(file: bytes, header: bytes) -> memoryview:
    """The compressed data of a file with this header and nothing else."""
    start = len(_SIGNATURE) + 8 + len(header) + 4
    if file[:8] != _SIGNATURE or file[12:16] != b"IHDR" or file[16 : start - 4] != header:
        raise ValueError("it is no PNG of the size and type of the channel")
    size = int.from_bytes(file[start : start + 4], "big")
    if file[start + 4 : start + 8] != b"IDAT" or len(file) != start + 12 + size + len(_END):
        raise ValueError("it has chunks that mjlab_rec does not write")
    return memoryview(file)[start + 8 : start + 8 + size]
