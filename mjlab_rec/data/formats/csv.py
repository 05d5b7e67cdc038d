"""One tidy table as comma-separated values, for people, spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from mjlab_rec.data.files import Claim, parts, sidecar
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.csv_reader import CsvReader, header_end
from mjlab_rec.data.schema import ROW_COLUMNS, Block, DataError, Episode, RunInfo

__all__ = ["CsvReader", "CsvWriter"]


class CsvWriter(Writer):
    """Writes columns time, env, episode and step, then a named one for each element of a channel.

    The time is that in the episode, in seconds. Rows come in the order of time, then environment.
    Numbers read back bit for bit. A block is appended by one write; if the process is killed in the
    middle of it, the unfinished last line is left out by the reader, and removed by who appends.

    What a run says about itself stands beside it, in ``rollout.csv.json``. Appended episodes are
    numbered on from the highest number that is there. Model fields, and what is known of episodes
    but not in their rows, have no place in a table of rows and are not written.
    """

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._names = [column for spec in info.channels for column in spec.columns()]
        _check_names([*ROW_COLUMNS, *self._names])
        self._claim = Claim(options.path, options.if_exists)
        self._offset = self._nbytes = self._size = self._gaps = 0
        self._holes = False  # whether some steps are missing
        self._file: io.FileIO | None = None
        self._files: list[Path] = []
        try:
            if there := parts(self._claim.path):
                self._go_on(there)
            else:
                beside = sidecar(self._claim.path)
                if beside.exists():
                    episode_table.load_info(beside.read_bytes(), beside)  # is it ours to replace?
                self._describe()
                self._open(self._claim.next_part())
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> list[Path]:
        return list(self._files)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def write(self, block: Block) -> None:
        self._gaps += block.gap
        if block.gap or block.active is not None:
            self._note_holes()
        if block.rows == 0:
            return
        number, step = block.numbering()
        kept = None if block.active is None else np.flatnonzero(block.active)

        def rows(array: np.ndarray) -> np.ndarray:
            flat = array.reshape(block.rows * block.lanes, *array.shape[2:])
            return flat if kept is None else flat[kept]

        envs = np.broadcast_to(np.asarray(self.info.envs, np.int32), number.shape)
        self._write(rows(envs), rows(number), rows(step), lambda name: rows(block.dense(name)))

    def write_episode(self, episode: Episode) -> None:
        if episode.rows < episode.length:
            self._note_holes()
        same = np.ones(episode.rows, np.int32)
        step = episode.arrays["step"]
        self._write(episode.env * same, episode.number * same, step, episode.arrays.__getitem__)

    def close(self) -> None:
        try:
            if self._gaps:
                self._describe()
        finally:
            if self._file is not None:
                self._file.close()
            self._claim.release()

    def _write(
        self,
        env: np.ndarray,
        number: np.ndarray,
        step: np.ndarray,
        channel: Callable[[str], np.ndarray],
    ) -> None:
        if len(env) == 0:
            return
        if self._size >= self.options.roll_over_bytes:
            self._open(self._claim.next_part())
        # Rounded, or 3 * 0.1 s would be written as 0.30000000000000004.
        columns = [np.round(step * self.info.step_dt, 9), env, number + self._offset, step]
        for spec in self.info.channels:
            values = channel(spec.name)
            if spec.dtype == np.float16:
                values = values.astype(np.float32)
            # Element by element, each in one piece, as polars wants them.
            columns.extend(np.ascontiguousarray(values.reshape(len(env), spec.size).T))
        text = io.BytesIO()
        # Names are in the file already, so any will do.
        frame = pl.DataFrame([pl.Series(str(i), c) for i, c in enumerate(columns)])
        frame.write_csv(text, include_header=False)
        self._append(text.getbuffer())

    def _append(self, text: bytes | memoryview) -> None:
        assert self._file is not None
        rest = memoryview(text)
        self._size += len(rest)
        self._nbytes += len(rest)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _open(self, path: Path) -> None:
        if self._file is not None:
            self._file.close()
        self._file = open(path, "ab", buffering=0)
        self._files.append(path)
        self._size = path.stat().st_size
        if self._size == 0:
            self._append(_header([*ROW_COLUMNS, *self._names]))

    def _note_holes(self) -> None:
        if not self._holes:
            self._holes = True
            self._describe()

    def _describe(self) -> None:
        path = sidecar(self._claim.path)
        hidden = path.with_name(f".{path.name}.tmp")
        text = episode_table.dump_info(
            self.info, attachments=True, gaps=self._gaps, holes=self._holes
        )
        hidden.write_text(text)
        os.replace(hidden, path)

    def _go_on(self, there: list[Path]) -> None:
        """Go on after what is there, if it is the same kind of run."""
        last = there[-1]
        path = self._claim.path
        reader = CsvReader(path)
        if sidecar(path).exists():
            episode_table.check_same_run(reader.info, self.info, path)
            self.info = reader.info
            self._gaps, self._holes = reader.gaps, reader.holes
        expected = [*ROW_COLUMNS, *self._names]
        if reader.header and reader.header != expected:
            new = [name for name in expected if name not in reader.header]
            old = [name for name in reader.header if name not in expected]
            raise DataError(
                f"Cannot append to '{path}': its columns differ. Only in the file:"
                f" {', '.join(old) or 'none'}. Only in the new recording:"
                f" {', '.join(new) or 'none'}. Choose another path, or if_exists='number'."
            )
        content = last.read_bytes()
        whole = content.rfind(b"\n") + 1 if header_end(content) else 0
        if whole < len(content):
            os.truncate(last, whole)
        if len(reader.episodes):
            self._offset = 1 + int(reader.episodes["number"].max())  # type: ignore[arg-type]
        self._open(last)


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"Columns of a csv file must have names of their own, but these would be there twice:"
            f" {', '.join(twice)}. Rename channels or their elements."
        )


def _header(names: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()
