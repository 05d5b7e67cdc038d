"""Plain files: read with care, replaced as a whole, or grown by whole writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mjlab_rec.data.schema import DataError


def opened(path: Path) -> int:
    """Descriptor of a file to read; a pipe or a device is refused, as it may never end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    raise DataError(f"'{path}' is not a file with contents, but a folder, pipe or device.")


def read(path: Path, most: int | None = None) -> bytes:
    """A file, or its first bytes."""
    file = opened(path)
    try:
        size = os.fstat(file).st_size
        return read_at(file, path, 0, size if most is None else min(size, most))
    finally:
        os.close(file)


def read_at(file: int, path: Path, offset: int, size: int) -> bytes:
    """A piece of a file; shorter if the file ends before."""
    pieces = []
    try:
        while size > 0 and (piece := os.pread(file, min(size, 1 << 30), offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class GrowingFile:
    """A file that is only appended to, by whole writes: what fails is taken back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o666)
            self.size = os.fstat(self._file).st_size
        except OSError as error:
            raise self._error(error) from error

    def append(self, content: bytes | memoryview) -> None:
        """Write all of it; raises DataError if that fails."""
        self.check_there()
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self.back_to(self.size)
            raise self._error(error) from error
        except BaseException:
            self.back_to(self.size)
            raise
        self.size += len(content)

    def back_to(self, size: int) -> None:
        """Forget what was written behind this size."""
        try:
            os.ftruncate(self._file, size)
        except OSError as error:
            raise self._error(error) from error
        self.size = size

    def sync(self) -> None:
        """Wait until the disk has it all."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close it; nothing is waiting to be written."""
        os.close(self._file)

    def check_there(self) -> None:
        """Raise if the file was removed or replaced by another."""
        try:
            there = os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except OSError:
            there = False
        if not there:
            raise DataError(
                f"'{self.path}' was removed or replaced while it was being written. What it held is"
                " lost; what was to be written now has no place. Start a new recording."
            )

    def _error(self, error: OSError) -> DataError:
        return DataError(
            f"Cannot write to '{self.path}': {error.strerror or error}. What was written before is"
            " whole."
        )


def replace(path: Path, content: bytes, sync: bool) -> None:
    """Put a whole file in the place of another; whoever reads sees one or the other."""
    hidden = path.with_name(f".{path.name}.tmp")
    try:
        with open(hidden, "wb") as stream:
            stream.write(content)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(hidden, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"Cannot write to '{path}': {reason}.") from error
    finally:
        hidden.unlink(missing_ok=True)


def cut(path: Path, size: int) -> None:
    """Remove what is in a file behind this size."""
    try:
        if os.stat(path).st_size > size:
            os.truncate(path, size)
    except OSError as error:
        raise DataError(f"Cannot write to '{path}': {error.strerror or error}.") from error


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows what is in a folder."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
