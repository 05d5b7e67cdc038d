"""What readers ask of files before they believe them."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mjlab_rec.data.schema import DataError

_MODEST = 256 << 20  # bytes that are read in any case
_MOST_RATIO = 200  # times that what is read may be larger than the file
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# What other libraries raise on files that are not what they say.
_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@contextlib.contextmanager
def damage(what: str) -> Iterator[None]:
    """Turn whatever a file makes other libraries raise into one DataError."""
    try:
        yield
    except _ERRORS as error:
        number = getattr(error, "errno", None)
        told = os.strerror(number) if number else str(error).partition("\n")[0]
        told = told[:200].rstrip(".") or type(error).__name__
        raise DataError(f"{what} cannot be read: {told}.") from error


def check_size(nbytes: int, stored: int, what: str) -> None:
    """Raise if so much could hardly come out of a file of `stored` bytes: it must be a bomb."""
    if nbytes > max(_MODEST, _MOST_RATIO * stored):
        raise DataError(
            f"{what} would have {nbytes >> 20} MB, {nbytes // max(stored, 1)} times as much as the"
            " file holds. It is damaged, or made to fill the memory, and is not read."
        )


def open_file(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Open a file for reading; refuse what is no plain file, and links unless `follow`."""
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
    with damage(f"'{path}'"):
        if not follow and path.is_symlink():
            raise DataError(f"'{path}' is a link to another file. Links are not followed.")
        stream = open(os.open(path, flags if follow else flags | _NOFOLLOW), "rb")
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise DataError(f"'{path}' is not a plain file.")
        return stream


def read_file(path: Path, most: int) -> bytes:
    """All of a plain file that must not exceed so many bytes."""
    with open_file(path) as stream, damage(f"'{path}'"):
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise DataError(f"'{path}' has {size >> 20} MB; at most {most >> 20} MB are possible.")
        return stream.read(size)  # read(most) would make room for all of it
