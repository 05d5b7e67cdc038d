"""Describe a recording as plain data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.files import parts
from mjlab_rec.data.formats.csv_files import companions
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.data.video_folder import videos

if TYPE_CHECKING:
    import polars as pl

_KNOWN = ("task", "engine", "seed", "device", "num_envs", "physics_dt")


def describe(source: Rollouts | str | Path) -> dict[str, Any]:
    """What was recorded, and whether it is complete, as JSON data.

    Args:
        source: A recording, or its path.
    """
    if not isinstance(source, Rollouts):
        with open_rollouts(source, check=False) as rollouts:
            return describe(rollouts)
    info, table, about = source.info, source.episodes, source.info.about
    files = [] if source.path is None else files_of(source.path)
    versions, notes = about.get("versions"), about.get("notes")
    notes = notes if isinstance(notes, list) else []
    return {
        "path": None if source.path is None else str(source.path),
        "format": source.format,
        "files": len(files),
        "bytes": sum(file.stat(follow_symlinks=False).st_size for file in files),
        "state": source.state,
        "finished": source.finished,
        "incomplete": source.incomplete,
        **{name: about.get(name) for name in _KNOWN},
        "versions": versions if isinstance(versions, dict) else {},
        "notes": [note for note in notes if isinstance(note, str)]
        if isinstance(notes, list)
        else [],
        "step_dt": info.step_dt,
        "every": info.every,
        "envs": len(info.envs),
        "rows": source.rows,
        "rows_lost": source.gaps,
        "episodes": len(table),
        "ends": _ends(table),
        "return": _spread(table["return"]),
        "length": _spread(table["length"]),
        "channels": [_channel(spec) for spec in info.channels],
        "attachments": {name: len(content) for name, content in info.attachments.items()},
    }


def files_of(path: Path) -> list[Path]:
    """The files of the recording at a path, without following links."""
    if path.is_dir():
        found = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        return sorted(file for file in found if file.is_file() or file.is_symlink())
    more = companions(path) if path.suffix.lower() == ".csv" else ()
    more = (*more, *(video for part in parts(path) for video in videos(part)))
    return [file for file in (*parts(path), *more) if file.is_file()]


def _channel(spec: ChannelSpec) -> dict[str, Any]:
    lists = {"shape": list(spec.shape), "elements": list(spec.elements)}
    return {**spec.to_json(), "dtype": spec.dtype.name, **lists}


def _ends(table: pl.DataFrame) -> dict[str, int]:
    """How many episodes ended in which way."""
    names = "terminated", "truncated", "cut", "partial", "success"
    counts = {name: int(table[name].sum()) for name in names}
    return {**counts, "failure": int((~table["success"]).sum())}


def _spread(values: pl.Series) -> dict[str, float] | None:
    """Mean and extremes of the known values; None if there are none."""
    known = values.drop_nulls()
    if not len(known):
        return None
    numbers: dict[str, Any] = {
        "mean": known.mean(),
        "std": known.std() if len(known) > 1 else 0.0,
        "min": known.min(),
        "median": known.median(),
        "max": known.max(),
    }
    return {name: float(value) for name, value in numbers.items()}
