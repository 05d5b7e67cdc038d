"""The path of a result: written elsewhere, and put in its place when it is complete."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from mjlab_rec.data.files import PathExistsError, check_kind, local_path, parts
from mjlab_rec.data.formats.plain_files import reason
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.video_folder import other_files, video_folder

IfExists = Literal["error", "overwrite", "number"]


@contextmanager
def placed(
    path: str | Path,
    if_exists: IfExists,
    marks: tuple[str, ...] = (),
    source: Path | Iterable[Path] | None = None,
) -> Iterator[tuple[Path, Path]]:
    """Yield a path to write to, and the one where what is written there will be.

    It appears there only if no error occurs, and only then what it replaces is removed.

    Args:
        path: Where the result should be: a file, a folder, or a file with others next to it.
        if_exists: What to do if something exists there.
        marks: Files in a folder of which one must exist for the folder to be overwritten.
        source: What is read, which must not be overwritten.
    """
    target = check_target(path, if_exists, marks, source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise DataError(f"Cannot write to '{target}': {reason(error)}.") from error
    try:
        try:
            yield staging / target.name, target
            _check(target, if_exists, marks, source, staging / target.name)
            _move(staging, target)
        except OSError as error:
            raise DataError(f"Cannot write '{target}': {reason(error)}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(
    path: str | Path,
    if_exists: IfExists,
    marks: tuple[str, ...] = (),
    source: Path | Iterable[Path] | None = None,
) -> Path:
    """The path to which ``placed`` would write; raises if it cannot."""
    if if_exists not in get_args(IfExists):
        raise DataError(
            f"if_exists is '{if_exists}', but it must be one of: {', '.join(get_args(IfExists))}."
        )
    if not str(path):
        raise DataError("No path was given for the result.")
    wanted = local_path(path)
    if not wanted.name:
        raise DataError(f"Cannot write to '{path}': it does not end in a name.")
    target = wanted
    if if_exists == "number":
        for number in itertools.count(1):
            if not _exists(target):
                break
            target = _numbered(wanted, number)
    _check(target, if_exists, marks, source)
    return target


def _move(staging: Path, target: Path) -> None:
    """Move everything from a folder next to its target, and remove what was there."""
    old = staging / "replaced"
    old.mkdir()
    names = sorted(name for name in os.listdir(staging) if name != old.name)
    # The file that others belong to comes last, so that it is never there without them.
    names.sort(key=lambda name: name == target.name)
    for path in _there(target):
        os.replace(path, old / path.name)
    for name in names:
        os.replace(staging / name, target.parent / name)


def _there(target: Path) -> list[Path]:
    """What would be replaced: a file with its parts and the files next to it, or a folder."""
    if target.is_dir():
        return [target]
    found = parts(target)
    found += filter(os.path.lexists, map(video_folder, dict.fromkeys([target, *found])))
    if target.suffix.lower() == ".csv":
        from mjlab_rec.data.formats.csv_files import companions

        found += [each for each in companions(target) if os.path.lexists(each)]
    return found


def _exists(path: Path) -> bool:
    return bool(_there(path)) and not (path.is_dir() and not any(path.iterdir()))


def _check(
    target: Path,
    if_exists: IfExists,
    marks: tuple[str, ...],
    source: Path | Iterable[Path] | None,
    written: Path | None = None,
) -> None:
    """Raise if something exists that must not be replaced, by what was written if that is known."""
    if not _exists(target):
        return
    if if_exists != "overwrite":
        raise PathExistsError(target, _numbered(target, 1).name, can_append=False)
    check_kind(target)
    sources = [source] if isinstance(source, Path) else source or ()
    read = {os.path.realpath(file) for each in sources for file in (each, *parts(each))}
    if read & {os.path.realpath(each) for each in _there(target)}:
        raise DataError(
            f"'{target}' is read, so it cannot be written at once. Choose another path."
        )
    for part in (target, *parts(target)):
        if others := other_files(part):
            raise DataError(
                f"The folder '{video_folder(part)}' is not replaced: it has other files than videos"
                f" of a recording, such as '{others[0].name}'. Move them, or choose another path."
            )
    folder = bool(marks) if written is None else written.is_dir()
    if target.is_dir() != folder and (target.is_dir() or written is not None):
        there, needs = ("file", "folder") if folder else ("folder", "file")
        raise DataError(f"'{target}' is a {there}, but this format writes a {needs}.")
    if target.is_dir() and not any((target / mark).is_file() for mark in marks):
        raise DataError(
            f"The folder '{target}' is not replaced: it has no {' or '.join(marks)}, so it is"
            " something else. Choose another path."
        )


def _numbered(path: Path, number: int) -> Path:
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    return path.with_name(f"{stem}_{number}{suffix}")
