"""Export recordings to the formats of learning libraries and data tools."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mjlab_rec.data.export.place import IfExists, placed
from mjlab_rec.data.export.source import Progress, Source
from mjlab_rec.data.export.targets import target_named
from mjlab_rec.data.files import local_path
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of an export."""

    path: Path
    """The file or folder."""

    episodes: int
    """Episodes in it. An episode with missing rows is exported as several without a gap, unless the
    format can say which rows are missing."""

    rows: int
    """Rows in it."""

    notes: tuple[str, ...]
    """What the format cannot hold, a sentence each."""


def export_rollouts(
    source: Rollouts | str | Path,
    out: str | Path,
    format: str,
    *,
    channels: Sequence[str] | None = None,
    if_exists: IfExists = "error",
    progress: Progress | None = None,
    **options: Any,
) -> Exported:
    """Write a recording in another format. See the README of ``mjlab_rec.data`` for the formats.

    It reads and writes a few megabytes at a time. The result appears when it is complete.

    Args:
        source: A recording, or its path.
        out: The file or folder to write.
        format: One of ``mjlab_rec.data.export.TARGETS``, such as "minari".
        channels: Names of channels; None: all.
        if_exists: What to do if `out` exists: raise, replace it, or use the next free name.
        progress: Called with the rows done and the number of all rows.
        options: Options of the format, such as ``observation=["actor"]``.
    """
    target = target_named(format)
    target.check_options(options, format)
    if not isinstance(source, Rollouts):
        with open_rollouts(source) as rollouts:
            return export_rollouts(
                *(rollouts, out, format),
                channels=channels,
                if_exists=if_exists,
                progress=progress,
                **options,
            )
    if not len(source):
        raise DataError("The recording has no episodes, so there is nothing to export.")
    path = local_path(out)
    if target.suffix and not path.suffix and not path.is_dir():
        path = path.with_name(path.name + target.suffix)
    from_path = getattr(source, "path", None)
    read = Source(source, channels, progress)
    with placed(path, if_exists, target.marks, from_path) as (staged, final):
        write = target.function()
        if "final_path" in inspect.signature(write).parameters:
            options["final_path"] = final
        write(read, staged, **options)
    return Exported(
        path=final,
        episodes=sum(len(batch) for batch in read.stretches),
        rows=sum(batch.rows for batch in read.stretches),
        notes=tuple(read.notes),
    )
