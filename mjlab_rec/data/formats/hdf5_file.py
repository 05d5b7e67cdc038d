"""Create, grow and close HDF5 files so that disk errors do not damage them.

HDF5 handles disk errors badly: a failed write is lost, or repeated when the file is closed, and
then the file claims to be longer than it is. So a file is created in memory, room for a block is
reserved before HDF5 writes, and if a write still fails, HDF5's file descriptor is redirected to
another file.
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
from mjlab_rec.data.video_folder import video_folder

_LOG = logging.getLogger(__name__)

_RECENT = 64 << 20  # bytes at the end of a file that stay in memory for readers
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Hdf5FilesWriter(Writer):
    """The base of writers of HDF5 files, which handles errors."""

    compressions = ("gzip", "lzf")

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._files: list[Path] = []
        self._failed = False
        self._power = options.durability == "power"
        self._path_lock = PathLock(
            options.path, options.if_exists, companions=lambda path: [video_folder(path)]
        )

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
            # The error that makes closing fail was raised before.
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
        """Release the path if the first file cannot be created."""
        try:
            yield
        except BaseException as error:
            self._path_lock.release()
            if isinstance(error, OSError):
                path = self.options.path
                raise DataError(f"Cannot record to '{path}': {reason(error)}.") from error
            raise

    @contextmanager
    def _filling(self, abandon: Callable[[], None]) -> Iterator[None]:
        """Abandon a file if writing fails; the next write opens another one."""
        try:
            yield
        except BaseException as error:
            self._failed = True
            abandon()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise

    def _failure(self, error: Exception) -> DataError:
        self._failed = True
        return cannot_write(self._files[-1], error)


class RawFile:
    """Operations on an open file without HDF5."""

    def __init__(self, file: h5py.File) -> None:
        self._descriptor: int = file.id.get_vfd_handle()

    def reserve(self, size: int) -> None:
        """Grow the file to this size and allocate the room; if the disk is full, nothing changes.

        It is also the fastest way to grow a file.
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
        """Whether the file was deleted."""
        return os.fstat(self._descriptor).st_nlink == 0

    def sync(self) -> None:
        """Wait until all data is on the disk."""
        os.fsync(self._descriptor)

    def write(self, values: np.ndarray, offset: int) -> None:
        """Write contiguous values."""
        content = values.reshape(-1).view(np.uint8).data
        while len(content):
            count = os.pwrite(self._descriptor, content, offset)
            content, offset = content[count:], offset + count

    def drop_cached(self) -> None:
        """Drop old data of the file from the page cache.

        Otherwise a long recording would fill the cache, and each block would need new pages, which
        can take longer than the write. The first call for some data writes it to the disk, a later
        call drops it.
        """
        if hasattr(os, "posix_fadvise"):
            end = os.fstat(self._descriptor).st_size - _RECENT
            first = max(0, end - 2 * _RECENT)
            if end > 0:
                advice = os.POSIX_FADV_DONTNEED
                os.posix_fadvise(self._descriptor, first, end - first, advice)

    def abandon(self) -> None:
        """Redirect HDF5 to another file; this one stays as if the process were killed now."""
        if hasattr(os, "memfd_create"):
            other = os.memfd_create("abandoned")
            os.dup2(other, self._descriptor, inheritable=False)
            os.close(other)


def content(
    chunks: int, fill: Callable[[h5py.File], Mapping[int, bytes] | None], least: int = 0
) -> bytes:
    """The content of a new file in which `fill` creates datasets, of up to `chunks` chunks each.

    The bytes that `fill` returns are written without HDF5, at offsets from 1024 to `least`.
    """
    memory = io.BytesIO(_empty(max(64, chunks), least))
    with h5py.File(memory, "r+", libver="earliest") as file:
        more = fill(file) or {}
    for at, values in more.items():
        memory.seek(at)
        memory.write(values)
    return memory.getvalue()


def place(path: Path, content: bytes, power: bool = False) -> h5py.File:
    """Create a file and open it for writing.

    It gets its name when it is complete, so a file of this name can always be read, with `power`
    also after a loss of power.
    """
    with replacing(path, power) as hidden:
        hidden.write_bytes(content)
    # Without HDF5's chunk cache: most values are written without HDF5, and a reader in this process
    # would get old values from the cache.
    return h5py.File(path, "r+", libver="earliest", locking=False, rdcc_nbytes=0)


def put_text(file: h5py.File | h5py.Group, name: str, text: str) -> None:
    """Write a text of any length, as a dataset; attributes are limited to 64 KB."""
    content = text.encode()
    file.create_dataset(name, data=np.frombuffer(content, f"S{len(content)}")[0])


def _empty(chunks: int, least: int) -> bytes:
    """An empty HDF5 file whose B-tree nodes have room for a number of chunks.

    It has at least `least` bytes, and HDF5 does not use the last of them.

    HDF5 can create such a file, but h5py has no option for it. The number is stored in version 1 of
    the superblock, which is four bytes longer than version 0. The header of the root group, which
    follows it, is moved to the end to make room.
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
