"""Write speed of formats, compared with raw files of the same bytes and Python's csv module."""

from __future__ import annotations

import csv
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.recording import World, recorder_of, rows_per_block
from benchmarks.side import random_action, take_steps
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.memory import MemoryWriter
from mjlab_rec.data.pipeline import Pipeline
from mjlab_rec.data.schema import Block, RunInfo

_MOST_BLOCKS = 12
_MOST_FSYNCS = 64
_CSV_ROWS = 4096


@dataclass(kw_only=True)
class Captured:
    """Blocks of a run, held in memory."""

    info: RunInfo
    rows: int  # of each block
    blocks: list[Block]

    @property
    def nbytes(self) -> int:
        """Bytes of what is recorded."""
        return sum(array.nbytes for block in self.blocks for array in _arrays(block))


@dataclass(kw_only=True)
class Rates:
    """The cost of writing the same blocks, in each round."""

    raw_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    raw_cpu_s: list[float] = field(default_factory=list)
    ours_cpu_s: list[float] = field(default_factory=list)
    file_bytes: int = 0

    def lines(self, nbytes: int) -> dict[str, str]:
        """Return quantities for a table."""
        ratios = [ours / raw for ours, raw in zip(self.ours_s, self.raw_s, strict=True)]
        return {
            "raw (MB/s)": f"{nbytes / median(self.raw_s) / 1e6:.0f}",
            "written (MB/s)": f"{nbytes / median(self.ours_s) / 1e6:.0f}",
            "time, ratio to raw": f"{median(ratios):.2f}",
            "  lowest": f"{min(ratios):.2f}",
            "  highest": f"{max(ratios):.2f}",
            "raw, CPU (s/GB)": f"{median(self.raw_cpu_s) / nbytes * 1e9:.2f}",
            "written, CPU (s/GB)": f"{median(self.ours_cpu_s) / nbytes * 1e9:.2f}",
            "size, ratio to raw": f"{self.file_bytes / nbytes:.2f}",
        }


def capture(world: World, nbytes: int) -> Captured:
    """Record about this many bytes, in at least two blocks."""
    env = world.make(world.recorder("memory", Path()))
    recorder = recorder_of(env)
    assert recorder._pipeline is not None
    (writer,) = recorder._pipeline.writers
    assert isinstance(writer, MemoryWriter)
    rows = rows_per_block(recorder)
    row = world.num_envs * sum(spec.nbytes for spec in writer.info.stored)
    count = max(2, min(_MOST_BLOCKS, nbytes // (rows * row)))
    take_steps(env, random_action(env), count * rows)
    env.close()
    return Captured(info=writer.info, rows=rows, blocks=writer.blocks)


def compare(name: str, captured: Captured, folder: Path, rounds: int) -> Rates:
    """Write blocks in a format and raw, in alternating rounds."""
    rates = Rates()
    for number in range(rounds + 1):
        raw_s, raw_cpu_s, _ = _timed(lambda: _write_raw(captured, folder), folder)
        ours_s, ours_cpu_s, size = _timed(lambda: _write(name, captured, folder), folder)
        rates.file_bytes = size
        if number:  # The first round warms up.
            rates.raw_s.append(raw_s)
            rates.raw_cpu_s.append(raw_cpu_s)
            rates.ours_s.append(ours_s)
            rates.ours_cpu_s.append(ours_cpu_s)
    return rates


def csv_rates(captured: Captured, folder: Path) -> tuple[float, float]:
    """Return the rows per second of our CSV writer and of Python's csv module."""
    block = captured.blocks[0]
    ours_s, _, _ = _timed(lambda: _pipeline("csv", captured, folder, [block]), folder)
    steps = min(block.rows, -(-_CSV_ROWS // block.num_envs))
    theirs_s, _, _ = _timed(lambda: _csv_module(block, steps, folder), folder)
    return block.rows * block.num_envs / ours_s, steps * block.num_envs / theirs_s


def _timed(write: Callable[[], object], folder: Path) -> tuple[float, float, int]:
    """Return seconds, CPU seconds of all threads, and bytes of a write into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    start, cpu = time.perf_counter(), time.process_time()
    write()
    taken = time.perf_counter() - start, time.process_time() - cpu
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder)
    return *taken, size


def _write(name: str, captured: Captured, folder: Path) -> None:
    _sync(_pipeline(name, captured, folder, captured.blocks))


def _pipeline(name: str, captured: Captured, folder: Path, blocks: list[Block]) -> list[Path]:
    """Write as a recorder does, but in this thread."""
    writer = writer_class(name)
    options = WriterOptions(path=str(folder / f"rollout.{name}"), block_rows=captured.rows)
    pipeline = Pipeline(writer, captured.info, options, by_episode=writer.by_episode)
    for block in blocks:
        pipeline.write(block)
    pipeline.close()
    return pipeline.files


def _write_raw(captured: Captured, folder: Path) -> None:
    path = folder / "raw"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for block in captured.blocks:
            for array in _arrays(block):
                rest = array.reshape(-1).view(np.uint8).data
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)
    _sync([path])


def _sync(paths: list[Path]) -> None:
    """Wait until files, or those in folders, are on the disk."""
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    ]
    if len(files) > _MOST_FSYNCS:
        os.sync()  # One by one, a thousand files would take a thousand fsyncs.
        return
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _arrays(block: Block) -> list[np.ndarray]:
    """Return all values of channels in a block."""
    arrays = [*block.arrays.values(), *block.tail.values(), *block.ends.final.values()]
    return [array for array in arrays if array.size]


def _csv_module(block: Block, steps: int, folder: Path) -> None:
    """Write the first steps of a block row by row."""
    number, step = block.numbering()
    envs = np.broadcast_to(np.asarray(block.info.envs), number.shape)
    values = [step * block.info.step_dt, envs, number, step]
    values += [block.dense(spec.name) for spec in block.info.channels]
    columns: list[list] = []
    for array in values:
        flat = array[:steps].reshape(steps * block.num_envs, -1)
        columns += (column.tolist() for column in flat.T)
    with open(folder / "rows.csv", "w", newline="") as file:
        csv.writer(file).writerows(zip(*columns, strict=True))
