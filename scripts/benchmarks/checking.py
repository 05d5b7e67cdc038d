"""How fast a recording is checked, compared with reading its bytes."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.tables import sideways
from mjlab_rec.data.checking import check
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import Block, ChannelSpec, Ends, RunInfo

_LENGTH = 250  # steps of an episode
_ROWS = 50  # of a block


def main(envs: int = 1024, steps: int = 1000, obs: int = 48, rounds: int = 3) -> None:
    """Write a recording in HDF5, then check it and read it with cat in turns.

    Args:
        envs: Number of environments.
        steps: Control steps.
        obs: Elements of an observation.
        rounds: Rounds, of which the fastest counts.
    """
    console = Console()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "run.h5"
        _record(path, envs, steps, obs)
        size = path.stat().st_size
        works: dict[str, Callable[[], object]] = {
            "cat": lambda: subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True),
            "check": lambda: _checked(path),
        }
        best: dict[tuple[str, str], float] = {}
        for _ in range(rounds):
            for cache in ("warm", "cold"):
                for name, work in works.items():
                    _prepare(path, cache == "cold")
                    start = time.perf_counter()
                    work()
                    took = time.perf_counter() - start
                    best[cache, name] = min(took, best.get((cache, name), took))
        columns = {
            cache: {
                "cat, GB/s": f"{size / best[cache, 'cat'] / 1e9:.2f}",
                "check, GB/s": f"{size / best[cache, 'check'] / 1e9:.2f}",
                "check / cat": f"{best[cache, 'cat'] / best[cache, 'check']:.2f}",
            }
            for cache in ("warm", "cold")
        }
        title = f"{envs} environments, {steps} steps, {size / 1e6:.0f} MB"
        console.print(sideways(title, "Page cache", columns))


def _checked(path: Path) -> None:
    result = check(path)
    if not result.ok:
        raise RuntimeError(f"The check found damage that is not there: {result.findings[0]}.")


def _prepare(path: Path, cold: bool) -> None:
    """Put the file into the system's cache, or drop it from there."""
    if not cold:
        path.read_bytes()
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _record(path: Path, envs: int, steps: int, obs: int) -> None:
    """Write blocks of made-up numbers, with episodes that end at different times."""
    f4, flag = np.dtype("f4"), np.dtype("?")
    channels = [
        ChannelSpec(name="obs/actor", dtype=f4, shape=(obs,), when="before"),
        ChannelSpec(name="action", dtype=f4, shape=(12,)),
        ChannelSpec(name="reward", dtype=f4),
        ChannelSpec(name="terminated", dtype=flag),
        ChannelSpec(name="truncated", dtype=flag),
        ChannelSpec(name="next_obs/actor", dtype=f4, shape=(obs,), next_of="obs/actor"),
    ]
    info = RunInfo(channels=tuple(channels), envs=tuple(range(envs)), step_dt=0.02)
    writer = writer_class("hdf5")(info, WriterOptions(path=str(path), block_rows=_ROWS))
    rng = np.random.default_rng(0)
    for first in range(0, steps, _ROWS):
        writer.write(_block(info, rng, first, min(_ROWS, steps - first), envs))
    writer.close()


def _block(info: RunInfo, rng: np.random.Generator, first: int, rows: int, envs: int) -> Block:
    step = np.arange(first, first + rows)
    phase = step[:, None] + np.arange(envs)  # an episode ends where it is a multiple of _LENGTH
    ended = phase % _LENGTH == _LENGTH - 1
    began = np.maximum(0, phase // _LENGTH * _LENGTH - np.arange(envs))
    offset = np.arange(envs) // _LENGTH
    number = phase // _LENGTH - offset
    row, env = np.nonzero(ended)
    arrays = {
        spec.name: rng.standard_normal((rows, envs, *spec.shape), np.float32)
        for spec in info.stored
        if spec.dtype.kind == "f"
    }
    arrays["reward"] = np.ones((rows, envs), np.float32)
    arrays["terminated"] = ended
    arrays["truncated"] = np.zeros_like(ended)
    length = step[row] + 1 - began[row, env]
    obs = arrays["obs/actor"]
    running = np.where(ended[-1], 0, step[-1] + 1 - began[-1]).astype(float)
    return Block(
        info=info,
        rows=rows,
        arrays=arrays,
        tail={"obs/actor": obs[0]},
        step=step,
        first_episode=number[0].astype(np.int32),
        first_step=(step[0] - began[0]).astype(np.int32),
        total=running,
        recorded=running,
        ends=Ends(
            env_index=env.astype(np.int32),
            row=row.astype(np.int32),
            episode=number[row, env].astype(np.int32),
            at=step[row] + 1,
            length=length.astype(np.int32),
            total=length.astype(float),
            rows=length.astype(np.int32),
            recorded=length.astype(float),
            terminated=np.ones(len(row), bool),
            truncated=np.zeros(len(row), bool),
            success=np.full(len(row), -1, np.int8),
            final={"obs/actor": obs[row, env]},
        ),
    )
