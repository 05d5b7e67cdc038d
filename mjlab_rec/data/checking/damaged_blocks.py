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
    for index in range(len(reader.episodes)) if reader.damages else ():
        if why := reader.lost_rows(index):
            rows.mark(index, slice(0))  # the others are there
            rows.add("checksum", index, "", why, alone=True)
    followed = set(reader.chains(finite).values())
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
            pieces = reader.segments_in(run, block)
            _note_pieces(rows, bad, name or group, group, pieces, name in followed)


def _note_pieces(
    rows: RowChecks, bad: BadItems, name: str, group: str, pieces: np.ndarray, followed: bool
) -> None:
    """Note bad values of environments in a block.

    `followed` says whether a value is also the next value of the row before, and must be finite
    there, too.
    """
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
            span = (first + size - 1 if group == "tail" else first), first + size - 1
            _note_damage(rows, bad, index, name, span)
            continue
        mask = bad.rows[piece["env_index"] - bad.first, piece["start"] : piece["stop"]]
        wrong = first + np.flatnonzero(mask)
        rows.note_not_finite(index, name, wrong)
        if followed and len(wrong):
            rows.mark(index, np.maximum(wrong, 1) - 1)


def _note_damage(
    rows: RowChecks, bad: BadItems, index: int, name: str, span: tuple[int, int]
) -> None:
    """Note rows of an episode that are damaged, from the first to the last of `span`."""
    rows.mark(index, slice(span[0], span[1] + 1))
    rows.add("checksum", index, name, bad.why, span, str(bad.part.path), alone=True)


def _note_ends(rows: RowChecks, bad: BadItems, name: str, ended: np.ndarray) -> None:
    """Note bad values of the ends of episodes in a block."""
    for place in range(bad.first, bad.first + bad.count):
        index = int(ended[place]) if place < len(ended) else -1
        if index < 0:
            continue
        last = rows.rows_of(index) - 1
        if bad.rows is None:
            _note_damage(rows, bad, index, name, (last, last))
        elif bad.rows[place - bad.first].any():
            rows.note_not_finite(index, name, np.array([last]))
