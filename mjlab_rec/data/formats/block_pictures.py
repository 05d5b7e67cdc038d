"""Read pieces of episodes whose pictures are encoded: first entries, then pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.formats.block_pieces import BlockStrips, reading, split
from mjlab_rec.data.formats.pieces import Pieces, ranges
from mjlab_rec.data.pictures.encoding import ENTRY_DTYPE
from mjlab_rec.data.schema import ChannelSpec

if TYPE_CHECKING:
    from mjlab_rec.data.formats.blocks import BlockRun

_TASK = 16, 1024, 16 << 20  # least and most pictures of a task, and bytes of larger ones


def decoding(
    runs: Sequence[BlockRun],
    specs: Sequence[Mapping[str, ChannelSpec]],
    strips: BlockStrips,
    pieces: Pieces,
    out: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
) -> Iterator[Callable[[], None]]:
    """See ``Reader.reading``; all channels in `out` are encoded. `specs` are those of each run.

    A task decodes pictures of many blocks, because starting a decoder may take a while.
    """
    entries = {name: np.zeros(len(array), ENTRY_DTYPE) for name, array in out.items()}
    ahead = {name: np.zeros(len(after[name]), ENTRY_DTYPE) for name in out if name in after}
    for read in reading(runs, specs, strips, pieces, entries, ahead):
        read()
    parts = split(strips, pieces)
    number = np.repeat(np.arange(len(parts.size)), parts.size)
    row = ranges(parts.size) + parts.into[number]
    ending = np.flatnonzero(parts.piece >= 0)
    targets = [(out, entries, row, number), (after, ahead, parts.piece[ending], ending)]
    for arrays, found, into, of in targets:
        for name in found:
            yield from _tasks(
                runs, specs, strips, name, found[name][into], parts.place[of], parts.run[of],
                arrays[name], into,
            )  # fmt: skip


def _tasks(
    runs: Sequence[BlockRun],
    specs: Sequence[Mapping[str, ChannelSpec]],
    strips: BlockStrips,
    name: str,
    entries: np.ndarray,
    place: np.ndarray,
    run: np.ndarray,
    out: np.ndarray,
    into: np.ndarray,
) -> Iterator[Callable[[], None]]:
    """Tasks that decode the pictures of entries, which are in these blocks of these runs."""
    least, most, nbytes = _TASK
    count = min(most, max(least, nbytes // max(1, specs[0][name].nbytes)))
    for number in np.unique(run).tolist():
        mine = np.flatnonzero(run == number)
        for at in range(0, len(mine), count):
            some = mine[at : at + count]
            blocks = place[some] - strips.before[number]
            yield partial(
                _decode, runs[number], specs[number][name], entries[some], blocks, out, into[some]
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
