"""Cost of opening a folder of many workers as one data set."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from benchmarks.reading import ReadArgs, _memory
from benchmarks.tables import sideways
from mjlab_rec import cli


@dataclass(kw_only=True)
class OpenArgs:
    """Options of `bench.py open`."""

    workers: tuple[int, ...] = (10, 100, 1000)
    """Workers in the folder; each number is measured."""
    parts: int = 100
    """Files of a worker's recording."""
    num_envs: int = 4
    """Environments of a worker."""
    block_steps: int = 10
    """Steps in a file."""
    out: Path | None = None
    """Folder on the disk to write to; what is written there is removed afterwards. None uses the
    system's folder for temporary files."""


def main(args: Annotated[OpenArgs, tyro.conf.arg(name="")]) -> None:
    """Measure how long it takes to open a folder of many workers, and how much memory it needs."""
    if min(*args.workers, args.parts, args.num_envs, args.block_steps) < 1:
        cli.fail("--workers, --parts, --num-envs and --block-steps must be at least 1.")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    columns = {}
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        first = make_worker(args, Path(folder) / "first")
        for count in args.workers:
            place = Path(folder) / str(count)
            make_folder(first, place, count)
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                columns[f"{count} workers"] = pool.submit(measure, place).result()
    console = Console()
    about = f"{args.parts} files per worker, {args.num_envs} environments, {args.block_steps} steps"
    console.print(sideways(about, "", columns))
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def make_worker(args: OpenArgs, folder: Path) -> Path:
    """Record cartpole into many files, one for each block."""
    from benchmarks.reading import record

    record(
        ReadArgs(
            rows=args.parts * args.block_steps * args.num_envs,
            num_envs=args.num_envs,
            block_steps=args.block_steps,
            roll_over_mb=0,
        ),
        folder,
    )
    return folder


def make_folder(first: Path, folder: Path, workers: int) -> None:
    """A folder of workers, whose files are links to those of the first one."""
    for rank in range(workers):
        place = folder / f"worker-{rank:05d}"
        place.mkdir(parents=True)
        for file in first.iterdir():
            os.link(file, place / file.name)
        about = {"rank": rank, "host": f"node{rank // 8}", "finished": True}
        (place / "worker.json").write_text(json.dumps(about))


def measure(folder: Path) -> dict[str, str]:
    """Open a folder, and read a batch."""
    import mjlab_rec.data.batches
    import mjlab_rec.data.union  # noqa: F401 - so that imports are not measured
    from mjlab_rec.data import open_rollouts
    from mjlab_rec.data.discovery import find_recordings

    with open_rollouts(folder / "worker-00000"):
        pass
    begun, cpu = time.perf_counter(), time.process_time()
    found = find_recordings(folder)
    listed, listed_cpu = time.perf_counter() - begun, time.process_time() - cpu
    before, begun, cpu = _memory(), time.perf_counter(), time.process_time()
    with open_rollouts(folder) as rollouts:
        opened, used = time.perf_counter() - begun, time.process_time() - cpu
        memory = _memory() - before
        begun, cpu = time.perf_counter(), time.process_time()
        next(iter(rollouts.transitions(256, memory_bytes=64 << 20, seed=0)))
        first, first_cpu = time.perf_counter() - begun, time.process_time() - cpu
        files = len(os.listdir("/proc/self/fd"))
        return {
            "recordings": f"{len(found):,}",
            "episodes": f"{len(rollouts):,}",
            "rows": f"{rollouts.rows:,}",
            "listing (s)": f"{listed:.2f}",
            "CPU time of listing (s)": f"{listed_cpu:.2f}",
            "opening (s)": f"{opened:.2f}",
            "CPU time of opening (s)": f"{used:.2f}",
            "memory (MB)": f"{memory / 1e6:.0f}",
            "memory per worker (kB)": f"{memory / 1e3 / len(found):.0f}",
            "open files": f"{files}",
            "first batch (s)": f"{first:.2f}",
            "CPU time of the first batch (s)": f"{first_cpu:.2f}",
        }
