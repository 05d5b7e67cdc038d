"""Find recordings: at a path, by a pattern, or in a folder with the runs of an experiment."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mjlab_rec.data.files import META, local_path, parts, sidecar
from mjlab_rec.data.formats.registry import Format, formats, known_formats, recognise
from mjlab_rec.data.schema import ROW_COLUMNS, DataError
from mjlab_rec.data.workers import PLAN, WORKER
from mjlab_rec.utils.string import nearest

Source = str | Path
_MOST_ENTRIES = 5_000_000  # of a folder that is searched
_MOST_NAMED = 8
_PART = re.compile(r"(.+)\.part\d+(\.[^.]+)")


class NoMatchError(DataError):
    """A pattern matches no recording."""


@dataclass
class Found:
    """What a path, a pattern or a list means."""

    paths: list[Path]
    """The recordings."""
    one: bool = False
    """Whether it is the path of a single recording, or of nothing at all."""
    workers: dict[Path, None] = field(default_factory=dict)
    """Folders with a worker.json, also those without a recording, in the order of their names."""
    collections: dict[Path, None] = field(default_factory=dict)
    """Folders with a collect.json, also those without a shard."""


def find(source: Source | Sequence[Source]) -> Found:
    """Find the recordings that a source means; see ``find_recordings``."""
    if isinstance(source, str | os.PathLike):
        found = _meant(local_path(source))
        if found.one:
            return found
        sources = [found]
    else:
        sources = [_meant(local_path(each)) for each in source]
    paths: dict[str, Path] = {}
    workers: dict[Path, None] = {}
    collections: dict[Path, None] = {}
    for found in sources:
        workers |= found.workers
        collections |= found.collections
        for path in found.paths:
            paths.setdefault(os.path.realpath(path), path)
    return Found(list(paths.values()), workers=workers, collections=collections)


def find_recordings(source: Source | Sequence[Source]) -> list[Path]:
    """The recordings that a path, a pattern such as ``runs/*/rollouts.h5`` or a list of them means.

    Their order is that of the list; what a pattern or a folder means is in numeric order: part-2
    comes before part-10. A recording that is meant twice is listed once.
    """
    return find(source).paths


def numeric_order(path: Path) -> list[Any]:
    """A key that sorts paths by the numbers in their names: run.h5, run-2.h5, run-10.h5."""
    return [(_pieces(stem), suffix) for stem, suffix in map(os.path.splitext, path.parts)]


def _pieces(name: str) -> tuple[tuple[int, int | str], ...]:
    texts = re.split(r"([0-9]+)", name)
    return tuple((0, int(t)) if t[0] in "0123456789" else (1, t) for t in texts if t)


def format_of(path: Path) -> Format:
    """The format of the recording at a path."""
    if path.is_dir():
        if format := recognise([path]):
            return format
        raise DataError(f"The folder '{path}' is not a recording. {_there(path)} {known_formats()}")
    files = parts(path)
    if not files:
        raise DataError(f"There is no recording at '{path}'. {_there(path.parent, path)}")
    if format := recognise(files):
        return format
    called = [format.name for format in formats() if format.matches_name(path)]
    if called:
        raise DataError(
            f"'{path}' has the suffix of {' or '.join(called)} files, but its content is"
            f" something else, or nothing was written to it. {known_formats()}"
        )
    raise DataError(f"'{path}' is not a recording. {known_formats()}")


def _meant(path: Path) -> Found:
    if path.is_dir():
        if recognise([path]) is not None:
            return Found([path], one=True)
        found = _in_folder(path)
        if not (found.paths or found.workers or found.collections):
            return Found([path], one=True)
        _check_formats(found.paths, f"The folder '{path}' is not a recording. It contains")
        return found
    if os.path.lexists(path) or parts(path) or not glob.has_magic(str(path)):
        return Found([path], one=True)
    paths: list[Path] = []
    workers: dict[Path, None] = {}
    collections: dict[Path, None] = {}
    for match in map(Path, glob.glob(str(path), recursive=True)):
        if match.is_dir() and recognise([match]) is None:
            inside = _in_folder(match)
            paths += inside.paths
            workers |= inside.workers
            collections |= inside.collections
        elif match.is_dir() or _may_be_recording(match):
            paths.append(_first_part(match))
    if not paths:
        raise NoMatchError(f"No recording matches '{path}'. {known_formats()}")
    _check_formats(paths, f"'{path}' matches")
    paths = sorted(dict.fromkeys(paths), key=numeric_order)
    return Found(paths, workers=workers, collections=collections)


def _check_formats(found: Sequence[Path], what: str) -> None:
    """Raise if recordings have several formats: they may be the same rollouts, recorded twice."""
    names = {path: format.name for path in found if (format := _format_by_name(path))}
    if len(set(names.values())) < 2:
        return
    listed = ", ".join(str(path.name) for path in sorted(names, key=numeric_order)[:_MOST_NAMED])
    raise DataError(
        f"{what}: {listed}. They are in several formats, so they may be the same rollouts, recorded"
        " twice. Give a list of paths, or a pattern such as 'runs/**/*.h5'."
    )


