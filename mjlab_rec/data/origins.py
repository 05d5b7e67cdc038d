"""Where each episode was recorded, also after recordings were merged, split or filtered."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.schema import DataError

ORIGIN = "origin.csv"
"""Attached file of a recording made of others: where each episode comes from."""

FILE, FILE_ENV, FILE_NUMBER = "file", "file_env", "file_number"
_KEY = ["env", "number"]
_SCHEMA = {
    "env": pl.Int32(),
    "number": pl.Int32(),
    FILE: pl.String(),
    FILE_ENV: pl.Int32(),
    FILE_NUMBER: pl.Int32(),
}


def origins(
    table: pl.DataFrame, members: Sequence[tuple[Path | None, bytes | None]]
) -> pl.DataFrame:
    """For each episode its env, number, file, and env and number in that file.

    Columns that only this table of episodes has are kept.

    Args:
        table: The episodes; those of several recordings have the columns "file" and "file_number".
        members: The recordings, each with its attached file ORIGIN if it has one.
    """
    extra = [n for n in table.columns if n not in EPISODE_COLUMNS and n not in (FILE, FILE_NUMBER)]
    if FILE not in table.columns:
        path, origin = members[0]
        here = table.with_columns(
            pl.lit(str(path)).alias(FILE), pl.col("number").alias(FILE_NUMBER)
        )
        return _of_one(here, origin, path, extra)
    pieces = []
    for path, origin in members:
        mine = table.filter(pl.col(FILE) == str(path))
        pieces.append(_of_one(mine, origin, path, extra))
    return pl.concat(pieces, how="diagonal")


def _of_one(
    table: pl.DataFrame, origin: bytes | None, path: Path | None, extra: list[str]
) -> pl.DataFrame:
    here = table.select(*_KEY, FILE, pl.col("env").alias(FILE_ENV), FILE_NUMBER, *extra)
    if origin is None:
        return here
    try:
        known = pl.read_csv(io.BytesIO(origin), schema_overrides=_SCHEMA)
        known = known.select(*_SCHEMA, *(n for n in known.columns if n not in (*_SCHEMA, *extra)))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"The attached file '{ORIGIN}' of '{path}' is damaged: {error}") from None
    if not known.select(pl.struct(_KEY).is_unique().all()).item():
        raise DataError(f"The attached file '{ORIGIN}' of '{path}' lists an episode twice.")
    renamed = known.rename(
        {"env": "_env", "number": "_number", FILE: "_f", FILE_ENV: "_e", FILE_NUMBER: "_n"}
    )
    joined = here.join(
        renamed,
        left_on=[FILE_ENV, FILE_NUMBER],
        right_on=["_env", "_number"],
        how="left",
        maintain_order="left",
    )
    earlier = {FILE: "_f", FILE_ENV: "_e", FILE_NUMBER: "_n"}
    return joined.with_columns(
        pl.coalesce(old, now).alias(now) for now, old in earlier.items()
    ).drop(earlier.values())
