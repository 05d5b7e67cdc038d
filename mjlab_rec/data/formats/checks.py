"""Checks that all readers make, because a file may contain anything."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mjlab_rec.data.formats.plain_files import opened, reason
from mjlab_rec.data.schema import DataError

_MODEST = 256 << 20  # bytes that are read in any case
_MOST_RATIO = 200  # maximum size of the content, relative to that of the file
# Errors of other libraries on damaged files.
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
def damage(what: str, path: Path | None = None) -> Iterator[None]:
    """Turn errors of other libraries on a damaged file into a DataError.

    A DataError stays as it is if it names `path`; otherwise `what` is put in front.
    """
    try:
        yield
    except DataError as error:
        if path is None or str(path) in str(error):
            raise
        raise DataError(f"{what} cannot be read. {error}") from error
    except _ERRORS as error:
        raise DataError(f"{what} cannot be read: {reason(error)}.") from error


def check_size(nbytes: int, stored: int, what: str) -> None:
    """Raise if `nbytes` of content are implausible for a file of `stored` bytes."""
    if nbytes > max(_MODEST, _MOST_RATIO * stored):
        raise DataError(
            f"{what} would have {nbytes >> 20} MB, {nbytes // max(stored, 1)} times the size of"
            " the file. It is damaged, or made to fill the memory, and is not read."
        )


def open_file(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Open a plain file for reading; raise for anything else, and for links unless `follow`."""
    return open(opened(path, follow=follow), "rb")
