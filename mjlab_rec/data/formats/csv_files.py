"""Files of a CSV recording: what stands next to the rows, and files that only ever grow."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mjlab_rec.data.files import sidecar
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.schema import DataError

TABLE = -1  # stands for the table of episodes where parts have their number
TABLE_HEADER = (",".join(EPISODE_COLUMNS) + "\n").encode()
CHECKSUMS_HEADER = b"file,offset,bytes,rows,crc32,lost,line_crc32\n"
_LINE = re.compile(
    rb"(-?\d{1,9}),(\d{1,18}),(\d{1,18}),(\d{1,18}),(\d{1,10}),(\d{1,18}),(\d{1,10})"
)


def episodes_path(path: Path) -> Path:
    """Where the table of episodes is: rollout.episodes.csv."""
    return path.with_name(f"{path.stem}.episodes{path.suffix}")


def checksums_path(path: Path) -> Path:
    """Where the checksums of all that was written are: rollout.csv.crc32."""
    return path.with_name(f"{path.name}.crc32")


def beside(path: Path) -> tuple[Path, ...]:
    """All files that stand next to the rows."""
    return sidecar(path), episodes_path(path), checksums_path(path)


def check_path(path: Path) -> None:
    """Raise if a path is that of a table of episodes."""
    if path.stem.endswith(".episodes"):
        rows = path.with_name(f"{path.stem.removesuffix('.episodes')}{path.suffix}")
        raise DataError(
            f"'{path}' is, by its name, the table of episodes of the recording '{rows}'. Give the"
            " path of the recording itself."
        )


def check_ours(path: Path) -> None:
    """Raise if a file of somebody else has the place of one that would be written."""
    marks = b'"format": "mjlab_rec"', TABLE_HEADER, CHECKSUMS_HEADER
    for file, mark in zip(beside(path), marks, strict=True):
        if os.path.lexists(file) and mark not in read(file, 1000):
            raise DataError(
                f"'{file}' is not a recording, and not a part of one. It is left alone. Move it"
                " elsewhere, or choose another path."
            )


def part_number(path: Path, part: Path) -> int:
    """The number of a part of the run at `path`."""
    found = re.fullmatch(r"\.part(\d+)", part.stem[len(path.stem) :])
    return int(found[1]) if found else 0


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


@dataclass(frozen=True, kw_only=True)
class Span:
    """What one write added to a file, with its checksum."""

    file: int  # number of the part, or TABLE
    offset: int
    size: int
    rows: int  # 0 for a header
    crc: int
    lost: int = 0  # rows that were dropped before it

    @property
    def end(self) -> int:
        """Where in the file it ends."""
        return self.offset + self.size

    def line(self) -> bytes:
        """As a line of the file of checksums."""
        numbers = self.file, self.offset, self.size, self.rows, self.crc, self.lost
        text = ",".join(map(str, numbers)).encode()
        return b"%s,%d\n" % (text, zlib.crc32(text))


def dump_spans(spans: Iterable[Span]) -> bytes:
    """A file of checksums."""
    return CHECKSUMS_HEADER + b"".join(span.line() for span in spans)


def load_spans(text: bytes, path: Path) -> tuple[list[Span], list[str]]:
    """The spans in a file of checksums, and a sentence for each line that is damaged.

    A last line that is not complete is left out.
    """
    spans, damage = [], []
    if text[: len(CHECKSUMS_HEADER)] != CHECKSUMS_HEADER[: len(text)]:
        damage.append(f"The first line of '{path}' is damaged.")
    place = len(CHECKSUMS_HEADER)
    stop = text.rfind(b"\n") + 1
    for found in _LINE.finditer(text, place, stop):  # also behind a line whose end is damaged
        good = zlib.crc32(found[0].rpartition(b",")[0]) == int(found[7])
        if good:
            file, offset, size, rows, crc, lost = map(int, found.groups()[:6])
            spans.append(Span(file=file, offset=offset, size=size, rows=rows, crc=crc, lost=lost))
        if not good or text[place : found.start()] not in (b"", b"\n"):
            damage.append(f"A line of the checksums in '{path}' is damaged, at byte {place}.")
        place = found.end()
    if text[place:stop] not in (b"", b"\n"):
        damage.append(f"A line of the checksums in '{path}' is damaged, at byte {place}.")
    return spans, damage[:10]


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
