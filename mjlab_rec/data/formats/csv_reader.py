"""Read tables of comma-separated values, finished or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mjlab_rec.data.files import parts, sidecar
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Reader
from mjlab_rec.data.schema import ROW_COLUMNS, ChannelSpec, DataError, RunInfo


class CsvReader(Reader):
    """Reads a table and its parts, which it holds in memory.

    What a table of rows doesn't tell is null in the table of episodes: always where an episode
    starts and whether it was a success; its flags where there are no columns "terminated" and
    "truncated"; its return where there is no column "reward" or a row is missing. If only some
    steps were recorded, an episode may have gone on after its last row, so that its length, return
    and flags are known only if that row's flags say that it ended there.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        path = Path(path)
        self.check = check
        described = sidecar(path)
        known = None
        self._gaps = 0
        self.holes = False
        """Whether some steps are missing."""
        if described.exists():
            known, about = episode_table.load_info(described.read_bytes(), described)
            self._gaps, self.holes = about["gaps"], about["holes"]
        self.header: list[str] = []
        frames = [frame for file in parts(path) if (frame := self._load(file, known)) is not None]
        self.info = known or _guessed_info(self.header, frames, path)
        columns = [*ROW_COLUMNS, *(c for spec in self.info.channels for c in spec.columns())]
        if self.header and known and self.header != columns:
            raise DataError(
                f"'{path}' does not have the columns that '{described}' says. If it was edited,"
                f" remove '{described.name}', and the types are guessed."
            )
        if frames:
            frame = pl.concat(frames, how="vertical_relaxed")
            self._frame = frame.sort("env", "episode", "step")
        else:
            self._frame = pl.DataFrame(schema=dict.fromkeys(columns, pl.Int32))
        keys = self._frame.select("env", "episode").to_numpy()
        new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))[: len(keys)]
        self._bounds = np.append(np.flatnonzero(new), len(keys))
        self.episodes = self._table()

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        specs = {spec.name: spec for spec in self.info.channels}
        episode_table.check_names(channels, specs)
        first, last = int(self._bounds[index]), int(self._bounds[index + 1])
        rows = self._frame.slice(first, last - first)
        arrays = {}
        for name in channels:
            if name not in specs:
                arrays[name] = rows[name].to_numpy().astype(np.int32)
                continue
            spec = specs[name]
            out = np.empty((spec.size, last - first), spec.dtype)
            for element, column in zip(out, spec.columns(), strict=True):
                element[:] = rows[column].to_numpy()
            arrays[name] = np.ascontiguousarray(out.T).reshape(-1, *spec.shape)
        return arrays

    @property
    def gaps(self) -> int:
        return self._gaps

    def close(self) -> None:
        pass

    def _load(self, file: Path, known: RunInfo | None) -> pl.DataFrame | None:
        """The rows of a part, up to the last line that is complete; None if there is none."""
        content = file.read_bytes()
        start, stop = header_end(content), content.rfind(b"\n") + 1
        if not start:
            return None
        try:
            header = next(csv.reader(io.StringIO(content[:start].decode())))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"'{file}' is not a table as text: {error}.") from error
        missing = [name for name in ROW_COLUMNS if name not in header]
        if missing:
            raise DataError(
                f"'{file}' is not a recording: it has no column {', '.join(missing)}. Its columns"
                f" are: {', '.join(header[:10])}{', ...' if len(header) > 10 else ''}."
            )
        if self.header and header != self.header:
            raise DataError(f"'{file}' has other columns than the parts before it.")
        self.header = header
        if start == stop:
            return None
        kinds = _polars_types(known) if known else {}
        typed = set(header) <= set(kinds)
        try:
            # The header was read above, as polars leaves doubled quotes in names as they are.
            return pl.read_csv(
                content[start:stop],
                has_header=False,
                new_columns=header,
                schema_overrides=[kinds[name] for name in header] if typed else None,
                infer_schema_length=0 if typed else None,
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(f"'{file}' is damaged: {error}") from error

    def _table(self) -> pl.DataFrame:
        first, after = self._bounds[:-1], self._bounds[1:]
        names = {spec.name for spec in self.info.channels if not spec.shape}
        complete = self.info.every == 1 and not self.holes
        total: list[float | None] = [None] * len(first)
        if "reward" in names and len(first):
            reward = self._frame["reward"].to_numpy().astype(np.float64)
            total = np.add.reduceat(reward, first).tolist()

        def flag(name: str) -> pl.Expr:
            said = pl.col(name).cast(pl.Boolean) if name in names else pl.lit(None, pl.Boolean)
            return (said if complete else pl.when(said).then(pl.lit(True))).alias(name)

        # An unknown flag leaves unknown whether the last row is the last step.
        ended = pl.col("terminated") | pl.col("truncated") | pl.lit(complete)
        length = pl.when(ended).then(pl.col("length"))
        table = (
            self._frame[after - 1]
            .select(
                pl.col("env"),
                pl.col("episode").alias("number"),
                (pl.col("step") + 1).alias("length"),
                pl.Series("rows", after - first),
                pl.Series("return", total, pl.Float64),
                flag("terminated"),
                flag("truncated"),
            )
            .with_columns(
                length.alias("length"),
                pl.when(length == pl.col("rows")).then(pl.col("return")).alias("return"),
                start=None,
                recorded_return=pl.col("return"),
                cut=~(pl.col("terminated") | pl.col("truncated")),
                success=None,
                partial=None,
            )
        )
        return table.select(
            pl.col(name).cast(getattr(pl, dtype)) for name, dtype in EPISODE_COLUMNS.items()
        )


def header_end(content: bytes) -> int:
    """Where the rows begin; 0 if even the header is not complete. Names may contain line ends."""
    end = content.find(b"\n")
    while end >= 0 and content.count(b'"', 0, end) % 2:
        end = content.find(b"\n", end + 1)
    return end + 1


def _polars_types(info: RunInfo) -> dict[str, type[pl.DataType]]:
    """The type of each column."""
    kinds: dict[str, type[pl.DataType]] = {
        "time": pl.Float64,
        "env": pl.Int32,
        "episode": pl.Int32,
        "step": pl.Int32,
    }
    for spec in info.channels:
        dtype = np.float32 if spec.dtype == np.float16 else spec.dtype
        kind = pl.Series(np.zeros(0, dtype)).dtype
        kinds |= dict.fromkeys(spec.columns(), kind)  # type: ignore[arg-type]
    return kinds


def _guessed_info(header: list[str], frames: list[pl.DataFrame], path: Path) -> RunInfo:
    """A description of a table that has none: columns such as ``obs[0]`` are one channel."""
    groups: dict[str, list[str]] = {}
    for column in header:
        if column not in ROW_COLUMNS:
            name, bracket, _ = column.partition("[")
            element = bracket and column.endswith("]") and name not in header
            groups.setdefault(name if element else column, []).append(column)
    channels = []
    for name, columns in groups.items():
        dtypes = [frame[column].to_numpy().dtype for frame in frames for column in columns]
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
    rows = pl.concat(frames, how="vertical_relaxed") if frames else None
    started = rows.filter(pl.col("step") > 0) if rows is not None else None
    step_dt = (
        float(started["time"][0] / started["step"][0])
        if started is not None and len(started)
        else 0.0
    )
    envs = tuple(rows["env"].unique().sort().to_list()) if rows is not None else ()
    return RunInfo(channels=tuple(channels), envs=envs, step_dt=step_dt)
