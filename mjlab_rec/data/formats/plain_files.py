"""Read, replace and append to plain files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mjlab_rec.data.schema import DataError


def reason(error: BaseException) -> str:
    """A short reason: the system's, or the first line of the message."""
    number = getattr(error, "errno", None)
    text = os.strerror(number) if number else str(error).partition("\n")[0]
    return text[:200].rstrip(".") or type(error).__name__


def cannot_read(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that cannot be read."""
    return DataError(f"Cannot read '{path}': {reason(error)}.")


def cannot_write(path: Path, error: BaseException) -> DataError:
    """The error for a write that failed and was undone."""
    return DataError(f"Cannot write to '{path}': {reason(error)}. Data written before can be read.")


def opened(path: Path, *, follow: bool = True) -> int:
    """Open a file for reading. Raises for pipes and devices, and for links unless `follow`."""
    try:
        if not follow and path.is_symlink():
            raise DataError(f"'{path}' is a link to another file. Links are not followed.")
        more = 0 if follow else os.O_NOFOLLOW
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | more)
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    except OSError as error:
        raise cannot_read(path, error) from error
    raise DataError(f"'{path}' is not a plain file, but a folder, pipe or device.")


def read(
    path: Path, first: int | None = None, *, most: int = 1 << 62, follow: bool = True
) -> bytes:
    """Read a file, or its first bytes; raises if it has more than `most` bytes."""
    file = opened(path, follow=follow)
    try:
        size = os.fstat(file).st_size
        if size > most:
            raise DataError(f"'{path}' has {size >> 20} MB; at most {most >> 20} MB are possible.")
        return read_at(file, path, 0, size if first is None else min(size, first))
    finally:
        os.close(file)


def read_at(file: int, path: Path, offset: int, size: int) -> bytes:
    """Read a piece of a file; shorter if the file ends before."""
    pieces = []
    try:
        while size > 0 and (piece := os.pread(file, min(size, 1 << 30), offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
    except OSError as error:
        raise cannot_read(path, error) from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class GrowingFile:
    """A file that is only appended to. A failed write is undone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o666)
            self.size = os.fstat(self._file).st_size
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(self, content: bytes | memoryview, sync: bool = False) -> None:
        """Append content, and wait for the disk if `sync`; raises DataError if that fails."""
        self.check_exists()
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if sync:
                os.fsync(self._file)
        except BaseException as error:
            self.cut_to(self.size)
            if isinstance(error, OSError):
                raise cannot_write(self.path, error) from error
            raise
        self.size += len(content)

    def cut_to(self, size: int) -> None:
        """Cut the file to this size."""
        try:
            os.ftruncate(self._file, size)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.size = size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def check_exists(self) -> None:
        """Raise if the file was removed or replaced by another."""
        try:
            exists = os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except OSError:
            exists = False
        if not exists:
            raise removed(self.path)


def removed(path: Path) -> DataError:
    """The error for a recording that disappeared while it was being written."""
    return DataError(
        f"'{path}' was removed or replaced while it was being written. Its data is lost, and"
        " nothing more can be written. Start a new recording."
    )


@contextmanager
def replacing(path: Path, sync: bool, hidden: Path | None = None) -> Iterator[Path]:
    """Replace a file atomically: write the new one to the hidden path that is returned.

    Readers see the old file or the new one. With `sync` that is also true after a loss of power.
    """
    hidden = hidden or path.with_name(f".{path.name}.tmp")
    try:
        yield hidden
        if sync:
            sync_to_disk(hidden)
        os.replace(hidden, path)
        if sync:
            sync_to_disk(path.parent)
    finally:
        hidden.unlink(missing_ok=True)


def replace(path: Path, content: bytes, sync: bool) -> None:
    """Replace a file atomically."""
    try:
        with replacing(path, sync) as hidden:
            hidden.write_bytes(content)
    except OSError as error:
        raise cannot_write(path, error) from error


def cut(path: Path, size: int) -> None:
    """Cut a file to this size, if it is larger."""
    try:
        if os.stat(path).st_size > size:
            os.truncate(path, size)
    except OSError as error:
        raise cannot_write(path, error) from error


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
