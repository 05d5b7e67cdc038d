"""Speed of reading a recording for training, next to arrays that are mapped into memory."""

from __future__ import annotations

import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro
from rich.console import Console

from benchmarks.tables import sideways
from mjlab_rec import cli


@dataclass(kw_only=True)
class ReadArgs:
    """Options of `bench.py read`."""

    path: Path | None = None
    """A recording. None records cartpole-balance with random actions."""
    rows: int = 500_000
    """Rows to record."""
    num_envs: int = 4096
    """Environments to record."""
    block_steps: int | None = None
    """Steps per block of the recording. None leaves it to the recorder."""
    roll_over_mb: int = 4096
    """Size at which the recording continues in another file; 0: each block has its own."""
    batch_size: int = 4096
    """Rows, or windows, of a batch."""
    length: int = 16
    """Rows of a window."""
    memory_mb: tuple[int, ...] = (1024, 64)
    """Memory for rows; each size is measured."""
    workers: int | None = None
    """Threads that read. None leaves it to the reader."""
    seconds: float = 2.0
    """Duration of a measurement."""
    rounds: int = 3
    """Rounds; the result is their median."""
    out: Path | None = None
    """Folder on the disk to record to; what is written there is removed afterwards. None uses the
    system's folder for temporary files."""


def main(args: Annotated[ReadArgs, tyro.conf.arg(name="")]) -> None:
    """Measure how fast batches are read, and how much memory that needs."""
    console = Console()
    if min(args.rows, args.num_envs, args.batch_size, args.length, args.rounds) < 1:
        cli.fail("--rows, --num-envs, --batch-size, --length and --rounds must be at least 1.")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        path = args.path or record(args, Path(folder))
        about, columns = measure(args, path, Path(folder))
    console.print(sideways(about, "", columns))
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def record(args: ReadArgs, folder: Path) -> Path:
    """Record cartpole with random actions."""
    import torch

    from benchmarks.recording import World

    world = World(num_envs=args.num_envs, channels="default", block_steps=args.block_steps)
    cfg = world.recorder("hdf5", folder, roll_over_bytes=max(1, args.roll_over_mb << 20))
    env: Any = world.make(cfg)
    action = torch.empty(args.num_envs, env.action_manager.total_action_dim, device=env.device)
    for _ in range(-(-args.rows // args.num_envs)):
        env.step(action.uniform_(-1.0, 1.0))
    env.close()
    return Path(cfg.path)


def measure(args: ReadArgs, path: Path, folder: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """What was read, and for each way to read it a column of the table."""
    from mjlab_rec.data import open_rollouts
    from mjlab_rec.data.files import parts

    with open_rollouts(path) as rollouts:
        mapped = map_arrays(rollouts, folder / "arrays")
        ways: dict[str, tuple[Callable[[], Iterator], Callable[[], Iterator]]] = {}
        for size in args.memory_mb:
            more = {"memory_bytes": size << 20, "workers": args.workers}
            rows = rollouts.transitions(args.batch_size, **more)
            windows = rollouts.windows(args.length, args.batch_size, **more)
            ways[f"{size} MB"] = (lambda b=rows: iter(b), lambda b=windows: iter(b))
        ways["memmap"] = (
            lambda: mapped_batches(mapped, args.batch_size, None),
            lambda: mapped_batches(mapped, args.batch_size, args.length),
        )
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(args.rounds):  # In turns, because the load of the machine may change.
            for way, both in ways.items():
                for kind, make in enumerate(both):
                    found.setdefault((way, kind), []).append(rate(make, args.seconds))
        nbytes = sum(file.stat().st_size for file in parts(path)) if path.is_file() else 0
        about = (
            f"{rollouts.rows:,} rows of {len(rollouts.channels)} channels, {nbytes / 1e6:.0f} MB in"
            f" {len(parts(path))} files, batches of {args.batch_size}"
        )
    columns = {}
    for way in ways:
        first, growth = in_new_process(args, path, way, folder / "arrays")
        values = [
            (median(r for r, _ in found[way, kind]), median(cpu for _, cpu in found[way, kind]))
            for kind in range(2)
        ]
        columns[way] = {
            "rows (million/s)": f"{values[0][0] / 1e6:.2f}",
            "CPU time per row (ns)": f"{values[0][1]:.0f}",
            f"windows of {args.length} (million/s)": f"{values[1][0] / 1e6:.2f}",
            "CPU time per window (ns)": f"{values[1][1]:.0f}",
            "opening and first batch (s)": f"{first:.2f}",
            "memory of a pass (MB)": f"{growth / 1e6:.0f}",
        }
    return about, columns


def map_arrays(rollouts: Any, folder: Path) -> dict[str, Any]:
    """Each channel as an array that is mapped into memory."""
    import numpy as np

    folder.mkdir()
    names = rollouts.names(None)
    for number, name in enumerate(names):
        np.save(folder / f"{number}.npy", rollouts.arrays(name))
    return load_arrays(folder, names)


def load_arrays(folder: Path, names: list[str]) -> dict[str, Any]:
    """The arrays in a folder, mapped into memory."""
    import numpy as np

    return {n: np.load(folder / f"{i}.npy", mmap_mode="r") for i, n in enumerate(names)}


def mapped_batches(arrays: dict[str, Any], batch_size: int, length: int | None) -> Iterator:
    """Batches in random order, as one would write it by hand."""
    import numpy as np
    import torch

    count = len(next(iter(arrays.values()))) - (length or 1) + 1
    order = np.random.default_rng(0).permutation(count)
    for first in range(0, count, batch_size):
        at = order[first : first + batch_size]
        if length is not None:
            at = at[:, None] + np.arange(length)
        yield {name: torch.from_numpy(values[at]) for name, values in arrays.items()}


def rate(make: Callable[[], Iterator], seconds: float) -> tuple[float, float]:
    """Items per second after the first batch, and CPU time per item in nanoseconds."""
    count, begun, cpu, batches = 0, time.perf_counter(), time.process_time(), make()
    next(batches)
    begun, cpu = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - begun) < seconds or not count:
        batch = next(batches, None)
        if batch is None:
            batches = make()  # A further pass counts as a whole.
            continue
        count += len(next(iter(batch.values())))
    used = time.process_time() - cpu
    close = getattr(batches, "close", None)
    if close:
        close()
    return count / passed, used / count * 1e9


def in_new_process(args: ReadArgs, path: Path, way: str, arrays: Path) -> tuple[float, float]:
    """Seconds to the first batch, and bytes of memory that a pass needs."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        size = None if way == "memmap" else int(way.split()[0]) << 20
        return pool.submit(one_pass, args, path, size, arrays).result()


def one_pass(
    args: ReadArgs, path: Path, memory_bytes: int | None, arrays: Path
) -> tuple[float, float]:
    """Open a recording and read all rows once."""
    import mjlab_rec.data.batches  # noqa: F401 - so that its import is not measured
    from mjlab_rec.data import open_rollouts

    with open_rollouts(path) as rollouts:
        names = rollouts.names(None)
    before, begun = _memory(), time.perf_counter()
    if memory_bytes is None:
        stream = mapped_batches(load_arrays(arrays, names), args.batch_size, None)
    else:
        more = {"memory_bytes": memory_bytes, "workers": args.workers}
        stream = iter(open_rollouts(path).transitions(args.batch_size, **more))
    next(stream)
    first, most = time.perf_counter() - begun, _memory()
    for _ in stream:
        most = max(most, _memory())
    return first, most - before


def _memory() -> int:
    """Bytes of this process, without files that are mapped into memory."""
    with open("/proc/self/status") as file:
        values = dict(line.split(":", 1) for line in file)
    return int(values["RssAnon"].split()[0]) * 1024
