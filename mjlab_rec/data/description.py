"""Describe a recording as plain data or as text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.files import parts
from mjlab_rec.data.formats.csv_files import companions
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import ChannelSpec
from mjlab_rec.data.video_folder import videos
from mjlab_rec.data.workers import differing
from mjlab_rec.utils.tables import format_table

if TYPE_CHECKING:
    import polars as pl

_KNOWN = ("task", "engine", "seed", "device", "num_envs", "physics_dt")
_MOST_TOLD = 5  # recordings that are not complete


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


def summary(rollouts: Rollouts) -> str:
    """What was recorded, as text."""
    info, episodes, workers = rollouts.info, rollouts.episodes, rollouts.reader.workers
    path, about = rollouts.path, info.about
    outcomes = {
        "terminated": episodes["terminated"].sum(),
        "truncated": episodes["truncated"].sum(),
        "cut": episodes["cut"].sum(),
        "success": episodes["success"].sum(),
        "failure": (~episodes["success"]).sum(),
    }
    how = ", ".join(f"{count} {name}" for name, count in outcomes.items() if count)
    rows: list[tuple[str, Any]] = [
        ("recording", path or ("several" if rollouts.paths else "in memory")),
        *([("recordings", len(rollouts.paths))] if len(rollouts.paths) > 1 else []),
        *([("workers", len(workers))] if workers else []),
        *([("parts", len(parts(path)))] if path and path.is_file() else []),
        *((name, about[name]) for name in ("task", "engine", "seed") if name in about),
        *([] if rollouts.finished else [("state", rollouts.state)]),
        ("environments", len(info.envs)),
        ("rows", rollouts.rows),
        ("rows lost", rollouts.gaps),
        ("step", f"{info.step_dt:g} s" + f", every {info.every}th recorded" * (info.every > 1)),
        ("episodes", f"{len(episodes)}" + f" ({how})" * bool(how)),
        ("return", _spread_text(episodes["return"])),
        ("length", _spread_text(episodes["length"])),
    ]
    channels = [
        (spec.name, spec.dtype, "x".join(map(str, spec.shape)) or "-", spec.units or "-")
        for spec in info.channels
    ]
    lacking = rollouts.incomplete if len(rollouts.paths) > 1 or workers else []
    more = [f"... and {len(lacking) - _MOST_TOLD} more."] * (len(lacking) > _MOST_TOLD)
    return "\n\n".join(
        [
            format_table("Rollouts", ("what", "value"), rows),
            format_table("Channels", ("name", "type", "shape", "units"), channels),
            *differing(workers),
            *(["\n".join(["Incomplete:", *lacking[:_MOST_TOLD], *more])] if lacking else []),
        ]
    )


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


def _spread_text(values: pl.Series) -> str:
    found = _spread(values)
    if found is None:
        return "unknown"
    return ", ".join(f"{name} {found[name]:g}" for name in ("mean", "min", "max"))
