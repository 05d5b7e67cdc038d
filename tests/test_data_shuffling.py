"""The order of shuffled rows is as good as a permutation, also if few of them are in memory."""

from __future__ import annotations

import numpy as np
import pytest

from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import Block, ChannelSpec, Ends, RunInfo

ENVS, ROWS, BLOCKS = 64, 16, 48
BATCH = 512
TOTAL = ENVS * ROWS * BLOCKS


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    """Rows with their number: the order of the episodes and of their rows."""
    info = RunInfo(
        channels=(ChannelSpec(name="id", dtype=np.dtype("int32")),),
        envs=tuple(range(ENVS)),
        step_dt=0.1,
    )
    writer, none = MemoryWriter(info, WriterOptions()), np.zeros(0, np.int32)
    fields = dict.fromkeys(
        ("env_index", "row", "at", "episode", "length", "total", "rows", "recorded",
         "terminated", "truncated", "success"), none,
    )  # fmt: skip
    for number in range(BLOCKS):
        step = np.arange(ROWS) + ROWS * number
        writer.write(
            Block(
                info=info,
                rows=ROWS,
                arrays={"id": (step[:, None] + ROWS * BLOCKS * np.arange(ENVS)).astype(np.int32)},
                tail={},
                step=step,
                first_episode=np.zeros(ENVS, np.int32),
                first_step=np.full(ENVS, ROWS * number, np.int32),
                total=np.zeros(ENVS),
                recorded=np.zeros(ENVS),
                ends=Ends(**fields),
            )
        )
    return Rollouts(MemoryReader(writer))


def stream(rollouts: Rollouts, memory_bytes: int, shuffle: bool = True) -> np.ndarray:
    batches = rollouts.transitions(
        BATCH, ["id"], shuffle=shuffle, seed=1, memory_bytes=memory_bytes, workers=2
    )
    return np.concatenate([batch["id"].numpy() for batch in batches]).astype(np.int64)


def faults(order: np.ndarray, few: int, clumps: float = 1.05) -> list[str]:
    """How an order differs from a random permutation.

    Args:
        order: The numbers of the rows.
        few: The number of independent choices that made it: of rows, or of groups of rows.
        clumps: How much more the numbers of rows of a kind may differ between batches than by
            chance.
    """
    number, found = len(order), []
    if not np.array_equal(np.sort(order), np.arange(number)):
        return ["not each row once"]
    allowed = 4 / np.sqrt(few)
    env, time = np.divmod(order, ROWS * BLOCKS)
    for name, values in (("row", order), ("environment", env), ("time", time)):
        if abs(np.corrcoef(np.arange(number), values)[0, 1]) > allowed:
            found.append(f"rank correlation of {name}")
    # Two random numbers below n are n / 3 apart on average.
    mean = np.abs(np.diff(order)).mean() / (number / 3)
    if abs(mean - 1) > allowed:
        found.append(f"distance of neighbours: {mean:.3f}")
    # Each batch has rows of all environments and of all times, as often as others.
    for name, values, kinds in (("environments", env, ENVS), ("blocks", time // ROWS, BLOCKS)):
        counts = np.stack([np.bincount(b, minlength=kinds) for b in values.reshape(-1, BATCH)])
        expected = BATCH / kinds
        chi = ((counts - expected) ** 2 / expected).sum(1).mean() / (kinds - 1)
        if chi > clumps:
            found.append(f"{name} of a batch: {chi:.2f}")
    return found


def test_rows_that_fit_into_memory_are_a_permutation(rollouts):
    order = stream(rollouts, 16 * TOTAL)
    assert faults(order, few=TOTAL) == []
    # Also the other way: rows that follow each other in the recording are far apart.
    apart = np.abs(np.diff(np.argsort(order))).mean() / (TOTAL / 3)
    assert abs(apart - 1) < 4 / np.sqrt(TOTAL)


def test_rows_that_do_not_fit_are_mixed_from_all_over_the_recording(rollouts):
    # A pool has a sixth of all rows: 256 tiles of 32 rows, two of which are in a batch of 512.
    order = stream(rollouts, 16 * TOTAL // 3)
    assert faults(order, few=TOTAL // 32, clumps=3.1) == []
    # Within a pool the order is random: the rows of a tile are spread over all of it.
    place = np.argsort(order)[:16]
    assert place.max() - place.min() > 0.6 * TOTAL / 6


def test_worse_orders_are_found():
    rng, rows = np.random.default_rng(0), np.arange(TOTAL)
    few = TOTAL // 32
    assert faults(rng.permutation(TOTAL), few=TOTAL) == []
    assert faults(np.append(rows[1:], rows[1]), few) == ["not each row once"]
    assert "rank correlation of row" in faults(rows, few)
    whole_batches = rng.permutation(rows.reshape(-1, BATCH)).ravel()
    assert "distance of neighbours: 0.002" in faults(whole_batches, few, 3.1)
    groups = rng.permutation(ENVS).reshape(8, -1)  # of eight episodes, shuffled one by one
    episodes = rows.reshape(ENVS, -1)
    grouped = np.concatenate([rng.permutation(episodes[group].ravel()) for group in groups])
    assert any("environments of a batch" in fault for fault in faults(grouped, few, 3.1))
