"""Test whether recordings survive a kill -9 at any moment."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.tables import sideways
from mjlab_rec import cli

if TYPE_CHECKING:
    from benchmarks.crash_check import Truth

_RUN = Path(__file__).with_name("crash_run.py")
_LONGEST_START_S = 600.0
_WRITE_S = 0.002  # what writing a block may take


@dataclass(kw_only=True)
class CrashArgs:
    """Options of `bench.py crash`."""

    kills: int = 100
    """Processes to start and kill."""
    format: Literal["hdf5", "csv"] = "hdf5"
    """Format to record in."""
    compression: str | None = None
    """Compression, if the format has it: gzip or lzf for hdf5."""
    num_envs: int = 16
    """Environments of each process."""
    block_steps: tuple[int, ...] = (1, 2, 8, 32)
    """Steps per block; each process uses the next of these."""
    roll_over_bytes: int = 1 << 20
    """Size at which a file ends and its next part begins."""
    within_s: float = 1.0
    """Each process is killed within this many seconds after it begins to record."""
    seed: int = 0
    """Seed of the times at which processes are killed."""
    at_a_time: int = 2
    """Processes that run at the same time."""
    save: Path | None = None
    """Folder in which to keep the files of kills that went wrong."""


@dataclass(kw_only=True)
class Kill:
    """A killed process, and the state of its recording."""

    number: int
    block_steps: int
    folder: Path
    notes: dict[str, int]
    opens: bool = False  # with the format's own library
    walks: bool = False
    reads: bool = False  # with open_rollouts
    files: int = 0
    steps: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Steps that were recorded but cannot be read."""
        return max(0, self.notes["steps"] - self.steps)


def main(args: Annotated[CrashArgs, tyro.conf.arg(name="")]) -> None:
    """Kill recording processes at random times, and check their recordings."""
    if min(args.kills, args.num_envs, args.at_a_time, *args.block_steps) < 1 or args.within_s <= 0:
        cli.fail(
            "--kills, --num-envs, --at-a-time and --block-steps must be at least 1, and --within-s"
            " positive."
        )
    from benchmarks.crash_check import Truth

    console = Console()
    truth = Truth(args.num_envs)
    chance = random.Random(args.seed)
    moments = [
        (chance.uniform(0.0, args.within_s), chance.uniform(0.0, _WRITE_S))
        for _ in range(args.kills)
    ]
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.at_a_time) as pool:
        running = pool.map(lambda each: run(args, Path(folder), *each), enumerate(moments))
        quiet = not console.is_terminal
        for kill in track(
            running, "killed", args.kills, console=console, transient=True, disable=quiet
        ):
            examine(kill, path_of(kill.folder, args.format), truth)
            kills.append(kill)
            if (kill.problems or not kill.walks) and args.save is not None:
                shutil.copytree(kill.folder, args.save / kill.folder.name, dirs_exist_ok=True)
            shutil.rmtree(kill.folder)
    failed = [kill for kill in kills if kill.problems]
    for kill in failed:
        console.print(f"Kill {kill.number}, of {kill.block_steps} steps per block:", style="red")
        console.print("\n".join(f"  {problem}" for problem in kill.problems[:10]), markup=False)
    console.print(table(args, kills))
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)
    if failed:
        raise SystemExit(1)


