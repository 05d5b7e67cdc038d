"""The file below a recording in HDF5: how it begins, gets its room, and is left when it fails.

HDF5 does not take errors of the disk well: a write that failed is forgotten or tried again when the
file is closed, after which the file says that it is longer than it is. So a file begins as bytes in
memory, room for a block is reserved before HDF5 hears of it, and if something still
fails, HDF5 goes on with another file.
"""

from __future__ import annotations

import abc
import errno
import io
import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from mjlab_rec.data.files import PathLock
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.plain_files import cannot_write, reason, replacing
from mjlab_rec.data.schema import DataError, RunInfo

_LOG = logging.getLogger(__name__)

_RECENT = 64 << 20  # bytes at the end of a file that stay in memory for those who read it now
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Hdf5FilesWriter(Writer):
    """A writer of HDF5 files, which may fail."""

    compressions = ("gzip", "lzf")

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._files: list[Path] = []
        self._failed = False
        self._power = options.durability == "power"
        self._path_lock = PathLock(options.path, options.if_exists)

    @property
    def files(self) -> list[Path]:
        return list(self._files)

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self._files if file.exists())

    def close(self) -> None:
        try:
            self._finish()
        except (OSError, RuntimeError) as error:
            # What failed before is known already, and that is why closing fails.
            if not self._failed:
                raise self._failure(error) from error
            _LOG.warning("Could not finish '%s': %s.", self._files[-1], reason(error))
        finally:
            self._path_lock.release()

    @abc.abstractmethod
    def _finish(self) -> None:
        """Finish the last file, if there is one."""

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        """Give up the path if the first file cannot be made."""
        try:
            yield
        except BaseException as error:
            self._path_lock.release()
            if isinstance(error, OSError):
                path = self.options.path
                raise DataError(f"Cannot record to '{path}': {reason(error)}.") from error
            raise

    @contextmanager
    def _filling(self, leave: Callable[[], None]) -> Iterator[None]:
        """Leave a file as it is if it cannot be written to; the next write gets another."""
        try:
            yield
        except BaseException as error:
            self._failed = True
            leave()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise

    def _failure(self, error: Exception) -> DataError:
        self._failed = True
        return cannot_write(self._files[-1], error)


class Disk:
    """What is done to an open file without HDF5."""

    def __init__(self, file: h5py.File) -> None:
        self._descriptor: int = file.id.get_vfd_handle()

    def reserve(self, size: int) -> None:
        """Make the file that long, and make sure of the room. If there is none, nothing changes.

        It is also the fastest way for a file to grow.
        """
        before = os.fstat(self._descriptor).st_size
        if size <= before:
            return
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, before, size - before)
                return
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                os.ftruncate(self._descriptor, before)
                raise
        os.ftruncate(self._descriptor, size)

    @property
    def deleted(self) -> bool:
        """Whether the file has no name any more, so that what is written to it is lost."""
        return os.fstat(self._descriptor).st_nlink == 0

    def sync(self) -> None:
        """Wait until what was written would survive a loss of power."""
        os.fsync(self._descriptor)

    def write(self, values: np.ndarray, offset: int) -> None:
        """Write contiguous values."""
        content = values.reshape(-1).view(np.uint8).data
        while len(content):
            count = os.pwrite(self._descriptor, content, offset)
            content, offset = content[count:], offset + count

    def forget_old(self) -> None:
        """Let go of memory that holds what was written long ago.

        The system keeps what is written in memory until it needs that for something else. A long
        recording would so push everything else out, and each block would take new memory, which
        may cost more than the write itself. What is not on the disk yet is put there by the first
        call and let go by a later one.
        """
        if hasattr(os, "posix_fadvise"):
            end = os.fstat(self._descriptor).st_size - _RECENT
            first = max(0, end - 2 * _RECENT)
            if end > 0:
                advice = os.POSIX_FADV_DONTNEED
                os.posix_fadvise(self._descriptor, first, end - first, advice)

    def leave(self) -> None:
        """Let HDF5 go on without the file, which stays as if the process were killed now."""
        if hasattr(os, "memfd_create"):
            other = os.memfd_create("left")
            os.dup2(other, self._descriptor, inheritable=False)
            os.close(other)


def content(
    chunks: int, fill: Callable[[h5py.File], Mapping[int, bytes] | None], least: int = 0
) -> bytes:
    """What is in a new file that `fill` makes datasets in, of up to that many chunks each.

    What `fill` returns is written past HDF5 to places below `least`, from byte 1024 on.
    """
    memory = io.BytesIO(_empty(max(64, chunks), least))
    with h5py.File(memory, "r+", libver="earliest") as file:
        more = fill(file) or {}
    for at, values in more.items():
        memory.seek(at)
        memory.write(values)
    return memory.getvalue()


def place(path: Path, content: bytes, power: bool = False) -> h5py.File:
    """Make a new file and open it for writing.

    It gets its name when it is complete: what bears the name can always be read. With `power` that
    is also true after a loss of power.
    """
    with replacing(path, power) as hidden:
        hidden.write_bytes(content)
    # Without HDF5's cache of chunks: most values are written past it, and a reader in this process
    # would see the old ones in it.
    return h5py.File(path, "r+", libver="earliest", locking=False, rdcc_nbytes=0)


def put_text(file: h5py.File | h5py.Group, name: str, text: str) -> None:
    """Write a text of any length; an attribute must not exceed 64 KB."""
    content = text.encode()
    file.create_dataset(name, data=np.frombuffer(content, f"S{len(content)}")[0])


def _empty(chunks: int, least: int) -> bytes:
    """An empty HDF5 file in which a B-tree node has room for a number of chunks.

    It has at least `least` bytes, the last of which HDF5 leaves alone.

    HDF5 can make one, but h5py cannot ask for it. The number stands in version 1 of the superblock,
    which has four bytes more than version 0. The header of the root group, which lies behind it,
    makes room for them by moving to the end.
    """
    memory = io.BytesIO()
    h5py.File(memory, "w", libver="earliest").close()
    old = memory.getvalue()
    size, moved = 96, 40  # bytes of the superblock and of the root group's header
    base, free, end, driver, name, header, *_ = struct.unpack_from("<6Q", old, 24)
    if old[8] != 0 or base != 0 or header != size or end != len(old):
        raise DataError(
            "This version of HDF5 writes empty files in an unknown way. Install another h5py."
        )
    filler = bytes(max(0, least - end - moved))
    addresses = struct.pack("<6Q", base, free, end + moved + len(filler), driver, name, end)
    half = -(-chunks // 2)
    superblock = (
        old[:8] + b"\1" + old[9:24] + struct.pack("<2H", half, 0) + addresses + old[72:size]
    )
    return superblock + old[len(superblock) :] + old[header : header + moved] + filler
