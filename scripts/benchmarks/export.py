"""Export to robomimic and Minari, and write the same episodes with their own writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from mjlab_rec.data import export_rollouts, open_rollouts
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Writer
from mjlab_rec.data.schema import Block, ChannelSpec, Ends, RunInfo

_PEER = Path(__file__).with_name("export_peer.py")
_ENVS = 500


@dataclass(kw_only=True)
class ExportArgs:
    """Options of `bench.py export`."""

    episodes: int = 10_000
    """Episodes of the recording, rounded up to a multiple of 500."""
    steps: int = 250
    """Steps of each episode."""
    obs: int = 5
    """Numbers in an observation."""
    peer_episodes: int = 300
    """Episodes that the libraries' own writers write."""
    peer_python: str = sys.executable
    """A Python that has minari."""
    rounds: int = 3
    """The median of this many rounds counts."""
    folder: Path | None = None
    """Where to write. None: the system's folder for temporary files."""


def main(args: Annotated[ExportArgs, tyro.conf.arg(name="")]) -> None:
    """Measure episodes per second of exports, of their own writers, and of plain writes."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        path = folder / "run.h5"
        make(path, args)
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(args.rounds):
            with open_rollouts(path) as rollouts:
                count = len(rollouts)
                with _timed(times, "reading the recording"):
                    for first in range(0, count, 500):
                        rollouts.read_many(range(first, min(count, first + 500)))
            for target, out in (("robomimic", "out.hdf5"), ("minari", "out-v0")):
                with _timed(times, f"export to {target}"):
                    export_rollouts(path, folder / out, target, if_exists="overwrite")
                files = [folder / out, *(folder / out).rglob("*.hdf5")]
                size = sum(file.stat().st_size for file in files if file.is_file())
                with _timed(times, f"writing the bytes of {target}"):
                    _write_plain(folder / "plain", size)
        ran = subprocess.run(
            [
                args.peer_python,
                _PEER,
                str(args.peer_episodes),
                str(args.steps),
                str(args.obs),
                name,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    table = Table(title=f"{count} episodes of {args.steps} steps")
    for column in ("what", "episodes/s", "million rows/s", "ms/episode", "CPU ms/episode"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = {
        what: [float(np.median(values)) / count for values in zip(*each, strict=True)]
        for what, each in times.items()
    }
    rows |= {f"own writer: {what}": seconds for what, seconds in json.loads(ran.stdout).items()}
    for what, (each, cpu) in rows.items():
        speed = f"{1 / each:.0f}", f"{args.steps / each / 1e6:.3f}"
        table.add_row(what, *speed, f"{each * 1e3:.3f}", f"{cpu * 1e3:.3f}")
    Console().print(table)


@contextmanager
def _timed(times: dict[str, list[tuple[float, float]]], what: str) -> Iterator[None]:
    """Add the seconds, and the seconds of processor time, that something takes."""
    start = time.perf_counter(), time.process_time()
    yield
    took = time.perf_counter() - start[0], time.process_time() - start[1]
    times.setdefault(what, []).append(took)


def make(path: Path, args: ExportArgs) -> None:
    """Record random numbers, as a run with many environments does."""
    f4, flag = np.dtype(np.float32), np.dtype(bool)
    channels = (
        ChannelSpec(name="obs/actor", dtype=f4, shape=(args.obs,), when="before"),
        ChannelSpec(name="action", dtype=f4, shape=(1,)),
        ChannelSpec(name="reward", dtype=f4),
        ChannelSpec(name="terminated", dtype=flag),
        ChannelSpec(name="truncated", dtype=flag),
        ChannelSpec(name="next_obs/actor", dtype=f4, shape=(args.obs,), next_of="obs/actor"),
    )
    info = RunInfo(channels=channels, envs=tuple(range(_ENVS)), step_dt=0.02)
    writer = Hdf5Writer(info, WriterOptions(path=str(path), block_rows=args.steps))
    for block in _blocks(info, args):
        writer.write(block)
    writer.close()


def _blocks(info: RunInfo, args: ExportArgs) -> Iterator[Block]:
    rng = np.random.default_rng(0)
    n, steps = _ENVS, args.steps
    for number in range(-(-args.episodes // n)):
        arrays = {
            spec.name: rng.standard_normal((steps, n, *spec.shape), np.float32)
            if spec.dtype.kind == "f"
            else np.zeros((steps, n), bool)
            for spec in info.stored
        }
        arrays["truncated"][-1] = True
        total = arrays["reward"].sum(axis=0, dtype=np.float64)
        final = rng.standard_normal((n, args.obs), np.float32)
        ends = Ends(
            env_index=np.arange(n, dtype=np.int32),
            row=np.full(n, steps - 1, np.int32),
            episode=np.full(n, number, np.int32),
            at=np.full(n, (number + 1) * steps),
            length=np.full(n, steps, np.int32),
            total=total,
            rows=np.full(n, steps, np.int32),
            recorded=total,
            terminated=np.zeros(n, bool),
            truncated=np.ones(n, bool),
            success=np.full(n, -1, np.int8),
            final={"obs/actor": final},
        )
        yield Block(
            info=info,
            rows=steps,
            arrays=arrays,
            tail={"obs/actor": final},
            step=np.arange(number * steps, (number + 1) * steps),
            first_episode=np.full(n, number, np.int32),
            first_step=np.zeros(n, np.int32),
            total=np.zeros(n),
            recorded=np.zeros(n),
            ends=ends,
        )


def _write_plain(path: Path, size: int) -> None:
    """Write as many bytes, 16 MB at a time."""
    content = os.urandom(16 << 20)
    with open(path, "wb", buffering=0) as file:
        while size > 0:
            size -= file.write(memoryview(content)[:size])
