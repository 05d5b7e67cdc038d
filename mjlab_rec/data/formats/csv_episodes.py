"""The table of episodes of a CSV recording, from its file and from the rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import csv_text, plain_files
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.formats.csv_files import TABLE, TABLE_HEADER, Span
from mjlab_rec.data.formats.episode_table import SCHEMA
from mjlab_rec.data.schema import RunInfo, is_partial

_COLUMNS = list(SCHEMA), list(SCHEMA.values())
_KEY = ["env", "number"]


class EpisodeLines:
    """The lines of the file with the table of episodes.

    Args:
        path: The file.
        spans: Checksums of it and of the rows; None if there is no file of checksums.
        check: Whether to compare checksums.
    """

    def __init__(self, path: Path, spans: list[Span] | None, check: bool) -> None:
        self._path = path
        self.there = path.exists()
        """Whether the file exists."""
        self.damage: list[str] = []
        """A sentence for each damage."""
        self.damaged = False
        """Whether more than the end is damaged."""
        self.known = pl.DataFrame(schema=SCHEMA)
        """The lines that can be read, only the last one of each episode."""
        self.settled: list[Span] = []
        """Checksums of everything that could be read."""
        content = plain_files.read(path) if self.there else b""
        place, stop = 0, 0  # end of what was read, and where it should be
        for span in sorted((s for s in spans or () if s.file == TABLE), key=lambda s: s.offset):
            piece, stop = content[span.offset : span.end], span.end
            if len(piece) < span.size:
                break
            if span.offset != place:
                self._note_damage("has no checksum", place)
            elif check and crc32(piece) != span.crc:
                self._note_damage("does not match its checksum", place)
            elif place and not self._add(piece):
                self._note_damage("cannot be read", place)
            self.settled.append(span)
            place = span.end
        if not place and len(content) >= len(TABLE_HEADER):
            place = len(TABLE_HEADER)
            self.settled.append(Span.of(TABLE, 0, content[:place], 0))
        rest = content[place : content.rfind(b"\n") + 1] if place else b""
        count = self._add_tail(rest, place)
        if self.there and (not place or count < rest.count(b"\n") or len(content) < stop):
            self.damage.append(f"The end of the table of episodes '{path}' is missing.")
        self.known = self.known.unique(_KEY, keep="last", maintain_order=True)

    @property
    def complete(self) -> bool:
        """Whether all episodes that ended have a line, so that the others were running."""
        return self.there and not self.damage

    def _add(self, text: bytes) -> bool:
        try:
            self._append(csv_text.load_rows(text, *_COLUMNS, nullable=True))
            return True
        except ValueError:
            return False

    def _add_tail(self, text: bytes, place: int) -> int:
        """Add lines without a checksum, as many as can be read; returns their number."""
        frame, size = csv_text.load_whole_lines(text, *_COLUMNS, _with_keys, nullable=True)
        if size:
            self.settled.append(Span.of(TABLE, place, text[:size], len(frame)))
            self._append(frame)
        return len(frame)

    def _append(self, frame: pl.DataFrame) -> None:
        self.known = pl.concat([self.known, _with_keys(frame)])

    def _note_damage(self, what: str, place: int) -> None:
        self.damaged = True
        self.damage.append(f"The table of episodes '{self._path}' {what} from byte {place} on.")


def _with_keys(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the lines; raise ValueError if one lacks env, number or rows."""
    if frame.select(pl.any_horizontal(pl.col(*_KEY, "rows").is_null()).any()).item():
        raise ValueError("a line is incomplete")
    return frame


