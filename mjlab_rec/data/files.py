"""Paths of recordings: locks, existing files and numbered parts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args

from mjlab_rec.data.schema import DataError
from mjlab_rec.data.video_folder import remove_videos

IfExists = Literal["error", "overwrite", "append", "number"]

META = "meta.json"  # the file that marks a folder as a recording

# Paths that this process writes. Locks on files keep out other processes only.
_locked_paths: set[str] = set()
_guard = threading.Lock()


def part_path(path: Path, part: int) -> Path:
    """Path of a part of a run: rollout.h5, rollout.part001.h5, rollout.part002.h5, ..."""
    return path if part == 0 else path.with_name(f"{path.stem}.part{part:03d}{path.suffix}")


def parts(path: Path) -> list[Path]:
    """The parts of a run that exist, in order."""
    return [path.with_name(name) for _, name in _numbered(path)]


def part_names(path: Path) -> list[str]:
    """The names of the parts of a run that exist, in order."""
    return [name for _, name in _numbered(path)]


def following_part(path: Path, part: Path) -> Path:
    """Path of the part of a run that would follow the given one."""
    digits = part.name[len(f"{path.stem}.part") : len(part.name) - len(path.suffix)]
    return part_path(path, 1 if part.name == path.name else int(digits) + 1)


def sidecar(path: Path) -> Path:
    """The file with the description of a CSV recording: rollout.csv.json."""
    return path.with_name(f"{path.name}.json")


def index_path(path: Path) -> Path:
    """The file that describes the parts of a recording in HDF5, by its first part."""
    return path.with_name(f"{path.name}.index")


def local_path(path: str | Path) -> Path:
    """A path in the file system; ``~`` is the home folder."""
    text = os.fspath(path)
    if "\0" in text:
        raise DataError(
            f"The path {text!r} contains a NUL character, which file names cannot have."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"Cannot find the home folder of '{path}': {error}") from error


def check_kind(path: Path) -> None:
    """Raise if a path is neither a file nor a folder, but a device for example."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise DataError(f"'{path}' is a {kind}, but a recording is a file or a folder.")


