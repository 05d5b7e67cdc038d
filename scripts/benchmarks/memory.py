"""Memory growth of a recording process, measured in separate processes."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recording import World, block_bytes, load_writers, recorder_of
from benchmarks.side import random_action, take_steps

_WARM_UP_STEPS = 2000
_SAMPLES = 10


@dataclass(kw_only=True)
class Memory:
    """Resident memory of a process in bytes."""

    warm: int
    """Memory after the first steps."""
    later: list[int]
    """Memory in equal intervals after that."""
    blocks: int
    """Memory of the recorder's blocks, according to their configuration."""


def measure(world: World, steps: int, folder: Path) -> dict[str, Memory]:
    """Return the memory with a recorder that writes HDF5, and without one."""
    found = {}
    for name in ("none", "hdf5"):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found[name] = pool.submit(run, world, name == "hdf5", steps, str(folder)).result()
    return found


def run(world: World, record: bool, steps: int, folder: str) -> Memory:
    """Take steps, and measure this process's memory in between."""
    load_writers(["hdf5"])
    with tempfile.TemporaryDirectory(dir=folder) as place:
        cfg = world.recorder("hdf5", Path(place), num_blocks=3) if record else None
        env = world.make(cfg)
        blocks = 0
        if record:
            blocks = 3 * block_bytes(recorder_of(env))
        action = random_action(env)
        take_steps(env, action, _WARM_UP_STEPS)
        warm = _resident()
        later = []
        for _ in range(_SAMPLES):
            take_steps(env, action, -(-steps // _SAMPLES))
            later.append(_resident())
        env.close()
    return Memory(warm=warm, later=later, blocks=blocks)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