class Episodes:
    """The episodes of a recording: their rows, and the table.

    Args:
        info: The recording.
        env: Environment of each row; rows are ordered by environment, episode and step.
        number: Episode of each row.
        step: Steps of the episode before each row.
        block: Block in which each row was written.
        values: The channels "reward", "terminated" and "truncated" of the rows, those that exist.
        lines: The file with the table of episodes.
        damaged: Blocks that cannot be read, each with a sentence about it.
        rows_missing: Whether steps have no row.
    """

    def __init__(
        self,
        info: RunInfo,
        env: np.ndarray,
        number: np.ndarray,
        step: np.ndarray,
        block: np.ndarray,
        values: Mapping[str, np.ndarray],
        lines: EpisodeLines,
        damaged: Mapping[int, str],
        rows_missing: bool,
    ) -> None:
        new = np.append(True, (env[1:] != env[:-1]) | (number[1:] != number[:-1]))[: len(env)]
        first = np.flatnonzero(new)
        after = np.append(first[1:], len(env))[: len(first)]

        def of_each(values: np.ndarray, combine: np.ufunc) -> np.ndarray:
            return combine.reduceat(values, first) if len(first) else values[:0]

        def at_last(channel: str) -> Any:
            return values[channel][after - 1].astype(bool) if channel in values else nothing

        nothing: Any = [None] * len(first)
        total = nothing
        if "reward" in values:
            total = of_each(values["reward"].astype(np.float64), np.add)
        flags = {"ended": at_last("terminated"), "timed_out": at_last("truncated")}
        rows = pl.DataFrame(
            {
                "env": env[first],
                "number": number[first],
                "first": first,
                "found": after - first,
                "first_step": step[first].astype(np.int64),
                "last_step": step[after - 1].astype(np.int64),
                "first_block": of_each(block, np.minimum),
                "last_block": of_each(block, np.maximum),
                "sum": total,
                **flags,
            },
            schema_overrides={"sum": pl.Float64(), **dict.fromkeys(flags, pl.Boolean())},
        )
        keys = rows.select(_KEY)
        if damaged:  # There may be episodes without a readable row.
            keys = pl.concat([keys, lines.known.select(_KEY)]).unique()
        joined = (
            keys.sort(_KEY)
            .join(rows, on=_KEY, how="left", maintain_order="left")
            .join(lines.known.with_columns(listed=True), on=_KEY, how="left", maintain_order="left")
            .with_columns(pl.col("listed").fill_null(False), pl.col("found", "first").fill_null(0))
        )
        self.unreadable = _unreadable(joined, damaged)
        """Why an episode cannot be read, by its row in the table."""
        self.listed = joined["listed"]
        """Whether the table of episodes has a line for it."""
        self.first = joined["first"].to_numpy()
        """The first row of each episode."""
        self.after = self.first + joined["found"].to_numpy()
        """The row after its last one."""
        derived = _derived(lines.complete, info.every, rows_missing)
        self.table = _merged(joined.with_columns(**derived), set(self.unreadable))
        """The table of episodes."""


def _derived(complete: bool, every: int, rows_missing: bool) -> dict[str, pl.Expr]:
    """The columns of an episode without a line, computed from its rows."""
    terminated, truncated = pl.col("ended"), pl.col("timed_out")
    length, rows, total = pl.col("last_step") + 1, pl.col("found"), pl.col("sum")
    nothing = pl.lit(None)
    partial = nothing
    if complete:  # it was still running
        terminated, truncated = terminated.fill_null(False), truncated.fill_null(False)
        partial = is_partial(pl.col("first_step"), length, rows, every)
    elif every > 1 or rows_missing:  # it may have continued after its last row
        terminated = pl.when(terminated).then(pl.lit(True))
        truncated = pl.when(truncated).then(pl.lit(True))
        length = pl.when(terminated | truncated).then(length)
    return {
        "d_start": nothing,
        "d_length": length,
        "d_return": pl.when(length == rows).then(total),
        "d_recorded_return": total,
        "d_terminated": terminated,
        "d_truncated": truncated,
        "d_cut": ~(terminated | truncated),
        "d_success": nothing,
        "d_partial": partial,
    }


def _merged(joined: pl.DataFrame, unreadable: set[int]) -> pl.DataFrame:
    """The table, from the line of an episode if there is one, otherwise from its rows."""
    listed = pl.col("listed")
    hidden = pl.Series([i in unreadable for i in range(len(joined))], dtype=pl.Boolean)
    # Rows are missing at the end of a file that was cut short.
    fewer = listed & ~hidden & (pl.col("found") < pl.col("rows"))
    columns = {
        "rows": pl.when(listed & hidden).then(pl.col("rows")).otherwise(pl.col("found")),
    }
    for name in EPISODE_COLUMNS:
        if name not in (*_KEY, "rows"):
            derived = pl.when(~hidden).then(pl.col(f"d_{name}"))
            columns[name] = pl.when(listed).then(pl.col(name)).otherwise(derived)
    columns["recorded_return"] = (
        pl.when(fewer).then(pl.col("sum")).otherwise(columns["recorded_return"])
    )
    columns["partial"] = pl.when(fewer).then(pl.lit(True)).otherwise(columns["partial"])
    return joined.select(*_KEY, **columns).select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
    )


def _unreadable(joined: pl.DataFrame, damaged: Mapping[int, str]) -> dict[int, str]:
    """The episodes that may have rows in damaged blocks, each with a sentence about it."""
    if not damaged or not len(joined):
        return {}
    blocks = np.array(sorted(damaged))
    around = joined.select(
        before=pl.col("last_block").forward_fill().shift(1).over("env").fill_null(-1),
        behind=pl.col("first_block").backward_fill().shift(-1).over("env").fill_null(1 << 60),
    )
    low = np.searchsorted(blocks, around["before"].to_numpy(), "left")
    high = np.searchsorted(blocks, around["behind"].to_numpy(), "right")
    listed, found = joined["listed"].to_numpy(), joined["found"].to_numpy()
    short = found < joined["rows"].fill_null(0).to_numpy()
    lost = np.where(listed, short, high > low)
    near = np.minimum(low, len(blocks) - 1)
    return {int(i): damaged[int(blocks[near[i]])] for i in np.flatnonzero(lost)}
