"""Read a file of rows block by block, and report damage."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import csv_text, plain_files
from mjlab_rec.data.formats.csv_files import Span
from mjlab_rec.data.schema import ROW_COLUMNS, DataError, RunInfo

_PIECE_BYTES = 8 << 20  # of text that are parsed at once
_HEADER_BYTES = 16 << 20
_MOST = 1 << 31


@dataclass
class Damage:
    """The damage found in a recording. Blocks are numbered across all parts."""

    sentences: list[str] = field(default_factory=list)
    blocks: dict[int, str] = field(default_factory=dict)
    """Blocks that cannot be read, each with a sentence about it."""

    count: int = 0
    """Number of blocks so far."""

    rows: int = 0
    """Rows in them, including damaged ones."""

    lasting: bool = False
    """Whether checksums are lost, so that other losses may be unnoticed."""

    def block(self, sentence: str) -> None:
        """Add a sentence about the last block, which is damaged."""
        self.sentences.append(sentence)
        self.blocks[self.count - 1] = sentence


@dataclass
class Rows:
    """Rows of one or several consecutive blocks."""

    frame: pl.DataFrame
    block: np.ndarray  # (rows,), the block of each row


@dataclass
class _Piece:
    offset: int
    stop: int
    span: Span | None  # None: it has no checksum
    last: bool = False  # whether nothing follows


class PartReader:
    """Reads one file of rows.

    Args:
        file: The file.
        number: Number of the part.
        spans: Its checksums; None if there is no file of checksums.
        info: Description of the recording, if there is one.
        check: Whether to compare checksums.
        damage: Damage is added to it.
    """

    def __init__(
        self,
        file: Path,
        number: int,
        spans: Sequence[Span] | None,
        info: RunInfo | None,
        check: bool,
        damage: Damage,
    ) -> None:
        self._path, self._check, self._damage = file, check, damage
        self._strict = spans is None
        self._spans = sorted(spans or (), key=lambda span: span.offset)
        self._envs = None if info is None else np.asarray(info.envs)
        self._kinds = None if info is None else csv_text.kinds_of(info)
        self._number = number
        self.settled: list[Span] = []
        """Checksums of everything that could be read; complete after ``load``."""
        self._file = plain_files.opened(file)
        try:
            self.size = os.fstat(self._file).st_size
            self.header, self.start = self._load_header(info)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def load(self) -> Iterator[Rows]:
        """Read all rows that can be read."""
        if self.start:
            self._note_span(0, plain_files.read_at(self._file, self._path, 0, self.start), 0)
        run: list[tuple[Span, bytes]] = []
        for piece in self._pieces():
            content = plain_files.read_at(
                self._file, self._path, piece.offset, piece.stop - piece.offset
            )
            span = piece.span
            if span is not None and len(content) == span.size:
                if self._check and crc32(content) != span.crc:
                    yield from self._verified(run)
                    run = []
                    self._note_block(span.rows)
                    name = self._name_of(span)
                    self._damage.block(f"{name} does not match its checksum. {_CURE}")
                    continue
                run.append((span, content))
                self.settled.append(span)
                if sum(len(text) for _, text in run) < _PIECE_BYTES:
                    continue
                content = b""
            yield from self._verified(run)
            run = []
            if content:
                yield from self._unverified(piece, content)
        yield from self._verified(run)
        lost = sum(s.lost for s in self._spans) - sum(s.lost for s in self.settled)
        if lost:
            self._note_span(self.settled[-1].end if self.settled else 0, b"", 0, lost)

    def _note_span(self, offset: int, content: bytes, rows: int, lost: int = 0) -> None:
        self.settled.append(Span.of(self._number, offset, content, rows, lost))

    def _load_header(self, info: RunInfo | None) -> tuple[list[str], int]:
        """Names of the columns, and offset of the rows; 0 if the header is incomplete."""
        first = self._spans[0] if self._spans and self._spans[0].rows == 0 else None
        names = [] if info is None else csv_text.columns_of(info)
        expected = csv_text.dump_header(names) if names else b""
        content = plain_files.read_at(self._file, self._path, 0, len(expected))
        if expected and content == expected[: len(content)]:
            return (names, len(expected)) if len(content) == len(expected) else ([], 0)
        if first is not None and (first.offset, first.size) == (0, len(expected)):
            if first.crc == crc32(expected) and content.endswith(b"\n"):
                self._damage.sentences.append(f"The first line of '{self._path}' is damaged.")
                return names, len(expected)
        size = 1 << 16
        while True:
            content = plain_files.read_at(self._file, self._path, 0, size)
            if len(content) < size or size >= _HEADER_BYTES or csv_text.header_end(content):
                break
            size *= 4
        header, start = csv_text.load_header(content, self._path)
        if not start and len(content) == size:
            raise DataError(f"'{self._path}' is not a recording: its first line does not end.")
        missing = [name for name in ROW_COLUMNS if name not in header]
        if start and missing:
            raise DataError(
                f"'{self._path}' is not a recording: it has no column {', '.join(missing)}. Its"
                f" columns are: {', '.join(header[:10])}{', ...' if len(header) > 10 else ''}."
            )
        if start and names:
            raise DataError(
                f"'{self._path}' does not have the columns of its description. If it was edited on"
                f" purpose, remove '{self._path.name}.json'; the types are then guessed."
            )
        if first is not None and self._check and crc32(content[:start]) != first.crc:
            raise DataError(
                f"The first line of '{self._path}' does not match its checksum. {_CURE}"
            )
        return header, start

    def _pieces(self) -> Iterator[_Piece]:
        """The content after the header, divided as the checksums divide it."""
        place = self.start
        if not place:
            if self._spans:
                self._damage.sentences.append(f"'{self._path}' ends early: it has no full line.")
            return
        spans = [span for span in self._spans if span.size and span.offset >= place]
        for span in spans:
            if span.offset < place:
                self._damage.sentences.append(
                    f"The checksums of '{self._path}' overlap at byte {span.offset}."
                )
                continue
            if span.offset > place and place < self.size:
                yield _Piece(place, min(span.offset, self.size), None)
            if span.offset < self.size:
                yield _Piece(span.offset, min(span.end, self.size), span)
            place = span.end
        if place > self.size:
            self._damage.sentences.append(
                f"'{self._path}' ends early: it has {self.size} of {place} bytes."
            )
        while place < self.size:  # in pieces, because all of it may be too large for the memory
            stop = self.size
            if self._strict and stop - place > _PIECE_BYTES:
                stop = self._line_end(place + _PIECE_BYTES)
            yield _Piece(place, stop, None, last=True)
            place = stop

    def _line_end(self, place: int) -> int:
        while place < self.size:
            content = plain_files.read_at(self._file, self._path, place, 1 << 20)
            if (at := content.find(b"\n")) >= 0:
                return place + at + 1
            place += len(content) or self.size
        return self.size

    def _verified(self, run: Sequence[tuple[Span, bytes]]) -> Iterator[Rows]:
        """Rows of blocks that match their checksums."""
        if not run:
            return
        try:
            frame = self._frame(b"".join(text for _, text in run), sum(s.rows for s, _ in run))
        except ValueError as error:
            if len(run) > 1:
                for one in run:
                    yield from self._verified([one])
                return
            self._note_block(run[0][0].rows)
            self._damage.block(f"{self._name_of(run[0][0])} cannot be read: {error}.")
            return
        first = self._damage.count
        for span, _ in run:
            self._note_block(span.rows)
        blocks = np.arange(first, self._damage.count)
        yield Rows(frame, np.repeat(blocks, [span.rows for span, _ in run]))

    def _unverified(self, piece: _Piece, content: bytes) -> Iterator[Rows]:
        """Rows without a checksum, or of a block that was cut short."""
        size = content.rfind(b"\n") + 1
        lines = content.count(b"\n")
        if not lines:
            return
        content = content[:size]
        self._note_block(lines)
        if self._strict:
            try:
                frame = self._frame(content)
            except ValueError as error:
                raise DataError(f"'{self._path}' is damaged: {error}.") from None
        elif piece.span is None and not piece.last and self._check:
            self._damage.block(
                f"{lines} rows of '{self._path}' from byte {piece.offset} on have no readable"
                f" checksum. {_CURE}"
            )
            return
        else:
            frame, size = csv_text.load_whole_lines(
                content, self.header, self._kinds, self._checked
            )
            if len(frame) < lines:
                self._damage.sentences.append(
                    f"'{self._path}' ends with {lines - len(frame)} lines that cannot be read."
                )
        if len(frame):
            self._note_span(piece.offset, content[:size], len(frame))
        yield Rows(frame, np.full(len(frame), self._damage.count - 1))

    def _frame(self, text: bytes, rows: int | None = None) -> pl.DataFrame:
        frame = self._checked(csv_text.load_rows(text, self.header, self._kinds))
        if rows is not None and len(frame) != rows:
            raise ValueError(f"it has {len(frame)} rows instead of {rows}")
        return frame

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Raise ValueError for impossible rows."""
        if not frame["time"].dtype.is_numeric():
            raise ValueError("not all values in column 'time' are numbers")
        for name in ("env", "episode", "step"):
            values = frame[name]
            if not values.dtype.is_integer():
                raise ValueError(f"not all values in column '{name}' are integers")
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < _MOST:  # type: ignore[arg-type]
                raise ValueError(f"not all values in column '{name}' are from 0 to {_MOST - 1}")
        if self._envs is not None:
            envs = frame["env"].unique().to_numpy()
            if len(strange := envs[~np.isin(envs, self._envs)]):
                raise ValueError(f"the recording has no environment {strange[0]}")
        return frame

    def _note_block(self, rows: int) -> None:
        self._damage.count += 1
        self._damage.rows += rows

    def _name_of(self, span: Span) -> str:
        """The last block, for messages."""
        block, rows = self._damage.count - 1, self._damage.rows
        return f"'{self._path}', block {block} (rows {rows - span.rows} to {rows - 1})"


_CURE = "It was damaged or edited. If it was edited on purpose, remove the file of checksums."
