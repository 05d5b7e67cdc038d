"""What readers ask of files before they believe them."""

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

_MODEST = 256 << 20  # bytes that are always read
_MOST_RATIO = 200  # times that what is read may be larger than the file
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
def damage(what: str, path: Path | None = None) -> Iterator[None]:
    """Turn what a file makes other libraries raise into one DataError.

    A DataError passes; if it does not name `path`, with `what` in front.
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
    """Raise if a file of `stored` bytes can hardly hold this many: it must be a bomb."""
    if nbytes > max(_MODEST, _MOST_RATIO * stored):
        raise DataError(
            f"{what} would have {nbytes >> 20} MB, {nbytes // max(stored, 1)} times as much as the"
            " file holds. It is damaged, or made to fill the memory, and is not read."
        )


def open_file(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Open a file for reading; refuse what is no plain file, and links unless `follow`."""
    return open(opened(path, follow=follow), "rb")
