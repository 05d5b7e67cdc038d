"""Checks of HDF5 objects, because a file may contain anything."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py
import h5py.h5l
import numpy as np

from mjlab_rec.data.formats.checks import check_size
from mjlab_rec.data.schema import DataError

_SMALL_CHUNK = 64 << 20  # bytes of a chunk that are read in any case
_CERTAIN = 1 << 20  # bytes that a chunk may be too long
_DEFLATE_RATIO = 1032  # its maximum compression ratio
_LZF = 32000
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_NBIT,
    h5py.h5z.FILTER_SCALEOFFSET,
    _LZF,
}


def find(group: Any, path: str) -> Any:
    """The object at a path; raises for links.

    Like the next two functions it raises ValueError, and ``damage`` adds the file.
    """
    for key in path.split("/"):
        if not isinstance(group, h5py.Group):
            raise ValueError(f"it has no '{path}'")
        try:
            link = group.id.links.get_info(key.encode())
        except (KeyError, RuntimeError):  # The second is that of groups with a newer layout.
            raise ValueError(f"it has no '{path}'") from None
        if link.type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"'{path}' is a link. Links are not followed")
        group = group[key]
    return group


def find_group(group: Any, path: str) -> h5py.Group:
    """The group at a path."""
    item = find(group, path)
    if not isinstance(item, h5py.Group):
        raise ValueError(f"'{path}' is not a group")
    return item


def attribute(item: Any, name: str) -> Any:
    """An attribute of an object: a number, flag or short text; None if there is none."""
    if name not in item.attrs:
        return None
    about = item.attrs.get_id(name)
    text = about.dtype.kind == "S" or h5py.check_string_dtype(about.dtype) is not None
    if about.shape != () or not (text or about.dtype.kind in "biuf"):
        raise ValueError(f"its attribute '{name}' is neither a number nor a text")
    value = item.attrs[name]
    return value.item() if isinstance(value, np.generic) else value


def read_values(
    item: Any, dtype: np.dtype, shape: tuple[int, ...], file_size: int, what: str
) -> np.ndarray:
    """Read a dataset; raise unless it has this type and shape, and its data is in the file."""
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"{what} is not a dataset.")
    if item.dtype != dtype or item.shape != shape:
        raise DataError(
            f"{what} has the type {item.dtype} and the shape {item.shape}, not {dtype} and {shape}."
        )
    nbytes = math.prod(shape) * dtype.itemsize
    plist = item.id.get_create_plist()
    layout = plist.get_layout()
    if plist.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise DataError(f"{what} is stored in another file. Links are not followed.")
    if item.id.get_storage_size() > file_size:
        raise DataError(f"{what} is cut off.")
    check_size(nbytes, file_size, what)
    if layout == h5py.h5d.CHUNKED:
        _check_chunks(item, plist, nbytes, what)
    return np.asarray(item[()])


def _check_chunks(item: Any, plist: Any, nbytes: int, what: str) -> None:
    """Raise for chunks that would decompress to much more than their size."""
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    if not set(filters) <= _FILTERS:
        raise DataError(f"{what} is compressed in an unknown way.")
    chunk = math.prod(item.chunks) * item.dtype.itemsize
    if chunk > max(_SMALL_CHUNK, 2 * nbytes):
        raise DataError(f"{what} has chunks that are larger than the dataset.")
    if not filters:
        return
    deflate = h5py.h5z.FILTER_DEFLATE
    place = filters.index(deflate) if deflate in filters else -1
    if filters.count(deflate) > 1 or set(filters[place + 1 :]) & {deflate, _LZF} and place >= 0:
        raise DataError(f"{what} is compressed twice.")
    stored = []
    item.id.chunk_iter(stored.append)
    for about in stored:
        if about.size > 2 * chunk + _CERTAIN:
            raise DataError(f"{what} has a chunk of {about.size} bytes instead of {chunk}.")
        if place < 0 or about.filter_mask & 1 << place:
            continue
        if about.size * _DEFLATE_RATIO > chunk + _SMALL_CHUNK:
            _, raw = item.id.read_direct_chunk(about.chunk_offset)
            unpack = zlib.decompressobj()
            unpack.decompress(raw, chunk + _CERTAIN)
            if not unpack.eof and unpack.unconsumed_tail:
                raise DataError(f"{what} has a chunk that decompresses to more than {chunk} bytes.")
