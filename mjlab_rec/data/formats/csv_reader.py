"""Read CSV recordings, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.files import parts, sidecar
from mjlab_rec.data.formats import csv_files, csv_text, episode_table, plain_files
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.csv_episodes import EpisodeLines, Episodes
from mjlab_rec.data.formats.csv_files import Span
from mjlab_rec.data.formats.csv_part import Damage, PartReader, Rows
from mjlab_rec.data.formats.parts import log_damages
from mjlab_rec.data.schema import DataError, RunInfo


class CsvReader(Reader):
    """Reads a table in one or more parts, and keeps it in memory.

    If the file with the table of episodes is missing or damaged, the table is computed from the
    rows. Null is then: an episode's start and success; its flags if there are no columns
    "terminated" and "truncated"; its return if there is no column "reward" or a row is missing. If
    only some steps were recorded, an episode may have continued after its last row; its length,
    return and flags are known only if the flags of that row say that it ended. If only the line of
    an episode is missing, because the process was killed, the episode is cut at its last row.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        self._path, self.check = Path(path), check
        csv_files.check_path(self._path)
        self._damage = Damage()
        known = self._load_description()
        self.finished = self._about.get("finished") is True
        self.rows_missing = self._about.get("rows_missing") is True
        """Whether some steps have no row."""
        # Each file describes data in files that are read after it, so that all may grow meanwhile.
        self.spans = self._load_spans()
        """Checksums of everything that was written; None if there is no file of them."""
        self.gaps = sum(s.lost for s in self.spans or ())
        if self.spans is None:
            self.gaps = self._about.get("gaps", 0)
        self.lines = EpisodeLines(csv_files.episodes_path(self._path), self.spans, check)
        """The file with the table of episodes."""
        self._damage.sentences += self.lines.damage
        self.header: list[str] = []
        """Names of the columns; empty if the header is incomplete."""
        self.settled: dict[Path, list[Span]] = {}
        """Checksums of what could be read, for each part."""
        rows = self._load_parts(known)
        self.info = known or csv_text.guessed_info(
            self.header, [piece.frame for piece in rows], self._path
        )
        self._arrange(rows)
        log_damages(self._path, self._damage.sentences)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        if index in self._episodes.unreadable:
            row = self.episodes.row(index, named=True)
            raise DataError(
                f"Episode {row['number']} of environment {row['env']} cannot be read:"
                f" {self._episodes.unreadable[index]}"
            )
        rows = slice(int(self._episodes.first[index]), int(self._episodes.after[index]))
        return {name: self._arrays[name][rows].copy() for name in channels}

    @property
    def damages(self) -> list[str]:  # type: ignore[override]
        return self._damage.sentences

    @property
    def damaged(self) -> bool:
        """Whether more than the end is damaged."""
        return bool(self._damage.blocks or self._damage.lasting or self.lines.damaged)

    def unlisted(self) -> list[dict[str, Any]]:
        """Episodes without a line in the table of episodes."""
        return self.episodes.filter(~self._episodes.listed).to_dicts()

    @property
    def next_number(self) -> int:
        """The number for the next episode."""
        known = [*self.episodes["number"], *self.lines.known["number"]]
        return 1 + max(known, default=-1)

    def verify(self) -> list[str]:
        try:
            again = CsvReader(self._path)
        except DataError as error:
            return [str(error)]
        missing = [file for file in csv_files.companions(self._path) if not file.exists()]
        unchecked = [f"'{file}' is missing: not everything could be checked." for file in missing]
        return [*again.damages, *unchecked]

    def _load_description(self) -> RunInfo | None:
        self._about: dict[str, Any] = {}
        described = sidecar(self._path)
        if not described.exists():
            return None
        try:
            info, self._about = episode_table.load_info(
                plain_files.read(described), described, check=self.check
            )
            csv_text.check_columns(info, self._path)
        except DataError as error:
            raise DataError(f"{error} If you remove it, the types are guessed.") from None
        return info

    def _load_spans(self) -> list[Span] | None:
        path = csv_files.checksums_path(self._path)
        if not path.exists():
            return None
        spans, damage = csv_files.load_spans(plain_files.read(path), path)
        written = self._about.get("spans")
        if self.finished and isinstance(written, int) and len(spans) < written and not damage:
            damage.append(f"The end of the checksums in '{path}' is missing.")
        self._damage.lasting = bool(damage)
        self._damage.sentences += damage
        return spans

    def _load_parts(self, known: RunInfo | None) -> list[Rows]:
        rows = []
        files = parts(self._path)
        found = {csv_files.part_number(self._path, file) for file in files}
        for number in sorted({s.file for s in self.spans or () if s.file >= 0} - found):
            self._damage.sentences.append(f"Part {number} of '{self._path}' is missing.")
        for file in files:
            part = self._open_part(file, known)
            try:
                if self.header and part.header and part.header != self.header:
                    raise DataError(f"'{file}' has different columns than the parts before it.")
                self.header = part.header or self.header
                rows += part.load()
                self.settled[file] = part.settled
            finally:
                part.close()
        if self._damage.blocks and not rows:
            raise DataError(f"Nothing can be read. {next(iter(self._damage.blocks.values()))}")
        return rows

    def _open_part(self, file: Path, info: RunInfo | None) -> PartReader:
        spans, number = self.spans, csv_files.part_number(self._path, file)
        if spans is not None:
            spans = [span for span in spans if span.file == number]
        return PartReader(file, number, spans, info, self.check, self._damage)

    def _arrange(self, rows: list[Rows]) -> None:
        """Sort the rows by episode, into one array per channel."""
        tables = [csv_text.columns_by_name(piece.frame) for piece in rows]
        block = np.concatenate([np.zeros(0, np.int64), *(piece.block for piece in rows)])
        rows.clear()

        def key(name: str) -> np.ndarray:
            values = [table[name].to_numpy().astype(np.int32) for table in tables]
            return np.concatenate([np.zeros(0, np.int32), *values])

        env, number, step = key("env"), key("episode"), key("step")
        order = np.lexsort((step, number, env))
        env, number, step = env[order], number[order], step[order]
        twice = (env[1:] == env[:-1]) & (number[1:] == number[:-1]) & (step[1:] == step[:-1])
        if len(found := np.flatnonzero(twice)):
            at = found[0]
            raise DataError(
                f"'{self._path}' is damaged: environment {env[at]}, episode {number[at]} has step"
                f" {step[at]} twice."
            )
        self._arrays = {"step": step}
        for spec in self.info.channels:
            pieces = [csv_text.channel(table, spec) for table in tables]
            for table in tables:  # Each value is in memory twice at most.
                for name in spec.columns():
                    del table[name]
            nothing = np.empty((0, *spec.shape), spec.dtype)
            self._arrays[spec.name] = np.concatenate([nothing, *pieces])[order]
        scalars = {spec.name for spec in self.info.channels if not spec.shape}
        values = {
            name: self._arrays[name]
            for name in ("reward", "terminated", "truncated")
            if name in scalars
        }
        self._episodes = Episodes(
            self.info, env, number, step, block[order], values,
            self.lines, self._damage.blocks, self.rows_missing,
        )  # fmt: skip
        self.episodes: pl.DataFrame = self._episodes.table
