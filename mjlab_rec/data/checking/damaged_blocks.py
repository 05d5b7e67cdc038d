"""Name the episodes that bad values in blocks belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.checking.rows import RowChecks
from mjlab_rec.data.formats.hdf5_scan import BadItems, bad_items

if TYPE_CHECKING:
    from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader


def check_blocks(
    reader: Hdf5Reader,
    rows: RowChecks,
    finite: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Read all blocks of a recording, and note what is wrong with its episodes."""
    for bad in bad_items(reader.parts, finite, progress):
        run, block = reader.place(bad.part, bad.block)
        path = bad.column.column.path
        group, _, name = path.partition("/")
        spec = bad.column.column.spec
        if spec is not None:
            name = spec.name if group == "blocks" else f"next value of {spec.name}"
        if group == "final":
            _note_ends(rows, bad, name, reader.ended_in(run, block))
        else:
            _note_pieces(rows, bad, name or group, group, reader.segments_in(run, block))


def _note_pieces(rows: RowChecks, bad: BadItems, name: str, group: str, pieces: np.ndarray) -> None:
    """Note bad values of environments in a block."""
    column = bad.column.column
    if column.items and column.path != "index/step":
        env = pieces["env_index"]
        pieces = pieces[(env >= bad.first) & (env < bad.first + bad.count)]
    if group == "tail":  # the value after the last row
        pieces = pieces[pieces["stop"] == bad.part.index["rows"][bad.block]]
    for piece in pieces:
        first, size = int(piece["row"]), int(piece["stop"] - piece["start"])
        index = int(piece["index"])
        if bad.rows is None:
            span = first, first + size - 1
            rows.add("checksum", index, name, bad.why, span, str(bad.part.path))
            continue
        mask = bad.rows[piece["env_index"] - bad.first, piece["start"] : piece["stop"]]
        rows.note_not_finite(index, name, first + np.flatnonzero(mask))


def _note_ends(rows: RowChecks, bad: BadItems, name: str, ended: np.ndarray) -> None:
    """Note bad values of the ends of episodes in a block."""
    for place in range(bad.first, bad.first + bad.count):
        index = int(ended[place]) if place < len(ended) else -1
        if index < 0:
            continue
        last = rows.rows_of(index) - 1
        if bad.rows is None:
            rows.add("checksum", index, name, bad.why, (last, last), str(bad.part.path))
        elif bad.rows[place - bad.first].any():
            rows.note_not_finite(index, name, np.array([last]))
