"""Read all values of an HDF5 recording in blocks, as they lie on the disk and in several threads.

Reading whole episodes would reorder the values; comparing them with their checksums and looking for
NaN does not need that.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mjlab_rec.data.checksum import crc32, joined_crc32
from mjlab_rec.data.formats import hdf5_pictures
from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_stored import StoredColumn
from mjlab_rec.data.schema import ChannelSpec, DataError

_PIECE_BYTES = 1 << 20  # read at once; it stays in a processor's cache
_TASK_BYTES = 16 << 20
_AHEAD = 4  # tasks per thread that wait
_MANY = 64  # checksums of a block that are joined, which is faster than comparing each


@dataclass(kw_only=True)
class BadItems:
    """Items of a column in a block that are damaged or not finite."""

    part: StoredPart
    block: int
    column: StoredColumn
    first: int
    """The first item that is concerned."""
    count: int
    """Number of items."""
    why: str = ""
    """A sentence about damage; "" if values are not finite."""
    rows: np.ndarray | None = None
    """Where values are not finite: (items, rows)."""


@dataclass(kw_only=True)
class _Task:
    part: StoredPart
    column: StoredColumn
    blocks: list[int]
    finite: bool
    nbytes: int


def bad_items(
    parts: Sequence[StoredPart],
    finite: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[BadItems]:
    """Read everything; yields what is damaged, or not finite in the channels `finite`.

    Args:
        parts: The files of a recording.
        finite: Channels in which NaN and infinity are found.
        progress: Called with the bytes that are done and all bytes.
    """
    tasks = [task for part in parts for task in _tasks(part, finite)]
    total, done = max(sum(task.nbytes for task in tasks), 1), 0
    for task, found in zip(tasks, _in_threads(tasks), strict=True):
        yield from found
        spec = task.column.column.spec
        if spec is not None and spec.codec and not found:
            for block in task.blocks:
                yield from _bad_pictures(task, spec, block)
        done += task.nbytes
        if progress is not None:
            progress(done, total)


def _tasks(part: StoredPart, finite: Collection[str]) -> Iterator[_Task]:
    for stored in part.columns.values():
        column = stored.column
        # Encoded pictures have checksums of their own, and the checksums are compared with them.
        if not column.unit or column.table == "checks":
            continue
        values = column.path.startswith(("blocks/", "final/"))
        wanted = values and column.spec is not None and column.spec.name in finite
        blocks, nbytes = [], 0
        for block in part.blocks:
            blocks.append(block)
            nbytes += part.span(column, block)[1] * column.nbytes
            if nbytes >= _TASK_BYTES or block == part.blocks[-1]:
                yield _Task(part=part, column=stored, blocks=blocks, finite=wanted, nbytes=nbytes)
                blocks, nbytes = [], 0


def _in_threads(tasks: Sequence[_Task]) -> Iterator[list[BadItems]]:
    """Results in the order of the tasks, a few of which are worked on at a time."""
    threads = min(4, os.cpu_count() or 1)
    waiting: deque[Future[list[BadItems]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(_check, task))
                if len(waiting) >= threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # Whoever stops before the end does not wait for the rest.
            for future in waiting:
                future.cancel()


def _check(task: _Task) -> list[BadItems]:
    return [bad for block in task.blocks for bad in _check_block(task, block)]


def _check_block(task: _Task, block: int) -> Iterator[BadItems]:
    part, column = task.part, task.column.column
    count = part.span(column, block)[1]
    try:
        expected = part.expected(column, block)
    except DataError as error:
        yield _bad(task, block, 0, count, str(error))
        return
    join = expected is not None and column.checks(count) > _MANY
    readable, together, whole = True, 0, count - count % column.unit
    for first, size in _pieces(task, count):
        try:
            content = task.column.content(block, first, size)
        except DataError as error:
            yield _bad(task, block, first, size, str(error))
            readable = False
            continue
        if not join or first >= whole:
            yield from _wrong(task, block, first, content)
        else:
            together = crc32(content, together)
        if task.finite:
            values = np.frombuffer(content, column.dtype).reshape(size, *column.shape)
            yield from _not_finite(task, block, first, values)
    if join and expected is not None:
        units = expected[: whole // column.unit]
        if not readable or together != joined_crc32(units, column.unit * column.nbytes):
            yield from _wrong_in_block(task, block, whole)


def _pieces(task: _Task, count: int) -> Iterator[tuple[int, int]]:
    """First item and number of items of the pieces of a block that are read at once."""
    column = task.column.column
    some = column.unit
    if not column.compression:
        some *= max(1, _PIECE_BYTES // max(1, column.unit * column.nbytes))
    whole = count - count % column.unit
    for first in range(0, whole, some):
        yield first, min(some, whole - first)
    if whole < count:
        yield whole, count - whole


def _wrong_in_block(task: _Task, block: int, whole: int) -> Iterator[BadItems]:
    """Read a block once more, to find the units that are damaged."""
    for first, size in _pieces(task, whole):
        try:
            content = task.column.content(block, first, size)
        except DataError:
            continue  # That was found when it was read first.
        yield from _wrong(task, block, first, content)


def _wrong(task: _Task, block: int, first: int, content: bytes) -> Iterator[BadItems]:
    for start, count in task.column.wrong(block, first, content):
        yield _bad(
            task, block, start, count, task.part.damage(task.column.column, block, start, count)
        )


def _bad_pictures(task: _Task, spec: ChannelSpec, block: int) -> Iterator[BadItems]:
    """Items whose entries refer to encoded pictures that are damaged."""
    for item, entries in enumerate(task.column.block(block)):
        for why in hdf5_pictures.damages(task.part, spec, block, entries.reshape(-1)):
            yield _bad(task, block, item, 1, why)


def _not_finite(task: _Task, block: int, first: int, values: np.ndarray) -> Iterator[BadItems]:
    column = task.column.column
    if column.items:  # unused rows of a block are NaN
        values = values[:, : int(task.part.index["rows"][block])]
    if column.spec is not None and column.spec.codec:
        bad = hdf5_pictures.not_finite(task.part, column.spec, block, values)
        if not bad.any():
            return
    else:
        if np.isfinite(values).all():
            return
        axes = 2 if column.items else 1
        bad = ~np.isfinite(values.reshape(*values.shape[:axes], -1)).all(axis=-1)
    yield BadItems(
        part=task.part,
        block=block,
        column=task.column,
        first=first,
        count=len(values),
        rows=bad.reshape(len(values), -1),
    )


def _bad(task: _Task, block: int, first: int, count: int, why: str) -> BadItems:
    return BadItems(
        part=task.part, block=block, column=task.column, first=first, count=count, why=why
    )