def _format_by_name(path: Path) -> Format | None:
    if path.is_dir():
        return recognise([path])
    return next((format for format in formats() if format.matches_name(path)), None)


def _in_folder(folder: Path) -> Found:
    """The recordings in a folder and the folders in it, each by its first part."""
    found: dict[str, None] = {}
    workers: dict[Path, None] = {}
    collections: dict[Path, None] = {}
    readable = [format for format in formats() if format.reader]
    marks = {format.mark for format in readable if format.mark}
    suffixes = tuple({suffix.lower() for format in readable for suffix in format.suffixes})
    count, waiting = 0, [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            entries = os.scandir(here)
        except FileNotFoundError:
            continue  # It was removed or renamed meanwhile.
        except OSError as error:
            raise DataError(f"Cannot read the folder '{here}': {error.strerror}.") from error
        with entries:
            firsts: set[str] = set()  # Names of first parts: a recording may have very many parts.
            for entry in entries:
                count += 1
                name = entry.name
                if name.startswith("."):
                    continue
                if entry.is_dir():
                    if any(os.path.isfile(os.path.join(entry.path, mark)) for mark in marks):
                        found[entry.path] = None
                    elif not entry.is_symlink():
                        waiting.append(entry.path)
                elif name == WORKER:
                    workers[Path(here)] = None
                elif name == PLAN:
                    collections[Path(here)] = None
                elif name.lower().endswith(suffixes):
                    match = _PART.fullmatch(name) if ".part" in name else None
                    first = match[1] + match[2] if match else name
                    if first not in firsts and _may_be_recording(Path(entry.path)):
                        firsts.add(first)
                        found[os.path.join(here, first)] = None
        if count > _MOST_ENTRIES:
            raise DataError(
                f"The folder '{folder}' has more than {_MOST_ENTRIES} entries and is not searched."
                " Give a pattern such as 'runs/*/rollouts.h5'."
            )
    paths = sorted(map(Path, found), key=numeric_order)
    workers = dict.fromkeys(sorted(workers, key=numeric_order))
    return Found(paths, workers=workers, collections=collections)


def _first_part(path: Path) -> Path:
    """Path of the first part: rollout.h5 for rollout.part001.h5."""
    match = None if path.is_dir() else _PART.fullmatch(path.name)
    return path.with_name(match[1] + match[2]) if match else path


def _may_be_recording(path: Path) -> bool:
    """Whether a file is a recording, perhaps a damaged one, and not another file of this kind."""
    format = next((format for format in formats() if format.matches_name(path)), None)
    if format is None or not path.is_file():
        return False
    if format.name == "csv":
        return not path.stem.endswith(".episodes") and _is_table_of_rows(path)
    if format.name == "npz":
        return _is_archive_of_rows(path)
    return True


def _is_table_of_rows(path: Path) -> bool:
    if sidecar(_first_part(path)).exists():
        return True
    with open(path, "rb") as stream:
        return stream.read(100).startswith(",".join(ROW_COLUMNS).encode())


def _is_archive_of_rows(path: Path) -> bool:
    from mjlab_rec.data.formats.npz_archive import Archive

    try:
        with Archive(path, follow=True) as archive:
            return archive.has(META)
    except DataError:
        return True  # it is damaged, and opening it says so


def _there(folder: Path, wanted: Path | None = None) -> str:
    """A sentence about the recordings in a folder."""
    if not folder.is_dir():
        return f"The folder '{folder}' does not exist."
    found = sorted(
        entry.name
        for entry in folder.iterdir()
        if (recognise([entry]) if entry.is_dir() else _may_be_recording(entry))
    )
    if not found:
        return f"There are no recordings in '{folder}'."
    return nearest(wanted.name, found) if wanted else f"It contains: {', '.join(found)}."
