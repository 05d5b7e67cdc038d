"""NumPy archives as files: written atomically, and checked when they are read."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mjlab_rec.data.formats.checks import check_size, damage, open_file
from mjlab_rec.data.formats.plain_files import replacing
from mjlab_rec.data.schema import DataError

_MOST_MEMBERS = 10_000
_MOST_HEADER = 1000  # bytes of an array's header
_CHUNK = 1 << 20


class Archive:
    """An archive that is open for reading, as a context manager.

    Args:
        path: The file.
        check: Whether to compare checksums.
        follow: Whether the path may be a link.
    """

    def __init__(self, path: Path, *, check: bool = True, follow: bool = False) -> None:
        self.path = path
        self._check = check
        self._stream = open_file(path, follow=follow)
        try:
            self.nbytes = os.fstat(self._stream.fileno()).st_size
            with damage(f"The NumPy archive '{path}'"):
                if _count(self._stream) > _MOST_MEMBERS:
                    raise DataError(f"'{path}' has more than {_MOST_MEMBERS} members.")
                self._zip = zipfile.ZipFile(self._stream)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._stream.close()

    def has(self, member: str) -> bool:
        """Whether there is a member of this name."""
        return member in self._zip.NameToInfo

    def content(self, member: str, size: int) -> bytes:
        """The bytes of a member; raises if it has more than `size` of them."""
        with damage(f"'{member}' in '{self.path}'"), self._opened(member, size) as stream:
            return stream.read(size)

    def array(
        self,
        member: str,
        dtype: np.dtype,
        shape: tuple[int | None, ...],
        *,
        checked: bool = False,
        most: int = 1 << 31,
    ) -> np.ndarray:
        """A member as an array of this type and shape; None is any length up to `most`.

        With `checked`, the caller compares the checksum.
        """
        what = f"'{member.removesuffix('.npy')}' in '{self.path}'"
        with damage(what):
            lengths = [most if n is None else n for n in shape]
            size = dtype.itemsize * math.prod(lengths)
            with self._opened(member, size + _MOST_HEADER, checked) as stream:
                found, fortran, kind = npy_header(stream)
                fits = len(found) == len(shape) and all(
                    n in (None, m) for n, m in zip(shape, found, strict=True)
                )
                if kind != dtype or fortran or not fits:
                    wanted = ", ".join("any" if n is None else str(n) for n in shape)
                    raise DataError(
                        f"{what} has the type {kind} and the shape {found}, not {dtype} and"
                        f" ({wanted})."
                    )
                nbytes = dtype.itemsize * math.prod(found)
                if nbytes != self._zip.getinfo(member).file_size - stream.tell():
                    raise DataError(f"{what} is longer or shorter than its header says.")
                out = np.empty(found, dtype)
                _fill(out, stream)
                return out

    def _opened(self, member: str, most: int, checked: bool = False) -> IO[bytes]:
        if not self.has(member):
            raise DataError(f"'{self.path}' is damaged: it has no '{member}'.")
        about = self._zip.getinfo(member)
        if about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"'{member}' in '{self.path}' is compressed in an unknown way.")
        if about.file_size > most:
            raise DataError(
                f"'{member}' in '{self.path}' has {about.file_size} bytes, which is more than"
                " expected from the table of episodes."
            )
        check_size(about.file_size, self.nbytes, f"'{member}' in '{self.path}'")
        stream = self._zip.open(about)
        if checked or not self._check:
            vars(stream)["_expected_crc"] = None
        return stream


def write_archive(path: Path, members: Mapping[str, Any], deflate: bool, sync: bool) -> int:
    """Write an archive atomically; returns its size.

    With `sync`, wait until it is on the disk.
    """
    kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with replacing(path, sync) as hidden:
        with zipfile.ZipFile(hidden, "w") as archive:
            for name, value in members.items():
                # Not numpy.savez, which takes names as keyword arguments and reserves some of them.
                member = zipfile.ZipInfo(name)
                member.compress_type = kind
                with archive.open(member, "w", force_zip64=True) as stream:
                    if isinstance(value, bytes):
                        stream.write(value)
                    else:
                        array = np.asarray(value, order="C")
                        np.lib.format.write_array(stream, array, allow_pickle=False)
        size = hidden.stat().st_size
    return size


def _count(stream: IO[bytes]) -> int:
    """The number of members according to the end of an archive."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 98))
    tail = stream.read(98)
    stream.seek(0)
    if tail[-22:-18] != b"PK\5\6":
        raise ValueError("its end is missing")
    if tail[-42:-38] == b"PK\6\7" and tail[:4] == b"PK\6\6":
        return struct.unpack_from("<Q", tail, 32)[0]
    return struct.unpack_from("<H", tail, len(tail) - 12)[0]


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a .npy file: the shape, whether columns come first, and the type."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream, _MOST_HEADER)
    return np.lib.format.read_array_header_2_0(stream, _MOST_HEADER)


def _fill(out: np.ndarray, stream: IO[bytes]) -> None:
    """Read an array up to the end of the member, where zipfile compares the checksum."""
    content = out.reshape(-1).view(np.uint8).data
    at = 0
    while piece := stream.read(_CHUNK):
        content[at : at + len(piece)] = piece
        at += len(piece)
    if at != len(content):
        raise ValueError("it is cut off")
