"""Import datasets of Minari."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mjlab_rec.data.export.minari import METADATA
from mjlab_rec.data.export.record import FILE
from mjlab_rec.data.formats import episode_table, plain_files
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.importing.base import Foreign
from mjlab_rec.data.importing.guessed import Guessed
from mjlab_rec.data.importing.hdf5_groups import EpisodeGroups
from mjlab_rec.data.importing.minari_tables import FORMATS, EpisodeTables, spaces_of
from mjlab_rec.data.importing.recorded import Recorded, read_record, usable
from mjlab_rec.data.schema import DataError

_NAMES = {
    "rewards": "reward",
    "terminations": "terminated",
    "truncations": "truncated",
}


def folder_of(path: Path) -> Path | None:
    """The folder of a dataset, given it or the folder "data" in it; None if it is none."""
    for folder in (path, path.parent):
        if path.is_dir() and (folder / METADATA).is_file():
            return folder
    return None


def open_minari(path: Path, step_dt: float, use_record: bool) -> Foreign:
    """Open a dataset, given its folder."""
    folder = folder_of(path)
    if folder is None:
        raise DataError(f"'{path}' is no dataset of Minari: it has no {METADATA}.")
    with damage(f"'{folder / METADATA}'", folder / METADATA):
        metadata = episode_table.load_json(plain_files.read(folder / METADATA, most=64 << 20))
    kind = metadata.get("data_format", "hdf5")
    about = {"task": str(metadata.get("dataset_id", "")), "minari": _plain(metadata)}
    if kind in FORMATS:
        tables = EpisodeTables(folder / "data", kind, spaces_of(metadata))
        return Guessed(tables, _channel, step_dt, about)
    if kind != "hdf5":
        raise DataError(
            f"'{path}' has its data in the format {kind!r}, but only hdf5, {' and '.join(FORMATS)}"
            " can be imported."
        )
    groups = EpisodeGroups(folder / "data" / "main_data.hdf5", "episode_")
    try:
        notes: list[str] = []
        record = read_record(folder / FILE) if use_record else None
        if record := usable(record, groups, notes):
            found: Foreign = Recorded(groups, record, "infos/model_fields")
        else:
            found = Guessed(groups, _channel, step_dt, about)
        found.notes[:0] = notes
        return found
    except BaseException:
        groups.close()
        raise


def _channel(path: str) -> str | None:
    """The channel for a path in an episode."""
    top, _, rest = path.partition("/")
    if top == "observations":
        return f"obs/{rest or 'actor'}"
    if top == "actions":
        return f"action/{rest}" if rest else "action"
    return _NAMES.get(path, path)


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """What describes the dataset for people."""
    keys = ("dataset_id", "algorithm_name", "author", "author_email", "code_permalink")
    more = ("description", "minari_version")
    return {key: metadata[key] for key in (*keys, *more) if key in metadata}
