"""What an export keeps of the recording besides its rows, so that an import restores all of it.

It is a Parquet file with a row per stretch: the columns of the table of episodes, also those that
recorders added, and "stretch_rows", its number of rows. The metadata has the description of the
recording, and the places of channels in the export.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.export.source import Source
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.row_table import POLARS_ERRORS
from mjlab_rec.data.schema import DataError, RunInfo

FILE = "mjlab_rec_export.parquet"
"""Its name in a folder."""
_KEY = "mjlab_rec"
_ROWS = "stretch_rows"


@dataclass(kw_only=True)
class Record:
    """What was kept of a recording."""

    info: RunInfo
    paths: dict[str, str]  # channel or "step" -> its place in the export
    rows: list[dict[str, Any]]  # row of the table of episodes of each stretch
    counts: np.ndarray  # (S,), rows of each stretch

    def episodes(self) -> list[list[int]]:
        """The numbers of the stretches of each episode."""
        found: list[list[int]] = []
        for number, row in enumerate(self.rows):
            before = self.rows[number - 1] if number else {}
            if found and all(row[name] == before[name] for name in ("env", "number")):
                found[-1].append(number)
            else:
                found.append([number])
        return found


def dump(source: Source, paths: Mapping[str, str]) -> bytes:
    """The record of an export, after all batches were read.

    Args:
        source: What was exported.
        paths: The place of each channel and of "step".
    """
    info = source.info
    try:
        text = episode_table.dump_info(info, attachments=True, paths=dict(paths))
    except DataError:
        source.note(
            "Attached files are left out, because they are too large:"
            f" {', '.join(info.attachments)}."
        )
        text = episode_table.dump_info(
            replace(info, attachments={}), attachments=True, paths=dict(paths)
        )
    columns = {
        name: np.concatenate([batch.table[name] for batch in source.stretches])
        for name in source.stretches[0].table
    }
    counts = np.concatenate([batch.counts for batch in source.stretches])
    frame = pl.DataFrame({**columns, _ROWS: counts})
    content = io.BytesIO()
    frame.write_parquet(content, metadata={_KEY: text})
    return content.getvalue()


def load(content: bytes, what: str) -> Record:
    """The inverse of ``dump``; raises DataError for anything else."""
    with damage(f"The record of the export in {what}"):
        try:
            about = pl.read_parquet_metadata(io.BytesIO(content))
            frame = pl.read_parquet(io.BytesIO(content), columns=[*EPISODE_COLUMNS, _ROWS])
            counts = frame[_ROWS].cast(pl.Int64, strict=True)
        except POLARS_ERRORS as error:
            raise DataError(f"The record of the export in {what} is damaged: {error}.") from None
        if _KEY not in about or counts.null_count():
            raise DataError(f"The record of the export in {what} is not from mjlab_rec.")
        info, data = episode_table.load_info(about[_KEY], what)
        paths = data.get("paths")
        names = {"step", *(spec.name for spec in info.channels)}
        if not isinstance(paths, dict) or not all(
            isinstance(path, str) and name in names for name, path in paths.items()
        ):
            raise DataError(f"The record of the export in {what} is damaged: it has no paths.")
        rows = episode_table.checked(frame.drop(_ROWS).to_dicts(), Path(what))
        if not {row["env"] for row in rows} <= set(info.envs):
            raise DataError(
                f"The record of the export in {what} is damaged: it has episodes of environments"
                " that were not recorded."
            )
        return Record(info=info, paths=paths, rows=rows, counts=counts.to_numpy())
