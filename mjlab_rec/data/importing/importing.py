"""Import recordings of other programs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mjlab_rec.data.copying import episode_of, options_for
from mjlab_rec.data.export.lerobot import INFO
from mjlab_rec.data.export.place import IfExists, placed
from mjlab_rec.data.export.record import FILE
from mjlab_rec.data.export.source import Progress
from mjlab_rec.data.files import local_path
from mjlab_rec.data.formats.registry import writer_class
from mjlab_rec.data.formats.robomimic_layout import OWN
from mjlab_rec.data.importing.base import Foreign, Opened
from mjlab_rec.data.importing.hdf5_groups import EpisodeGroups
from mjlab_rec.data.importing.lerobot import open_lerobot
from mjlab_rec.data.importing.maniskill import PREFIX, open_maniskill
from mjlab_rec.data.importing.minari import folder_of, open_minari
from mjlab_rec.data.importing.robomimic import open_robomimic
from mjlab_rec.data.importing.torchrl import open_torchrl
from mjlab_rec.data.importing.webdataset import SHARDS, open_webdataset
from mjlab_rec.data.rewriting import format_by_name, marks_of
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError, Episode
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)

_HDF5 = (".h5", ".hdf5")


def _open_own(path: Path, step_dt: float, use_record: bool) -> Foreign:
    return Opened(open_rollouts(path))


SOURCES: dict[str, Callable[[Path, float, bool], Foreign]] = {
    "robomimic": open_robomimic,
    "isaaclab": open_robomimic,
    "minari": open_minari,
    "maniskill": open_maniskill,
    "lerobot": open_lerobot,
    "torchrl": open_torchrl,
    "webdataset": open_webdataset,
    "mjlab_rec": _open_own,
}
"""Functions that open recordings of other programs, by the name of their format."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of an import."""

    path: Path
    """The recording."""

    source_format: str
    """The format that was read."""

    episodes: int
    """Episodes in it."""

    rows: int
    """Rows in it."""

    notes: tuple[str, ...]
    """What was left out, a sentence each."""


def import_rollouts(
    source: str | Path,
    out: str | Path,
    *,
    source_format: str = "",
    format: str = "",
    compression: str | None = None,
    step_dt: float = 0.0,
    record: bool = True,
    if_exists: IfExists = "error",
    progress: Progress | None = None,
) -> Imported:
    """Make a recording of one of another program.

    What ``export_rollouts`` wrote becomes the recording that it was.

    Args:
        source: A file or folder.
        out: The recording to write.
        source_format: One of ``mjlab_rec.data.importing.SOURCES``; empty: recognised.
        format: Format of the recording; empty: by the suffix of `out`, hdf5 if it has none.
        compression: One of the format's compressions; None: uncompressed.
        step_dt: Duration of a step in seconds, if the source does not say it.
        record: Whether to restore what an export of this package kept.
        if_exists: What to do if `out` exists: raise, replace it, or use the next free name.
        progress: Called with the episodes done and the number of all episodes.
    """
    path, target = local_path(source), local_path(out)
    source_format = source_format or recognised(path)
    if source_format not in SOURCES:
        known = nearest(source_format, list(SOURCES))
        raise DataError(f"Unknown format '{source_format}' to import. {known}")
    format = format or format_by_name(target)
    foreign = SOURCES[source_format](path, step_dt, record)
    try:
        for note in foreign.notes:
            logger.warning("%s", note)
        with placed(target, if_exists, marks_of(format), path) as (staged, final):
            rows = np.array([row["rows"] for row in foreign.rows], np.int64)
            options = options_for(rows, foreign.info, path=str(staged), compression=compression)
            writer = writer_class(format)(foreign.info, options)
            try:
                writer.write_episodes(_episodes(foreign, progress))
            finally:
                writer.close()
            if progress is not None:
                progress(len(foreign.rows), len(foreign.rows))
    finally:
        foreign.close()
    return Imported(
        path=final,
        source_format=source_format,
        episodes=len(foreign.rows),
        rows=sum(row["rows"] for row in foreign.rows),
        notes=tuple(foreign.notes),
    )


def _episodes(foreign: Foreign, progress: Progress | None) -> Iterator[Episode]:
    for number, row in enumerate(foreign.rows):
        if progress is not None:
            progress(number, len(foreign.rows))
        yield episode_of(row, foreign.read(number), foreign.model(number))


def recognised(path: Path) -> str:
    """The format of a recording of another program."""
    if folder_of(path) is not None:
        return "minari"
    if (path / INFO).is_file():
        return "lerobot"
    if (path / FILE).is_file():
        return "webdataset" if any(path.glob(SHARDS)) else "torchrl"
    if path.is_file() and path.suffix.lower() in _HDF5:
        groups = EpisodeGroups(path, PREFIX)
        try:
            if groups.names:
                return "maniskill"
            if groups.holds("data") and not groups.holds(OWN) and not groups.holds("blocks"):
                return "robomimic"
        finally:
            groups.close()
    return "mjlab_rec"
