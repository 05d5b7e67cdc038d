"""Read pieces of episodes whose pictures are encoded: first entries, then pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.formats.block_pieces import Wanted, reading
from mjlab_rec.data.formats.pieces import ranges
from mjlab_rec.data.pictures.encoding import ENTRY_DTYPE
from mjlab_rec.data.schema import ChannelSpec

if TYPE_CHECKING:
    from mjlab_rec.data.formats.blocks import BlockRun

_TASK = 16, 1024, 16 << 20  # least and most pictures of a task, and bytes of larger ones


def decoding(wanted: Wanted) -> Iterator[Callable[[], None]]:
    """See ``Reader.reading``; all channels are encoded.

    A task decodes pictures of many blocks, because starting a decoder may take a while.
    """
    out, after, parts = wanted.out, wanted.after, wanted.parts
    entries = {name: np.zeros(len(array), ENTRY_DTYPE) for name, array in out.items()}
    ahead = {name: np.zeros(len(after[name]), ENTRY_DTYPE) for name in out if name in after}
    for read in reading(replace(wanted, out=entries, after=ahead)):
        read()
    number = np.repeat(np.arange(len(parts.size)), parts.size)
    row = ranges(parts.size) + parts.into[number]
    ending = np.flatnonzero(parts.piece >= 0)
    targets = [(out, entries, row, number), (after, ahead, parts.piece[ending], ending)]
    for arrays, found, into, of in targets:
        for name in found:
            yield from _tasks(wanted, name, found[name][into], of, arrays[name], into)


def _tasks(
    wanted: Wanted,
    name: str,
    entries: np.ndarray,
    part: np.ndarray,
    out: np.ndarray,
    into: np.ndarray,
) -> Iterator[Callable[[], None]]:
    """Tasks that decode the pictures of entries; `part` says which part each entry is of."""
    place, run = wanted.parts.place[part], wanted.parts.run[part]
    least, most, nbytes = _TASK
    count = min(most, max(least, nbytes // max(1, wanted.specs[0][name].nbytes)))
    for number in np.unique(run).tolist():
        mine = np.flatnonzero(run == number)
        spec = wanted.specs[number][name]
        for at in range(0, len(mine), count):
            some = mine[at : at + count]
            blocks = place[some] - wanted.strips.before[number]
            yield partial(
                _decode, wanted.runs[number], spec, entries[some], blocks, out, into[some]
            )


def _decode(
    run: BlockRun,
    spec: ChannelSpec,
    entries: np.ndarray,
    blocks: np.ndarray,
    out: np.ndarray,
    into: np.ndarray,
) -> None:
    values = np.empty((len(into), *out.shape[1:]), out.dtype)
    run.decode(spec, entries, blocks, values)
    out[into] = values
