"""One table of rows as comma-separated values, for people, spreadsheets and scripts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.files import PathLock, parts, sidecar
from mjlab_rec.data.formats import csv_files, csv_text, episode_table, plain_files, row_table
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.csv_files import TABLE, TABLE_HEADER, Span
from mjlab_rec.data.formats.csv_reader import CsvReader
from mjlab_rec.data.formats.csv_table import EpisodeTracker, dump_lines
from mjlab_rec.data.formats.plain_files import GrowingFile
from mjlab_rec.data.schema import Block, DataError, Episode, RunInfo

__all__ = ["CsvReader", "CsvWriter"]

logger = logging.getLogger(__name__)

_MANY_COLUMNS = 1000  # for one channel
_HEADER_SPAN = Span.of(TABLE, 0, TABLE_HEADER, 0)


class CsvWriter(Writer):
    """Writes columns time, env, episode and step, then a named one for each element of a channel.

    The time is that within the episode, in seconds. Rows are in the order of time, then
    environment. Numbers are exact: they read back bit for bit. ``rollout.csv`` comes with three
    files: ``rollout.episodes.csv`` has a line for each episode that ended, ``rollout.csv.json``
    describes the recording, and ``rollout.csv.crc32`` has checksums of everything. A block's rows
    are written first, then the lines of its episodes, then their checksums, each with one write.
    After a kill the reader ignores an incomplete line, and appending removes it.

    Appended episodes continue the numbering from the highest number. Model fields do not fit into a
    table of rows and are not written.
    """

    has_models = False

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        csv_text.check_columns(info, Path(options.path))
        for spec in info.channels:
            if spec.size > _MANY_COLUMNS:
                logger.warning(
                    "'%s' gets %d columns for '%s'. HDF5, NPZ and Parquet keep pictures as arrays.",
                    *(options.path, spec.size, spec.name),
                )
        self._columns = csv_text.columns_of(info)
        _check_names(self._columns)
        csv_files.check_path(Path(options.path))
        if options.if_exists != "number" and options.path:
            csv_files.check_ours(Path(options.path))
        self._power = options.durability == "power"
        self._offset = self._nbytes = self._old_gaps = self._new_gaps = self._spans = 0
        self._rows_missing = self._failed = False
        self._tracker = EpisodeTracker(info)
        self._part = 0
        self._rows: GrowingFile | None = None
        self._table: GrowingFile | None = None
        self._checksums: GrowingFile | None = None
        self._files: list[Path] = []
        self._path_lock = PathLock(options.path, options.if_exists, companions=csv_files.companions)
        self._path = self._path_lock.path
        try:
            if existing := parts(self._path):
                self._append_to(existing)
            else:
                self._begin()
        except BaseException:
            self._release()
            raise

    @property
    def files(self) -> list[Path]:
        return list(self._files)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def write(self, block: Block) -> None:
        if block.gap or block.active is not None:
            self._note_missing_rows()
        number, step = block.numbering()
        ended, tracker = self._tracker.after(block, number, step)
        active = block.counting(step)
        kept = None if active is None else np.flatnonzero(active)

        def rows(array: np.ndarray) -> np.ndarray:
            flat = array.reshape(block.rows * block.num_envs, *array.shape[2:])
            return flat if kept is None else flat[kept]

        count = number.size if kept is None else len(kept)
        text: bytes | memoryview = b""
        if count:
            envs = np.broadcast_to(np.asarray(block.info.envs, np.int32), number.shape)
            text = self._text(
                rows(envs), rows(number), rows(step), lambda name: rows(block.dense(name))
            )
        for row in ended:
            row["number"] += self._offset
        self._commit(text, count, dump_lines(ended), len(ended), block.gap)
        self._tracker = tracker

    def write_episode(self, episode: Episode) -> None:
        if episode.rows < episode.length:
            self._note_missing_rows()
        same = np.ones(episode.rows, np.int32)
        text = self._text(
            episode.env * same,
            episode.number * same,
            episode.arrays["step"],
            episode.arrays.__getitem__,
        )
        row = episode_table.row_of(episode, self._offset)
        self._commit(text, episode.rows, dump_lines([row]), 1, 0)

    def close(self) -> None:
        failed = self._failed
        assert self._rows
        try:
            self._rows.check_exists()
            running = self._tracker.running()
            for row in running:
                row["number"] += self._offset
            self._commit(b"", 0, dump_lines(running), len(running), self.gaps)
            if not failed:
                self._describe(finished=True)
        finally:
            self._release()

    def _text(
        self,
        env: np.ndarray,
        number: np.ndarray,
        step: np.ndarray,
        channel: Callable[[str], np.ndarray],
    ) -> memoryview:
        columns = [row_table.times(step, self.info.step_dt), env, number + self._offset, step]
        for spec in self.info.channels:
            values = channel(spec.name).astype(row_table.stored(spec.dtype), copy=False)
            # One contiguous array per element, as polars needs them.
            columns.extend(np.ascontiguousarray(values.reshape(len(env), spec.size).T))
        return csv_text.dump_rows(columns)

    def _commit(
        self, rows: bytes | memoryview, count: int, lines: bytes, ended: int, lost: int
    ) -> None:
        """Add rows, and lines to the table of episodes: both or neither."""
        if not (len(rows) or lines or lost):
            return
        assert self._rows and self._table and self._checksums
        if len(rows) and self._rows.size >= self.options.roll_over_bytes:
            self._open_part(self._path_lock.next_part())
        growing = self._rows, self._table, self._checksums
        sizes = [file.size for file in growing]
        spans = []
        self._failed = True
        try:
            if len(rows) or lost:
                spans.append(self._append(self._rows, self._part, rows, count, lost))
            if lines:
                spans.append(self._append(self._table, TABLE, lines, ended))
            self._note(spans)
        except BaseException:
            for file, size in zip(growing, sizes, strict=True):
                file.cut_to(size)
            raise
        self._failed = False
        self._new_gaps += lost

    def _append(
        self, file: GrowingFile, number: int, content: bytes | memoryview, rows: int, lost: int = 0
    ) -> Span:
        span = Span.of(number, file.size, content, rows, lost)
        file.append(content, self._power)
        self._nbytes += len(content)
        return span

    def _note(self, spans: Sequence[Span]) -> None:
        """Add checksums of what was written before."""
        assert self._checksums
        text = b"".join(span.line() for span in spans)
        self._checksums.append(text, self._power)
        self._nbytes += len(text)
        self._spans += len(spans)

    def _begin(self) -> None:
        """Create the files. The rows come last: without them there is no recording."""
        self._describe(finished=False)
        plain_files.replace(csv_files.episodes_path(self._path), TABLE_HEADER, self._power)
        checksums = csv_files.dump_spans([_HEADER_SPAN])
        plain_files.replace(csv_files.checksums_path(self._path), checksums, self._power)
        self._spans = 1
        self._open_companions()
        self._open_part(self._path_lock.next_part())

    def _open_companions(self) -> None:
        self._table = GrowingFile(csv_files.episodes_path(self._path))
        self._checksums = GrowingFile(csv_files.checksums_path(self._path))

    def _open_part(self, path: Path) -> None:
        """Continue in another file of rows."""
        rows = GrowingFile(path)
        number, empty = csv_files.part_number(self._path, path), rows.size == 0
        try:
            if empty:
                span = self._append(rows, number, csv_text.dump_header(self._columns), 0)
                if self._power:
                    plain_files.sync_to_disk(path.parent)
                self._note([span])
        except BaseException:
            if empty:
                path.unlink(missing_ok=True)
            rows.close()
            raise
        if self._rows is not None:
            self._rows.close()
        self._rows, self._part = rows, number
        self._files.append(path)

    def _note_missing_rows(self) -> None:
        if not self._rows_missing:
            self._describe(finished=False, rows_missing=True)
            self._rows_missing = True

    def _describe(self, finished: bool, rows_missing: bool = False) -> None:
        text = episode_table.dump_info(
            self.info,
            attachments=True,
            gaps=self._old_gaps + self._new_gaps,
            rows_missing=rows_missing or self._rows_missing,
            finished=finished,
            spans=self._spans,
        )
        plain_files.replace(sidecar(self._path), text.encode(), self._power)

    def _append_to(self, existing: list[Path]) -> None:
        """Append to a recording, if it has the same channels and only its end may be missing."""
        path = self._path
        reader = CsvReader(path)
        if sidecar(path).exists():
            self.info = episode_table.merged_info(reader.info, self.info, path)
        if reader.header and reader.header != self._columns:
            new = [name for name in self._columns if name not in reader.header]
            old = [name for name in reader.header if name not in self._columns]
            raise DataError(
                f"Cannot append to '{path}': it has other columns. Only in the file:"
                f" {', '.join(old) or 'none'}. Only in the new recording:"
                f" {', '.join(new) or 'none'}. Choose another path, or if_exists='number'."
            )
        if reader.damaged:
            raise DataError(
                f"Cannot append to '{path}': it is damaged, so the number of the next episode is"
                f" unknown. {reader.damages[0]} Choose another path, or if_exists='number'."
            )
        self._old_gaps, self._rows_missing = reader.gaps, reader.rows_missing
        self._offset = reader.next_number
        self._describe(finished=False)
        self._repair(reader)
        self._open_companions()
        self._open_part(existing[-1])
        unlisted = reader.unlisted()
        self._commit(b"", 0, dump_lines(unlisted), len(unlisted), 0)

    def _repair(self, reader: CsvReader) -> None:
        """Remove incomplete lines, and update the checksums."""
        lines = reader.lines.settled
        if not lines:
            lines = [_HEADER_SPAN]
            plain_files.replace(csv_files.episodes_path(self._path), TABLE_HEADER, self._power)
        settled = {**reader.settled, csv_files.episodes_path(self._path): lines}
        for file, spans in settled.items():
            plain_files.cut(file, spans[-1].end if spans else 0)
        spans = [span for spans in settled.values() for span in spans]
        checksums = csv_files.checksums_path(self._path)
        plain_files.replace(checksums, csv_files.dump_spans(spans), self._power)
        self._spans = len(spans)

    def _release(self) -> None:
        for file in (self._rows, self._table, self._checksums):
            if file is not None:
                file.close()
        self._path_lock.release()


def _check_names(names: list[str]) -> None:
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(
            f"Columns of a csv file must have different names, but these would occur twice:"
            f" {', '.join(twice)}. Rename channels or their elements."
        )
