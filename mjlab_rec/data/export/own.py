"""Export to the formats that this package records in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mjlab_rec.data.copying import episode_of, options_for
from mjlab_rec.data.export.source import Source
from mjlab_rec.data.formats.registry import writer_class
from mjlab_rec.data.schema import Episode

_WITHOUT_MODEL = ("csv",)


def write_own(
    source: Source,
    path: Path,
    *,
    format: str,
    compression: str | None = None,
    roll_over_bytes: int = 4 << 30,
) -> None:
    """Write a recording in a format of ``mjlab_rec.data.formats``.

    Args:
        source: What to export.
        path: The file or folder.
        format: Name of the format.
        compression: One of the format's compressions; None: uncompressed.
        roll_over_bytes: Size at which the next part begins.
    """
    options = options_for(
        source.rollouts.episodes["rows"].to_numpy(),
        source.info,
        path=str(path),
        compression=compression,
        roll_over_bytes=roll_over_bytes,
    )
    writer = writer_class(format)(source.info, options)

    def episodes() -> Iterator[Episode]:
        for batch in source.batches(whole=True):
            if format in _WITHOUT_MODEL and any(batch.models):
                source.note(f"A {format} file has no place for model fields, so they are left out.")
            for number, rows in enumerate(batch.slices()):
                row = {name: values[number] for name, values in batch.table.items()}
                arrays = {name: values[rows] for name, values in batch.arrays.items()}
                yield episode_of(row, arrays, batch.models[number])

    try:
        writer.write_episodes(episodes())
        writer.gaps = source.rollouts.gaps
    finally:
        writer.close()