def being_written(path: Path) -> bool:
    """Whether a recorder of this or another process is writing to a path."""
    if not path.name:
        return False
    # Closing a file releases all locks of this process on it, so nothing may be locked meanwhile.
    with _guard:
        if _key(path) in _locked_paths:
            return True
        try:
            descriptor = os.open(_hidden(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
        finally:
            os.close(descriptor)


def was_written(path: Path) -> bool:
    """Whether a recorder is writing to a path, or was when its process was killed."""
    return bool(path.name) and os.path.lexists(_hidden(path))


def make_folder(path: str | Path) -> None:
    """Create a folder if it does not exist; raise if no file can be written in it."""
    path = local_path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"Cannot create the folder '{path}': {reason}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataError(f"Cannot write to the folder '{path}'.")


class PathLock:
    """A lock on a path to write to, from construction until ``release``.

    Two writers never share a path, in one process or in two. The lock is on a hidden file next to
    the recording, so that readers can open the recording, even readers that lock what they read.
    The locks of a process end with it.
    """

    def __init__(
        self,
        path: str | Path,
        if_exists: IfExists,
        *,
        folder: bool = False,
        mark: str = META,
        companions: Callable[[Path], Iterable[Path]] = lambda path: (),
        can_append: bool = True,
    ) -> None:
        if not str(path):
            raise DataError("No path was given for the recording.")
        if if_exists not in get_args(IfExists):
            raise DataError(
                f"if_exists is '{if_exists}', but it must be one of: "
                f"{', '.join(get_args(IfExists))}."
            )
        self.folder = folder
        self._companions = companions  # other files that are written with the one at a path
        self._can_append = can_append
        self._mark = mark  # the file that marks a folder as a recording
        self.path = local_path(path)
        if not self.path.name:
            raise DataError(f"Cannot record to '{path}': it does not end in a name.")
        self._descriptor: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if if_exists == "number":
                self._lock_free(self.path)
            else:
                self._lock_path(self.path)
                self._apply_if_exists(if_exists)
            if folder:
                self.path.mkdir(exist_ok=True)
        except OSError as error:
            self.release()
            reason = error.strerror or error
            raise DataError(f"Cannot record to '{self.path}': {reason}.") from error
        except DataError:
            self.release()
            raise
        numbers = [] if folder else [number for number, _ in _numbered(self.path)]
        self._next = max(numbers, default=-1) + 1

    def next_part(self) -> Path:
        """Path of the next part, after those that exist."""
        self._next += 1
        return part_path(self.path, self._next - 1)

    def release(self) -> None:
        """Release the lock. May be called twice."""
        if self._descriptor is None:
            return
        hidden = _hidden(self.path)
        # Removed while still locked: a writer that gets a lock on a removed file tries again.
        hidden.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None
        with _guard:
            _locked_paths.discard(_key(self.path))

    def _lock_free(self, wanted: Path) -> None:
        """Lock the first path that neither exists nor is being written."""
        for number in itertools.count():
            self.path = wanted if number == 0 else _with_number(wanted, number, self.folder)
            if self._exists() or any(map(os.path.lexists, self._companions(self.path))):
                continue
            try:
                self._lock_path(self.path)
            except LockedError:
                continue
            if not self._exists():  # no other writer was faster
                return
            self.release()

    def _lock_path(self, path: Path) -> None:
        """Lock a path."""
        with _guard:
            if _key(path) in _locked_paths:
                raise LockedError(
                    f"'{path}' is being written by another recorder of this process. Give each"
                    " recorder a different path."
                )
            self._descriptor = _locked(path)
            _locked_paths.add(_key(path))

    def _exists(self) -> bool:
        return os.path.lexists(self.path) if self.folder else bool(parts(self.path))

    def _apply_if_exists(self, if_exists: IfExists) -> None:
        """Apply `if_exists` to an existing recording."""
        path = self.path
        if not self._exists():
            return
        for there in filter(os.path.exists, [path] if self.folder else parts(path)):
            check_kind(there)
        if self.folder != path.is_dir() and os.path.lexists(path):
            is_kind, needs = ("file", "folder") if self.folder else ("folder", "file")
            raise DataError(f"'{path}' is a {is_kind}, but this format writes a {needs}.")
        empty = self.folder and not any(path.iterdir())
        if empty:
            return
        if if_exists == "error":
            raise PathExistsError(path, _with_number(path, 1, self.folder).name, self._can_append)
        if self.folder and not (path / self._mark).is_file():
            raise DataError(
                f"The folder '{path}' is not a recording: it has no {self._mark}. It was not"
                " changed. Choose another path."
            )
        if self.folder and not os.access(path, os.W_OK | os.X_OK):
            raise DataError(f"Cannot record to '{path}': Permission denied.")
        if if_exists == "overwrite":
            self._remove()

    def _remove(self) -> None:
        if self.folder:
            shutil.rmtree(self.path)
            return
        for part in parts(self.path):
            part.unlink()
            remove_videos(part)
        index_path(self.path).unlink(missing_ok=True)
        description = sidecar(self.path)
        if _is_ours(description):
            description.unlink()


class PathExistsError(DataError):
    """The path of a recording already exists.

    Args:
        path: The path.
        free: A name that does not exist yet.
        can_append: Whether the format can append.
    """

    def __init__(self, path: Path, free: str, can_append: bool = True) -> None:
        self.path = path
        self._free = free
        self._can_append = can_append
        super().__init__(self.described("set if_exists to", repr))

    def described(self, setting: str, spelled: Callable[[str], str] = str) -> str:
        """The message, with the setting and its values as the user writes them."""
        append = f", {spelled('append')} (add to it)" if self._can_append else ""
        return (
            f"'{self.path}' already exists. Choose another path, or {setting}"
            f" {spelled('overwrite')} (replace it){append} or {spelled('number')} (use the next"
            f" free name, such as {self._free})."
        )


class LockedError(DataError):
    """Another writer has locked the path."""


def _numbered(path: Path) -> list[tuple[int, str]]:
    """The names of the parts of a run that exist, with their numbers, in order."""
    found = [(0, path.name)] * os.path.lexists(path)
    begin, suffix = f"{path.stem}.part", path.suffix
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(path.parent)
    first, last = len(begin), -len(suffix) or None
    for name in names:
        if name.startswith(begin) and name.endswith(suffix):
            digits = name[first:last]
            if digits.isdecimal():
                found.append((int(digits), name))
    return sorted(found)


def _with_number(path: Path, number: int, folder: bool) -> Path:
    stem, suffix = (path.name, "") if folder else (path.stem, path.suffix)
    return path.with_name(f"{stem}_{number}{suffix}")


def _key(path: Path) -> str:
    return os.path.realpath(path)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _locked(path: Path) -> int:
    """Lock the hidden file of a path; returns its descriptor."""
    hidden = _hidden(path)
    while True:
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Unlike with flock, children forked meanwhile do not hold the lock.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise LockedError(
                    f"'{path}' is being written by another process. Wait until it ends, or choose"
                    " another path."
                ) from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
            return descriptor  # the file system has no locks
        try:
            if os.path.samestat(os.stat(hidden), os.fstat(descriptor)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last owner removed it between the two calls


def _is_ours(path: Path) -> bool:
    try:
        return json.loads(path.read_bytes()).get("format") == "mjlab_rec"
    except (OSError, ValueError, AttributeError):
        return False
