"""The files of a CSV recording besides its rows, and checksums of all files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.files import sidecar
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.formats.plain_files import read
from mjlab_rec.data.schema import DataError

TABLE = -1  # the table of episodes, where other files have the number of their part
TABLE_HEADER = (",".join(EPISODE_COLUMNS) + "\n").encode()
CHECKSUMS_HEADER = b"file,offset,bytes,rows,crc32,lost,line_crc32\n"
_LINE = re.compile(
    rb"(-?\d{1,9}),(\d{1,18}),(\d{1,18}),(\d{1,18}),(\d{1,10}),(\d{1,18}),(\d{1,10})"
)


def episodes_path(path: Path) -> Path:
    """Path of the table of episodes: rollout.episodes.csv."""
    return path.with_name(f"{path.stem}.episodes{path.suffix}")


def checksums_path(path: Path) -> Path:
    """Path of the checksums: rollout.csv.crc32."""
    return path.with_name(f"{path.name}.crc32")


def companions(path: Path) -> tuple[Path, ...]:
    """All files except the rows."""
    return sidecar(path), episodes_path(path), checksums_path(path)


def check_path(path: Path) -> None:
    """Raise if a path is one of a table of episodes."""
    if path.stem.endswith(".episodes"):
        rows = path.with_name(f"{path.stem.removesuffix('.episodes')}{path.suffix}")
        raise DataError(
            f"'{path}' has the name of the table of episodes of the recording '{rows}'. Give the"
            " path of the recording."
        )


def check_ours(path: Path) -> None:
    """Raise if a file that would be written exists and is not part of a recording."""
    marks = b'"format": "mjlab_rec"', TABLE_HEADER, CHECKSUMS_HEADER
    for file, mark in zip(companions(path), marks, strict=True):
        if os.path.lexists(file) and mark not in read(file, 1000):
            raise DataError(
                f"'{file}' exists and is not part of a recording. It was not changed. Move it"
                " elsewhere, or choose another path."
            )


def part_number(path: Path, part: Path) -> int:
    """The number of a part of the recording at `path`."""
    found = re.fullmatch(r"\.part(\d+)", part.stem[len(path.stem) :])
    return int(found[1]) if found else 0


@dataclass(frozen=True, kw_only=True)
class Span:
    """The checksum of what one write added to a file."""

    file: int  # number of the part, or TABLE
    offset: int
    size: int
    rows: int  # 0 for a header
    crc: int
    lost: int = 0  # rows that were dropped before it

    @classmethod
    def of(
        cls, file: int, offset: int, content: bytes | memoryview, rows: int, lost: int = 0
    ) -> Span:
        """The span of content at an offset of a file."""
        crc = crc32(content)
        return cls(file=file, offset=offset, size=len(content), rows=rows, crc=crc, lost=lost)

    @property
    def end(self) -> int:
        """Where in the file it ends."""
        return self.offset + self.size

    def line(self) -> bytes:
        """Its line in the file of checksums."""
        numbers = self.file, self.offset, self.size, self.rows, self.crc, self.lost
        text = ",".join(map(str, numbers)).encode()
        return b"%s,%d\n" % (text, crc32(text))


def dump_spans(spans: Iterable[Span]) -> bytes:
    """The content of a file of checksums."""
    return CHECKSUMS_HEADER + b"".join(span.line() for span in spans)


def load_spans(text: bytes, path: Path) -> tuple[list[Span], list[str]]:
    """The spans in a file of checksums, and a sentence for each damaged line.

    An incomplete last line is ignored.
    """
    spans, damage = [], []
    if text[: len(CHECKSUMS_HEADER)] != CHECKSUMS_HEADER[: len(text)]:
        damage.append(f"The first line of '{path}' is damaged.")
    place = len(CHECKSUMS_HEADER)
    stop = text.rfind(b"\n") + 1
    for found in _LINE.finditer(text, place, stop):  # also after a line whose end is damaged
        good = crc32(found[0].rpartition(b",")[0]) == int(found[7])
        if good:
            file, offset, size, rows, crc, lost = map(int, found.groups()[:6])
            spans.append(Span(file=file, offset=offset, size=size, rows=rows, crc=crc, lost=lost))
        if not good or text[place : found.start()] not in (b"", b"\n"):
            damage.append(f"A line of the checksums '{path}' is damaged, at byte {place}.")
        place = found.end()
    if text[place:stop] not in (b"", b"\n"):
        damage.append(f"A line of the checksums '{path}' is damaged, at byte {place}.")
    return spans, damage[:10]
