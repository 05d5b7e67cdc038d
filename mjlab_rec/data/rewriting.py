"""Write recorded episodes to a new recording, a few at a time, whatever its format."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.copying import episode_of, options_for
from mjlab_rec.data.episode_batches import batches
from mjlab_rec.data.export.place import IfExists, check_target, placed
from mjlab_rec.data.export.targets import TARGETS
from mjlab_rec.data.files import META, local_path
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.formats.pieces import Pieces
from mjlab_rec.data.formats.registry import formats, writer_class
from mjlab_rec.data.origins import ORIGIN
from mjlab_rec.data.pictures.codec import parse
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo, bytes_of

Progress = Callable[[int, int], None]


@dataclass(kw_only=True)
class OutputOptions:
    """How a new recording is written."""

    format: str = ""
    """Name of the format; empty: the one that the suffix of the path says, or hdf5."""
    compression: str | None = None
    """One of the format's compressions; None: uncompressed."""
    if_exists: IfExists = "error"
    """What to do if the path exists: "error", "overwrite", "number" (use the next free name)."""


def write_episodes(
    rollouts: Rollouts,
    indices: Sequence[int],
    out: str | Path,
    options: OutputOptions | None = None,
    *,
    how: str,
    progress: Progress | None = None,
    changed: Iterable[Episode] | None = None,
    channels: Sequence[ChannelSpec] | None = None,
    parts: Mapping[int, np.ndarray] | None = None,
    **said: Any,
) -> list[Path]:
    """Write episodes of a recording to a new one, with their environments and numbers.

    The new recording has an attached file "origin.csv": the file, environment and number of each
    episode where it was recorded, and the columns that only its table of episodes had.

    Args:
        rollouts: The recording, or several that were opened as one.
        indices: Rows of its table of episodes.
        out: Path of the new recording.
        options: Its format, and what to do if it exists.
        how: What makes it, such as "merge", for its description.
        progress: Called with the rows that are written, and all rows.
        changed: The episodes to write in place of those in the recording, in any order.
        channels: Their channels, if others.
        parts: For those episodes that are not written as a whole: whether a row is, (rows,).
        said: What else its description says about how it was made.

    Returns:
        The files of the new recording.
    """
    options = options or OutputOptions()
    parts = parts or {}
    rows = rollouts.episodes["rows"].to_numpy()[list(indices)].astype(np.int64)
    total = int(rows.sum()) - sum(int((~kept).sum()) for kept in parts.values())
    info = _new_info(rollouts, indices, how, said)
    if channels is not None:
        info = replace(info, channels=tuple(channels))
    format = options.format or format_by_name(local_path(out))

    def counted() -> Iterator[Episode]:
        done = 0
        for episode in _chosen(rollouts, indices, parts) if changed is None else changed:
            yield episode
            done += episode.rows
            if progress is not None:
                progress(done, total)

    with placed(out, options.if_exists, marks_of(format), rollouts.paths) as (staged, final):
        writer = writer_class(format)(
            info,
            options_for(rows, info, path=str(staged), compression=options.compression),
        )
        try:
            writer.write_episodes(counted())
            writer.gaps = rollouts.gaps
        finally:
            writer.close()
        names = [file.name for file in writer.files]
    return [final.parent / name for name in names]


def check_outputs(
    rollouts: Rollouts, outs: Sequence[str | Path], options: OutputOptions | None
) -> None:
    """Raise if one of several new recordings cannot be written, before any of them is."""
    options = options or OutputOptions()
    known = set()
    for out in outs:
        place = os.path.realpath(local_path(out))
        if place in known:
            raise DataError(f"'{out}' is given twice. Give each new recording its own path.")
        known.add(place)
        marks = marks_of(options.format or format_by_name(local_path(out)))
        check_target(out, options.if_exists, marks, rollouts.paths)


def marks_of(format: str) -> tuple[str, ...]:
    """The files of which one is in a folder of a format, as its writers know them."""
    return TARGETS[format].marks if format in TARGETS else (META,)


