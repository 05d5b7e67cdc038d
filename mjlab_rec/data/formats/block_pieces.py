"""Read pieces of episodes from blocks: a few large copies instead of one for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.data.formats.block_strips import BlockStrips
from mjlab_rec.data.formats.pieces import Pieces, ranges
from mjlab_rec.data.schema import ChannelSpec

if TYPE_CHECKING:
    from mjlab_rec.data.formats.blocks import BlockRun

_LARGEST = 4 << 20  # bytes of a channel that are read at once
_GAP = 128 << 10  # bytes of a channel that are read though they are not wanted

# Runs of rows: first row in the source and in the result, rows of a run, number of runs, and rows
# from one run to the next in the source and in the result.
_Copy = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Wanted:
    """What to read, as in ``Reader.reading``, and where it is stored."""

    runs: Sequence[BlockRun]
    specs: Sequence[Mapping[str, ChannelSpec]]  # channels of each run, by name
    strips: BlockStrips
    parts: Parts
    out: Mapping[str, np.ndarray]
    after: Mapping[str, np.ndarray]


@dataclass(kw_only=True)
class Parts:
    """The parts of pieces that are in n strips, ordered by block, environment and row."""

    place: np.ndarray  # (n,), number of the block
    env_index: np.ndarray
    row: np.ndarray  # first row in the block
    size: np.ndarray
    into: np.ndarray  # place of the first row in the result
    run: np.ndarray
    end: np.ndarray  # the episode's end; -1: it has none
    began: np.ndarray  # control step of the episode's start
    piece: np.ndarray  # number of the piece if it ends with this part, else -1
    whole: np.ndarray  # whether the part ends with the strip's last row

    def __getitem__(self, which: slice | np.ndarray) -> Parts:
        return Parts(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def reading(wanted: Wanted) -> Iterator[Callable[[], None]]:
    """See ``Reader.reading``."""
    parts, strips = wanted.parts, wanted.strips
    bounds = np.flatnonzero(np.diff(parts.place, prepend=-1, append=-1))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        number = int(parts.run[first])
        specs, block = wanted.specs[number], int(parts.place[first] - strips.before[number])
        widest = max([1, *(spec.nbytes for name, spec in specs.items() if name in wanted.out)])
        for some in _env_ranges(parts[first:last], strips.rows * widest):
            yield partial(_read, wanted, number, block, some)


def _read(wanted: Wanted, number: int, block: int, parts: Parts) -> None:
    """Read parts of pieces that are in the same block of a run."""
    run, specs, after = wanted.runs[number], wanted.specs[number], wanted.after
    first, last = int(parts.env_index[0]), int(parts.env_index[-1]) + 1
    ending = parts[parts.piece >= 0]
    copies: list[_Copy] = []
    for name, array in wanted.out.items():
        if name not in specs:
            _put_steps(array, run.index.step[block], parts)
            continue
        stored = run.has(name)
        source = name if stored else specs[name].next_of
        values, env = run.strip(source, block, first, last)
        if not stored:
            _put_next(array, values, env, parts, run, source, block)
            continue
        rows = values.shape[1]  # the same for all channels of a block
        if not copies:
            copies = list(_copies(parts.env_index * rows + parts.row, parts.into, parts.size))
        _put(array, values.reshape(-1, *values.shape[2:]), env * rows, copies)
        if name in after and len(ending.piece):
            after[name][ending.piece] = _next_values(run, name, block, ending, values, env)


def split(strips: BlockStrips, pieces: Pieces) -> Parts:
    """The parts of pieces, in the order in which they are stored."""
    first = strips.base[pieces.episode] + pieces.first
    stop = first + pieces.count
    opening = np.searchsorted(strips.first, first, "right") - 1
    counts = np.searchsorted(strips.first, stop - 1, "right") - opening
    piece = np.repeat(np.arange(len(pieces)), counts)
    number = np.repeat(opening, counts) + ranges(counts)
    start = np.maximum(first[piece], strips.first[number])
    after = np.minimum(stop[piece], strips.bounds[number + 1])
    closing = np.full(len(piece), -1)
    last = np.cumsum(counts) - 1
    closing[last] = np.arange(len(pieces))
    of = strips.of[number]
    parts = Parts(
        place=strips.place[number],
        env_index=strips.lane[number],
        row=strips.start[number] + start - strips.first[number],
        size=after - start,
        into=pieces.into[piece] + start - first[piece],
        run=strips.run[number],
        end=strips.end[of],
        began=strips.began[of],
        piece=closing,
        whole=after == strips.bounds[number + 1],
    )
    key = (parts.place * strips.lanes + parts.env_index) * strips.rows + parts.row
    if (np.diff(key) < 0).any():
        parts = parts[np.argsort(key, kind="stable")]
    return parts


def _env_ranges(parts: Parts, nbytes: int) -> Iterator[Parts]:
    """Parts of a block in environments that are close to each other.

    `nbytes` are those of an environment's rows.
    """
    most, gap = max(1, _LARGEST // max(nbytes, 1)), max(1, _GAP // max(nbytes, 1))
    env = parts.env_index
    if env[-1] - env[0] < most and (len(env) == 1 or int(np.diff(env).max()) <= gap):
        yield parts
        return
    cut = (np.diff(env) > gap) | (np.diff(env // most) > 0)
    bounds = [0, *(np.flatnonzero(cut) + 1).tolist(), len(env)]
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        yield parts[first:last]


def _put(out: np.ndarray, values: np.ndarray, first: int, copies: Sequence[_Copy]) -> None:
    """Copy rows of a block; `values` are those from row `first` on, environment by environment."""
    for source, into, size, count, from_stride, to_stride in copies:
        at = source - first
        if count == 1:
            out[into : into + size] = values[at : at + size]
        else:
            to = _strided(out, into, to_stride, count, size)
            to[...] = _strided(values, at, from_stride, count, size)


def _strided(array: np.ndarray, first: int, stride: int, count: int, size: int) -> np.ndarray:
    """`count` runs of `size` rows, each `stride` rows after the one before it."""
    row = array.strides[0]
    return np.ndarray(
        (count, size, *array.shape[1:]),
        array.dtype,
        array,
        first * row,
        (stride * row, *array.strides),
    )


def _copies(source: np.ndarray, into: np.ndarray, size: np.ndarray) -> Iterator[_Copy]:
    """Few copies that do the same."""
    stop = source + size
    new = np.ones(len(source), bool)
    new[1:] = (source[1:] != stop[:-1]) | (into[1:] != (into + size)[:-1])
    at = np.flatnonzero(new)
    sources, intos = source[at].tolist(), into[at].tolist()
    sizes = np.add.reduceat(size, at).tolist()
    first, end = 0, len(sizes)
    while first < end:
        a, b, n = sources[first], intos[first], sizes[first]
        last = first + 1
        step = to = n
        if last < end and sizes[last] == n:
            step, to = sources[last] - a, intos[last] - b
            if step > 0 and to > 0:
                at_source, at_into = a + step, b + to
                while (
                    last < end
                    and sizes[last] == n
                    and sources[last] == at_source
                    and intos[last] == at_into
                ):
                    last, at_source, at_into = last + 1, at_source + step, at_into + to
        yield a, b, n, last - first, step, to
        first = last


def _rows(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Number of the part, and row in the block, for all rows."""
    number = np.repeat(np.arange(len(parts.size)), parts.size)
    return number, ranges(parts.size) + parts.row[number]


