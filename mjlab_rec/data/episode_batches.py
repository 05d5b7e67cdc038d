"""Groups of episodes that fit into a modest memory together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

BATCH_BYTES = 16 << 20


def batches(
    indices: Iterable[int], rows: Sequence[int | None], row_bytes: int
) -> Iterator[list[int]]:
    """Consecutive episodes, as many as fit into BATCH_BYTES, at least one.

    Args:
        indices: Rows of the episodes in the table.
        rows: Number of rows of every episode of the table.
        row_bytes: Size of a row.
    """
    batch: list[int] = []
    nbytes = 0
    for index in indices:
        size = (rows[index] or 0) * row_bytes
        if batch and nbytes + size > BATCH_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(int(index))
        nbytes += size
    if batch:
        yield batch
