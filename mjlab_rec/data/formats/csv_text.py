"""Convert arrays to lines of comma-separated values and back."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.plain_files import reason
from mjlab_rec.data.formats.row_table import POLARS_ERRORS, not_interrupted, polars_kind
from mjlab_rec.data.schema import ROW_COLUMNS, ChannelSpec, DataError, RunInfo

ROW_KINDS: dict[str, pl.DataType] = {
    "time": pl.Float64(),
    "env": pl.Int32(),
    "episode": pl.Int32(),
    "step": pl.Int32(),
}
_FEW = 1000  # rows
_MOST_COLUMNS = 1 << 20


def check_columns(info: RunInfo, path: Path) -> None:
    """Raise if there are too many columns for a table."""
    episode_table.check_channels(info)
    count = sum(spec.size for spec in info.channels)
    if count > _MOST_COLUMNS:
        most = max(info.channels, key=lambda spec: spec.size)
        raise DataError(
            f"'{path}' would have {count} columns, {most.size} of them for '{most.name}'. At most"
            f" {_MOST_COLUMNS} are possible. Record fewer channels, or choose another format."
        )


def columns_of(info: RunInfo) -> list[str]:
    """Names of all columns of a recording's rows."""
    return [*ROW_COLUMNS, *(column for spec in info.channels for column in spec.columns())]


def kinds_of(info: RunInfo) -> list[pl.DataType]:
    """Types of all columns of a recording's rows."""
    kinds = list(ROW_KINDS.values())
    for spec in info.channels:
        kinds += [polars_kind(spec.dtype)] * spec.size
    return kinds


