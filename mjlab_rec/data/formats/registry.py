"""File formats by name or by the content of a path: those of this package and of others."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.files import check_kind
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.data.formats.base import Reader, Writer

ENTRY_POINT_GROUP = "mjlab_rec.formats"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Format:
    """Description of a file format, without importing its code."""

    name: str
    """Its name, such as "hdf5"."""

    writer: str
    """The ``Writer``, as "package.module:Class"."""

    reader: str | None = None
    """The ``Reader``, as "package.module:Class"; None if the format cannot be read from a path."""

    suffixes: tuple[str, ...] = ()
    """Suffixes of its files, such as ".h5"; new files get the first one."""

    mark: str = ""
    """Name of the file that marks a folder as a recording in this format."""

    magic: bytes = b""
    """First bytes of its files, which may then have any name that is not of another format. Without
    magic bytes, files are recognised by their suffix."""

    recognises: str | None = None
    """A cheap function from a path to a bool, as "package.module:function", for formats that share
    their magic, suffix or mark with another. It is called only if those fit."""

    def __post_init__(self) -> None:
        for target in filter(None, (self.writer, self.reader, self.recognises)):
            module, colon, name = target.partition(":")
            if not (module and colon and name):
                raise ValueError(
                    f"Format '{self.name}': {target!r} must have the form 'package.module:name'."
                )
        if wrong := [s for s in self.suffixes if not s.startswith(".") or s == "."]:
            raise ValueError(f"Format '{self.name}': suffixes must begin with a dot, got {wrong}.")
        if self.reader and not (self.suffixes or self.mark or self.magic):
            raise ValueError(
                f"Format '{self.name}' has a reader, but nothing to recognise its recordings by:"
                " give it suffixes, a mark or magic bytes."
            )

    def writer_class(self) -> type[Writer]:
        """The ``Writer``, imported."""
        return self._load(self.writer)

    def open(self, path: Path, check: bool = True) -> Reader:
        """Open the recording at a path."""
        assert self.reader is not None
        return self._load(self.reader)(path, check=check)

    def matches_name(self, path: Path) -> bool:
        """Whether a path has a suffix of this format."""
        name = path.name.lower()
        return any(name.endswith(s.lower()) and len(name) > len(s) for s in self.suffixes)

    def fits(self, path: Path, start: bytes | None) -> bool:
        """Whether a file with these first bytes, or a folder (None), may be in this format."""
        if self.reader is None:
            return False
        if start is None:
            return bool(self.mark) and (path / self.mark).is_file()
        return start.startswith(self.magic) if self.magic else self.matches_name(path)

    def is_recognised(self, path: Path) -> bool:
        """The result of ``recognises`` for a path."""
        assert self.recognises is not None
        return bool(self._load(self.recognises)(path))

    def __str__(self) -> str:
        ways = [*self.suffixes, *["a folder"] * bool(self.mark)]
        return f"{self.name} ({', '.join(ways) or 'recognised by its content'})"

    def _load(self, target: str) -> Any:
        module, _, name = target.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DataError(
                f"The format '{self.name}' cannot be used: loading '{target}' failed: {error}."
            ) from error


def register_format(format: Format) -> None:
    """Register a format, in code that is not an installed package, such as a notebook.

    Packages declare an entry point in the group "mjlab_rec.formats" instead.
    """
    _add(_known()[0], format)


def formats() -> list[Format]:
    """All known formats."""
    return list(_known()[0].values())


def format_named(name: str) -> Format:
    """A format by its name."""
    known, broken = _known()
    if name not in known:
        raise ValueError(f"Unknown format '{name}'. {nearest(name, list(known))}{_failed(broken)}")
    return known[name]


def writer_class(name: str) -> type[Writer]:
    """The writer of a format, by the format's name."""
    return format_named(name).writer_class()


def recognise(files: Iterable[Path]) -> Format | None:
    """The format of the parts of a recording, or of a folder; None if it is unknown.

    Damaged parts do not matter: the first part that is recognised decides.
    """
    guess = None
    for file in files:
        start = None if file.is_dir() else _first_bytes(file)
        fitting = [format for format in formats() if format.fits(file, start)]
        fitting.sort(key=lambda format: not format.matches_name(file))
        sure = True
        for format in fitting:
            if format.recognises is None:
                continue
            try:
                if format.is_recognised(file):
                    return format
            except Exception as error:  # A damaged file can cause any error.
                logger.debug("%s: %s failed to check it: %s", file, format.name, error)
                sure = False
        plain = [format for format in fitting if format.recognises is None]
        guess = guess or next(iter(plain), None)
        if plain and sure:
            return plain[0]
    return guess


def known_formats() -> str:
    """A sentence with the formats that can be read, and their suffixes."""
    known, broken = _known()
    readable = [str(format) for format in known.values() if format.reader]
    return f"Formats that can be read: {'; '.join(readable)}.{_failed(broken)}"


def check_path(writer: type[Writer], path: str) -> None:
    """Raise if a recording at a path would not be recognised as one of the writer's format."""
    format = next((f for f in formats() if _class_of(f) is writer), None)
    if format is None or format.reader is None or not path or format.matches_name(Path(path)):
        return
    others = [other for other in formats() if other.matches_name(Path(path))]
    nameless = not (format.magic or format.mark)
    if not (others or nameless):
        return
    ends = " or ".join(format.suffixes)
    cure = f"Name it {Path(path).stem}{format.suffixes[0]}." if ends else "Omit the suffix."
    if others:
        raise DataError(
            f"'{path}' has the suffix of the format {others[0].name}, but the recorder writes"
            f" {format.name}. {cure}"
        )
    raise DataError(
        f"'{path}' would not be recognised as a recording in the format {format.name}, whose files"
        f" end in {ends}. {cure}"
    )


@functools.cache
def _known() -> tuple[dict[str, Format], list[str]]:
    """The formats by name, and the entry points that failed to load; searched once."""
    from mjlab_rec.data.formats.builtin import FORMATS

    known: dict[str, Format] = {}
    broken = []
    for format in FORMATS:
        _add(known, format)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP)):
        try:
            _add(known, point.load())
        except Exception:
            broken.append(point.name)
            logger.exception(
                "The file format %r could not be loaded and is not available.", point.name
            )
    return known, broken


def _add(known: dict[str, Format], format: Format) -> None:
    if not isinstance(format, Format):
        raise TypeError(f"A file format must be a Format, got {format!r}.")
    if known.setdefault(format.name, format) != format:
        raise ValueError(
            f"There already is a format '{format.name}', written by"
            f" '{known[format.name].writer}'. Choose another name."
        )


def _class_of(format: Format) -> type[Writer] | None:
    """The writer of a format, if its module is imported."""
    module, _, name = format.writer.partition(":")
    return getattr(sys.modules.get(module), name, None)


def _first_bytes(file: Path) -> bytes:
    """The first bytes of a file, as many as the longest magic."""
    check_kind(file)
    with open(file, "rb") as stream:
        return stream.read(max(len(format.magic) for format in formats()))


def _failed(broken: Sequence[str]) -> str:
    return f" Failed to load: {', '.join(broken)}." if broken else ""
