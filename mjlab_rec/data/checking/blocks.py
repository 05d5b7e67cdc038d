"""Check all values of an HDF5 recording in blocks, as they lie on the disk and in several threads.

Reading whole episodes would reorder the values; comparing them with their checksums and looking for
NaN does not need that.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import hdf5_pictures
from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader
from mjlab_rec.data.formats.hdf5_stored import StoredColumn
from mjlab_rec.data.schema import ChannelSpec, DataError

T = TypeVar("T")

_PIECE_BYTES = 2 << 20  # read at once; it stays in a processor's cache
_TASK_BYTES = 16 << 20
_AHEAD = 4  # tasks per thread that wait


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
    expected: list[np.ndarray | None | DataError]
    rows: list[int]
    finite: bool


def bad_items(
    reader: Hdf5Reader, finite: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> Iterator[BadItems]:
    """Read everything; yields what is damaged, or not finite in the channels `finite`.

    Args:
        reader: The recording.
        finite: Channels in which NaN and infinity are found.
        progress: Called with the bytes that are done and all bytes.
    """
    tasks = list(_tasks(reader, set(finite)))
    sizes = [_nbytes(task.column, task.blocks, task.part) for task in tasks]
    total, done = max(sum(sizes), 1), 0
    for task, size, found in zip(tasks, sizes, _in_threads(_check, tasks), strict=True):
        yield from found
        spec = task.column.column.spec
        if spec is not None and spec.codec and not found:
            for block in task.blocks:
                yield from _bad_pictures(task, spec, block)
        done += size
        if progress is not None:
            progress(done, total)


def _tasks(reader: Hdf5Reader, finite: set[str]) -> Iterator[_Task]:
    for part in reader.parts:
        for column in part.columns.values():
            path, spec = column.column.path, column.column.spec
            if not column.column.unit:  # encoded pictures, each of which has its own checksum
                continue
            values = path.startswith(("blocks/", "final/"))
            wanted = values and spec is not None and spec.name in finite
            blocks: list[int] = []
            nbytes = 0
            for block in part.blocks:
                blocks.append(block)
                nbytes += _nbytes(column, [block], part)
                if nbytes >= _TASK_BYTES:
                    yield _task(part, column, blocks, wanted)
                    blocks, nbytes = [], 0
            if blocks:
                yield _task(part, column, blocks, wanted)


def _task(part: StoredPart, column: StoredColumn, blocks: list[int], finite: bool) -> _Task:
    expected: list[np.ndarray | None | DataError] = []
    for block in blocks:
        try:
            expected.append(part.expected(column.column, block))
        except DataError as error:
            expected.append(error)
    rows = [int(part.index["rows"][block]) for block in blocks]
    return _Task(
        part=part, column=column, blocks=blocks, expected=expected, rows=rows, finite=finite
    )


def _nbytes(column: StoredColumn, blocks: Sequence[int], part: StoredPart) -> int:
    items = sum(part.span(column.column, block)[1] for block in blocks)
    return items * column.column.nbytes


def _check(task: _Task) -> list[BadItems]:
    found: list[BadItems] = []
    for block, expected, rows in zip(task.blocks, task.expected, task.rows, strict=True):
        if isinstance(expected, DataError):
            count = task.part.span(task.column.column, block)[1]
            found.append(_bad(task, block, 0, count, str(expected)))
        else:
            found += _check_block(task, block, expected, rows)
    return found


def _check_block(
    task: _Task, block: int, expected: np.ndarray | None, rows: int
) -> Iterator[BadItems]:
    column = task.column.column
    count = task.part.span(column, block)[1]
    some = column.unit * max(1, _PIECE_BYTES // max(1, column.unit * column.nbytes))
    if column.compression:
        some = column.unit
    for first in range(0, count, some):
        size = min(some, count - first)
        try:
            content = task.column.content(block, first, size)
        except DataError as error:
            yield _bad(task, block, first, size, str(error))
            continue
        wrong = _wrong_units(content, expected, first // column.unit, column.unit * column.nbytes)
        for unit in wrong:
            start = unit * column.unit
            damaged = min(column.unit, count - start)
            why = task.part.damage(column, block, start, damaged)
            yield _bad(task, block, start, damaged, why)
        if task.finite:
            values = np.frombuffer(content, column.dtype).reshape(size, *column.shape)
            yield from _not_finite(task, block, first, values, rows)


def _bad_pictures(task: _Task, spec: ChannelSpec, block: int) -> Iterator[BadItems]:
    """Items whose entries refer to encoded pictures that are damaged."""
    for item, entries in enumerate(task.column.block(block)):
        if why := hdf5_pictures.damages(task.part, spec, block, entries.reshape(-1)):
            yield _bad(task, block, item, 1, why[0])


def _wrong_units(
    content: bytes, expected: np.ndarray | None, first: int, nbytes: int
) -> Iterator[int]:
    if expected is None:
        return
    view = memoryview(content)
    for unit, at in enumerate(range(0, len(view), nbytes), first):
        if crc32(view[at : at + nbytes]) != expected[unit]:
            yield unit


def _not_finite(
    task: _Task, block: int, first: int, values: np.ndarray, rows: int
) -> Iterator[BadItems]:
    if task.column.column.items:  # unused rows of a block are NaN
        values = values[:, :rows]
    spec = task.column.column.spec
    if spec is not None and spec.codec:
        bad = hdf5_pictures.not_finite(task.part, spec, block, values)
        if not bad.any():
            return
    else:
        if np.isfinite(values).all():
            return
        axes = 2 if task.column.column.items else 1
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


def _in_threads(work: Callable[[_Task], T], tasks: Sequence[_Task]) -> Iterator[T]:
    """Results in the order of the tasks, a few of which are worked on at a time."""
    threads = min(4, os.cpu_count() or 1)
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) >= threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