def _put_steps(out: np.ndarray, step: np.ndarray, parts: Parts) -> None:
    """The steps of the episode before each row."""
    number, row = _rows(parts)
    values = step.take(row) - parts.began.take(number)
    done = 0
    for _, into, size, count, _, stride in _copies(
        np.cumsum(parts.size) - parts.size, parts.into, parts.size
    ):
        for each in range(count):
            at = into + each * stride
            out[at : at + size] = values[done : done + size]
            done += size


def _next_values(
    run: BlockRun, source: str, block: int, parts: Parts, values: np.ndarray, first_env: int
) -> np.ndarray:
    """What follows the last row of each part, for a chained channel."""
    last = parts.row + parts.size - 1
    found = values[parts.env_index - first_env, np.minimum(last + 1, values.shape[1] - 1)]
    ended = parts.whole & (parts.end >= 0)
    if ended.any():
        ends = run.index.ends[parts.end]
        ended &= (ends["block"] == block) & (ends["row"] == last)
    if ended.any():
        found[ended] = run.finals(source, parts.end[ended])
    cut = parts.whole & ~ended
    if cut.any():
        found[cut] = run.tails(source, block, parts.env_index[cut])
    return found


def _put_next(
    out: np.ndarray,
    values: np.ndarray,
    first_env: int,
    parts: Parts,
    run: BlockRun,
    source: str,
    block: int,
) -> None:
    """Values of a channel that is not stored: the next row's values of another one."""
    out[parts.into + parts.size - 1] = _next_values(run, source, block, parts, values, first_env)
    number, row = _rows(parts)
    into = ranges(parts.size) + parts.into[number]
    more = ranges(parts.size) + 1 < parts.size[number]
    at = (parts.env_index - first_env)[number[more]]
    out[into[more]] = values[at, row[more] + 1]