def run(args: CrashArgs, parent: Path, number: int, moment: tuple[float, float]) -> Kill:
    """Start a process that records, and kill it some time after it has begun.

    Half of the processes are killed during the next write, if it takes long enough.
    """
    import numpy as np

    from benchmarks.crash_run import BLOCKS_BEGUN, BLOCKS_WRITTEN, NOTES, STEPS

    folder = parent / f"{args.format}_{number}"
    folder.mkdir()
    block_steps = args.block_steps[number % len(args.block_steps)]
    recorder: dict[str, Any] = {
        "path": str(path_of(folder, args.format)),
        "block_steps": block_steps,
        "roll_over_bytes": args.roll_over_bytes,
        "compression": args.compression,
    }
    notes = np.memmap(folder / "notes", np.int64, "w+", shape=len(NOTES))
    notes[STEPS] = -1
    asked = {
        "notes": str(folder / "notes"),
        "format": args.format,
        "num_envs": args.num_envs,
        "recorder": recorder,
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, str(_RUN), json.dumps(asked)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + _LONGEST_START_S
            while notes[STEPS] < 0 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(moment[0])
            if number // len(args.block_steps) % 2:
                while notes[BLOCKS_BEGUN] == notes[BLOCKS_WRITTEN] and process.poll() is None:
                    time.sleep(0.0)
                time.sleep(moment[1])
        finally:
            process.kill()
            ended = process.wait()
        kill = Kill(
            number=number,
            block_steps=block_steps,
            folder=folder,
            notes=dict(zip(NOTES, notes.tolist(), strict=True)),
        )
        if ended != -signal.SIGKILL or notes[STEPS] < 0:
            log.seek(0)
            last_words = "".join(log.readlines()[-30:])
            kill.problems.append(f"the process was not recording when it was killed:\n{last_words}")
    return kill


def examine(kill: Kill, path: Path, truth: Truth) -> None:
    """Check what can be read of a recording."""
    from benchmarks.crash_check import check, refusal, walks
    from mjlab_rec.data.files import parts

    kill.files = len(parts(path))
    refused = refusal(path)
    kill.opens = not refused
    kill.walks = path.suffix != ".h5" or walks(path)
    if refused:
        kill.problems.append(f"it does not open with the format's own library: {refused}")
    try:
        kill.steps, kill.wrong, odd = check(path, truth, kill.notes["steps_written"])
        kill.reads = True
    except Exception as error:
        kill.problems.append(f"open_rollouts: {type(error).__name__}: {error}")
        return
    kill.problems += odd
    if kill.wrong:
        kill.problems.append(f"{kill.wrong} rows are wrong")
    # Blocks in memory: one being filled, and the others waiting for the file.
    most = 3 * kill.block_steps
    if kill.lost > most:
        kill.problems.append(f"{kill.lost} steps are lost, more than the {most} in memory")


def path_of(folder: Path, format: str) -> Path:
    """Return where a process records to."""
    from benchmarks.crash_run import SUFFIXES

    return folder / f"rollout{SUFFIXES[format]}"


def table(args: CrashArgs, kills: list[Kill]) -> Table:
    """Return the results of the kills, for each number of steps per block and for all."""
    columns = {}
    for block_steps in dict.fromkeys(args.block_steps):
        if mine := [kill for kill in kills if kill.block_steps == block_steps]:
            columns[str(block_steps)] = summary(mine, args.num_envs)
    columns["all"] = summary(kills, args.num_envs)
    title = f"{args.format} after SIGKILL, {args.num_envs} environments"
    return sideways(title, "steps per block", columns)


def summary(kills: list[Kill], num_envs: int) -> dict[str, object]:
    """Return the results of some kills."""
    files = sum(kill.files for kill in kills)
    written = sum(kill.notes["blocks_written"] for kill in kills)
    return {
        "kills": len(kills),
        "of them during a write": sum(
            kill.notes["blocks_begun"] > kill.notes["blocks_written"] for kill in kills
        ),
        "opened by the format's library": sum(kill.opens for kill in kills),
        "no incomplete object in it": sum(kill.walks for kill in kills),
        "opened by open_rollouts": sum(kill.reads for kill in kills),
        "something was wrong": sum(bool(kill.problems) for kill in kills),
        "rows read": sum(kill.steps for kill in kills) * num_envs,
        "rows that differ": sum(kill.wrong for kill in kills),
        "largest loss (steps)": max(kill.lost for kill in kills),
        "largest loss (blocks)": f"{max(kill.lost / kill.block_steps for kill in kills):.1f}",
        "files": files,
        "blocks per file": f"{written / max(1, files):.1f}",
    }