def dump_header(names: Sequence[str]) -> bytes:
    """The first line of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def load_header(content: bytes, file: Path) -> tuple[list[str], int]:
    """Names of the columns, and offset of the rows; 0 if the header is incomplete."""
    end = header_end(content)
    if not end:
        return [], 0
    try:
        names = next(csv.reader(io.StringIO(content[:end].decode())))
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise DataError(
            f"'{file}' is not a recording: its header cannot be read: {error}."
        ) from error
    if len(set(names)) < len(names):
        raise DataError(f"'{file}' is not a recording: two columns have the same name.")
    return names, end


def line_ends(text: bytes) -> np.ndarray:
    """The offset after each line."""
    return np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1


def header_end(content: bytes) -> int:
    """Offset of the rows; 0 if the header is incomplete. Names may contain line ends."""
    ends, quoted = line_ends(content), np.frombuffer(content, np.uint8) == ord('"')
    quotes = np.searchsorted(np.flatnonzero(quoted), ends)
    outside = ends[quotes % 2 == 0]
    return int(outside[0]) if len(outside) else 0


def dump_rows(columns: Sequence[np.ndarray]) -> memoryview:
    """Columns as lines of text.

    If Ctrl-C interrupts polars, it tries again with smaller pieces, so that it ends even if the key
    is held down.
    """
    names = map(str, range(len(columns)))  # The header is already written, so any names will do.
    text = io.BytesIO()

    def write() -> None:
        frame = pl.DataFrame([pl.Series(name, c) for name, c in zip(names, columns, strict=True)])
        frame.write_csv(text, include_header=False)

    if not_interrupted(write):
        return text.getbuffer()
    half = len(columns[0]) // 2
    if half < _FEW:
        return dump_rows(columns)
    pieces = [c[:half] for c in columns], [c[half:] for c in columns]
    return memoryview(b"".join(map(dump_rows, pieces)))


def load_rows(
    text: bytes, names: Sequence[str], kinds: Sequence[pl.DataType] | None, nullable: bool = False
) -> pl.DataFrame:
    """Parse lines. Without `kinds` the types are guessed. Raises ValueError for bad lines."""
    if not text:
        return pl.DataFrame(
            schema=dict(zip(names, kinds or [pl.Int64()] * len(names), strict=True))
        )
    try:
        # The header was read before, because polars does not unescape doubled quotes in names.
        frame = pl.read_csv(
            text,
            has_header=False,
            schema=None if kinds is None else dict(zip(names, kinds, strict=True)),
            new_columns=names if kinds is None else None,
            infer_schema_length=None,
            truncate_ragged_lines=False,
            quote_char=None,
        )
    except POLARS_ERRORS as error:
        raise ValueError(reason(error)) from None
    if frame.width != len(names):
        raise ValueError(f"a row has {frame.width} values, but there are {len(names)} columns")
    if not nullable and (empty := [c.name for c in frame if c.null_count()]):
        raise ValueError(f"values are missing in column '{empty[0]}'")
    return frame


def load_whole_lines(
    text: bytes,
    names: Sequence[str],
    kinds: Sequence[pl.DataType] | None,
    checked: Callable[[pl.DataFrame], pl.DataFrame],
    nullable: bool = False,
) -> tuple[pl.DataFrame, int]:
    """The longest run of lines from the first that can be read and pass a check, and its size."""
    ends = line_ends(text)
    good, bad = 0, len(ends) + 1  # counts of lines
    frame = load_rows(b"", names, kinds)
    while bad - good > 1:
        # All of them first: usually they are good.
        tried = len(ends) if bad > len(ends) else (good + bad) // 2
        try:
            frame = checked(load_rows(text[: ends[tried - 1]], names, kinds, nullable))
            good = tried
        except ValueError:
            bad = tried
    return frame, int(ends[good - 1]) if good else 0


def columns_by_name(frame: pl.DataFrame) -> dict[str, pl.Series]:
    """The columns of a table as a dict, in which lookups are fast."""
    return {column.name: column for column in frame.get_columns()}


def channel(columns: Mapping[str, pl.Series], spec: ChannelSpec) -> np.ndarray:
    """A channel from the columns of a table: (rows, *shape)."""
    names = spec.columns()
    out = np.empty((len(names), len(columns[names[0]])), spec.dtype)
    for element, name in zip(out, names, strict=True):
        with np.errstate(over="ignore"):
            element[:] = columns[name].to_numpy()
    return np.ascontiguousarray(out.T).reshape(-1, *spec.shape)


def guessed_info(header: Sequence[str], frames: Sequence[pl.DataFrame], path: Path) -> RunInfo:
    """Guess the description of a table; ``obs[0]`` and ``obs[1]`` are a channel ``obs``."""
    groups: dict[str, list[str]] = {}
    known = set(header)
    for column in header:
        if column not in ROW_COLUMNS:
            name, bracket, _ = column.partition("[")
            element = bracket and column.endswith("]") and name not in known
            groups.setdefault(name if element else column, []).append(column)
    tables = [columns_by_name(frame) for frame in frames]
    channels = []
    for name, columns in groups.items():
        dtypes = [table[column].to_numpy().dtype for table in tables for column in columns]
        dtype = np.result_type(*dtypes) if dtypes else np.dtype("float64")
        if dtype.kind not in "biuf":
            raise DataError(
                f"'{path}' is not a recording: not all values of '{name}' are numbers or flags."
            )
        shaped = columns != [name]
        channels.append(
            ChannelSpec(
                name=name,
                dtype=dtype,
                shape=(len(columns),) if shaped else (),
                elements=tuple(c[len(name) + 1 : -1] for c in columns) if shaped else (),
            )
        )
    envs: set[int] = set()
    step_dt = 0.0
    for frame in frames:
        envs |= set(frame["env"].unique().to_list())
        started = np.flatnonzero(frame["step"].to_numpy() > 0)
        if len(started) and not step_dt:
            row = int(started[0])
            step_dt = float(frame["time"][row]) / int(frame["step"][row])
    return RunInfo(channels=tuple(channels), envs=tuple(sorted(envs)), step_dt=step_dt)
