"""Cost of recorders: step time, disk time and memory."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from benchmarks.tables import sideways
from mjlab_rec import cli

if TYPE_CHECKING:
    from benchmarks.recording import World

Name = Literal["hdf5", "csv", "npz", "parquet", "memory"]


@dataclass(kw_only=True)
class RecordArgs:
    """Options of `bench.py record`."""

    num_envs: int = 4096
    """Number of environments."""
    steps: int = 100
    """Steps per round, rounded up to whole blocks."""
    rounds: int = 5
    """Rounds; the result is their median."""
    recorders: tuple[Name, ...] = ("hdf5", "csv", "npz", "parquet", "memory")
    """Recorders to measure."""
    channels: Literal["default", "all"] = "all"
    """What to record: the recorders' default, or everything including the state."""
    block_steps: int | None = None
    """Steps per block. None lets the recorder fit blocks to its memory."""
    overflow: Literal["block", "drop", "error"] = "block"
    """What recorders do when the disk cannot keep up."""
    all_time_out: bool = False
    """Let short episodes of all environments end in the same step."""
    engine: Literal["auto", "warp", "mjbatch"] = "auto"
    """Physics engine; auto uses warp on a GPU, and mjbatch on a CPU if it is installed."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads that torch may use on a CPU. None leaves it to torch."""
    out: Path | None = None
    """Folder on the disk to write to; what is written there is removed afterwards. None uses the
    system's folder for temporary files."""
    write_bytes: int = 512 << 20
    """Bytes to write in each round of the comparison with raw files; 0 skips it."""
    memory_steps: int = 20000
    """Steps after which to check whether memory has grown; 0 skips it."""
    memory_envs: int = 64
    """Number of environments for that."""


def main(args: Annotated[RecordArgs, tyro.conf.arg(name="")]) -> None:
    """Measure what recording costs on cartpole-balance, without a policy."""
    console = Console()
    if min(args.num_envs, args.steps, args.rounds, args.memory_envs) < 1:
        cli.fail("--num-envs, --steps, --rounds and --memory-envs must be at least 1.")
    import torch

    from benchmarks.recording import World

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    world = World(
        num_envs=args.num_envs,
        device=args.device,
        engine=args.engine,
        channels=args.channels,
        block_steps=args.block_steps,
        all_time_out=args.all_time_out,
    )
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        overhead_table(args, world, Path(folder), console)
        if args.write_bytes:
            writing_table(args, world, Path(folder), console)
        if args.memory_steps:
            memory_table(args, world, Path(folder), console)
    console.print(f"torch threads: {torch.get_num_threads()}")
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def overhead_table(args: RecordArgs, world: World, folder: Path, console: Console) -> None:
    """Time the steps with and without each recorder."""
    from benchmarks import overhead

    on_gpu = args.device.startswith("cuda")
    columns, engine = {}, args.engine
    for name in args.recorders:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            cfg = world.recorder(name, Path(place), overflow=args.overflow)
            found = overhead.measure(world, cfg, args.steps, args.rounds)
        columns[name], engine = found.lines(on_gpu), found.engine
    title = (
        f"A step of {args.num_envs} environments, engine {engine} on {args.device}, "
        f"channels: {args.channels}"
    )
    console.print(sideways(title, "", columns))


def writing_table(args: RecordArgs, world: World, folder: Path, console: Console) -> None:
    """Time formats against raw writes of the same bytes."""
    from benchmarks import writing

    captured = writing.capture(world, args.write_bytes)
    columns = {
        name: writing.compare(name, captured, folder / "blocks", args.rounds).lines(captured.nbytes)
        for name in args.recorders
        if name != "memory"
    }
    title = f"Writing {captured.nbytes / 1e6:.0f} MB in blocks of {captured.rows} steps, to disk"
    console.print(sideways(title, "", columns))
    if "csv" in args.recorders:
        ours, theirs = writing.csv_rates(captured, folder / "blocks")
        console.print(
            f"CSV: {ours:,.0f} rows/s, Python's csv module {theirs:,.0f} rows/s,"
            f" ratio {ours / theirs:.1f}",
            soft_wrap=True,
        )


def memory_table(args: RecordArgs, world: World, folder: Path, console: Console) -> None:
    """Check whether the memory of a recording process grows."""
    from dataclasses import replace

    from benchmarks import memory

    small = replace(world, num_envs=args.memory_envs)
    found = memory.measure(small, args.memory_steps, folder)
    none, hdf5 = found["none"], found["hdf5"]
    columns = {
        name: {
            "memory when warm (MB)": f"{each.warm / 1e6:.1f}",
            f"after {args.memory_steps} more steps (MB)": f"{each.later[-1] / 1e6:.1f}",
            "growth": f"{each.later[-1] / each.warm - 1.0:.2%}",
            "most in between (MB)": f"{max(each.later) / 1e6:.1f}",
        }
        for name, each in found.items()
    }
    console.print(sideways(f"Memory with {args.memory_envs} environments", "recorder", columns))
    console.print(
        f"blocks: {hdf5.blocks / 1e6:.1f} MB as configured, "
        f"{(hdf5.warm - none.warm) / 1e6:.1f} MB more than without a recorder"
    )