def format_by_name(path: Path) -> str:
    """The format that the suffix of a path says; hdf5 if it says none."""
    for format in formats():
        if format.matches_name(path):
            return format.name
    return "hdf5"


def episodes_of(rollouts: Rollouts, indices: Iterable[int]) -> Iterator[Episode]:
    """Episodes by their rows in the table, read several at a time."""
    info, table = rollouts.info, rollouts.episodes
    columns = {name: table[name].to_list() for name in EPISODE_COLUMNS}
    names = list(info.kinds)
    each = bytes_of(info.kinds.values())
    for batch in batches(indices, columns["rows"], each):
        arrays = rollouts.read_many(batch, names)
        first = 0
        for index in batch:
            after = first + columns["rows"][index]
            yield episode_of(
                {name: values[index] for name, values in columns.items()},
                {name: values[first:after] for name, values in arrays.items()},
                rollouts.model(index),
            )
            first = after


def _chosen(
    rollouts: Rollouts, indices: Sequence[int], parts: Mapping[int, np.ndarray]
) -> Iterator[Episode]:
    """Episodes, some of them only in part."""
    for whole, some in itertools.groupby(indices, lambda index: index not in parts):
        if whole:
            yield from episodes_of(rollouts, some)
            continue
        for index in some:
            yield _part_of(rollouts, index, parts[index])


def _part_of(rollouts: Rollouts, index: int, rows: np.ndarray) -> Episode:
    """Some rows of an episode; the others are not read."""
    edges = np.flatnonzero(np.diff(rows, prepend=False, append=False)).reshape(-1, 2)
    arrays = _read_ranges(rollouts, index, edges, rollouts.info.kinds)
    row = rollouts.episodes.row(index, named=True)
    if row["start"] is not None:  # control steps before the first row that is left
        (opening,) = _read_ranges(rollouts, index, np.array([[0, 1]]), ["step"])["step"]
        row["start"] += int(arrays["step"][0]) - int(opening)
    if "reward" in arrays and arrays["reward"].ndim == 1:
        row["recorded_return"] = float(arrays["reward"].astype(np.float64).sum())
    return episode_of({**row, "partial": True}, arrays, rollouts.model(index))


def _read_ranges(
    rollouts: Rollouts, index: int, ranges: np.ndarray, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Rows of an episode, given as first rows and rows after the last, (n, 2)."""
    count = ranges[:, 1] - ranges[:, 0]
    pieces = Pieces(episode=np.full(len(ranges), index), first=ranges[:, 0], count=count)
    kinds = ((name, *rollouts.info.kinds[name]) for name in names)
    arrays = {name: np.empty((pieces.rows, *shape), dtype) for name, dtype, shape in kinds}
    for task in rollouts.reader.reading(pieces, arrays, {}):
        task()
    return arrays


def _new_info(
    rollouts: Rollouts, indices: Sequence[int], how: str, said: dict[str, Any]
) -> RunInfo:
    """The description of a new recording of some episodes."""
    info = rollouts.info
    table = rollouts.origins[list(indices)]
    files = table["file"].unique(maintain_order=True).to_list()
    made = {"how": how, "mjlab_rec": _own_version(), "sources": files[:1000], **said}
    before = info.about.get("made")
    return replace(
        info,
        channels=tuple(map(lossless, info.channels)),
        about={**info.about, "made": [*(before if isinstance(before, list) else []), made]},
        attachments={**info.attachments, ORIGIN: table.write_csv().encode()},
    )


def lossless(spec: ChannelSpec) -> ChannelSpec:
    """A channel whose pictures stay as they are: encoded again they would change once more."""
    return replace(spec, codec="png") if spec.codec and parse(spec.codec).lossy else spec


def _own_version() -> str:
    try:
        return version("mjlab_rec")
    except PackageNotFoundError:
        return "unknown"
