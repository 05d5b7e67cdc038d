"""Show recorded episodes, simulate them again, or compare a policy with them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mjlab_rec import cli
from mjlab_rec.data.schema import DataError
from mjlab_rec.utils.extras import MissingExtraError, UnavailableError


@dataclass(kw_only=True)
class ReplayArgs:
    """Options of ``replay``."""

    path: tyro.conf.Positional[str] = ""
    """The recording: a file or a folder. It must have states: --record replay records what all of
    this needs."""
    episode: tuple[int, ...] = ()
    """Only these episodes, by their places in the recording, from 0."""
    env: tuple[int, ...] = ()
    """Only episodes of these environments."""
    viewer: Literal["auto", "native", "web"] = "auto"
    """native: a window. web: a browser. auto: a window if there is a display, otherwise
    the browser. Both have a seek bar."""
    grid: int = 1
    """Number of episodes shown at the same time."""
    speed: float | None = None
    """Recorded seconds per second. None: 1."""
    loop: bool = False
    """Begin again at the end; viewers can switch it."""
    backwards: bool = False
    """Begin at the end, and go back; viewers can switch it."""
    camera: str | None = None
    """Name or number of a camera in the model, for viewers and videos."""
    steps: int | None = None
    """Stop after showing this many steps."""
    video: Path | None = None
    """Write an mp4 file instead of opening a viewer."""
    rerun: Path | None = None
    """Write a file for the Rerun viewer (.rrd) instead of opening a viewer."""
    overwrite: bool = False
    """Replace files that exist."""
    verify: bool = False
    """Simulate each step again from the recorded state, and compare the results. The exit code is 1
    if they differ."""
    tolerance: float | None = None
    """With --verify: the largest difference of a number, relative to numbers greater than 1.
    0 compares every bit. None: 0 with the same engine, versions and CPU as in the recording, else
    0.001."""
    engine: Literal["mjbatch", "warp"] | None = None
    """With --verify: the engine. None: that of the recording."""
    device: str | None = None
    """With --verify: cpu or cuda. None: that of the recording, if there is one."""
    num_worlds: int | None = None
    """With --verify: number of worlds that are simulated at the same time."""
    json: Path | None = None
    """With --verify: also write the results to this JSON file."""
    verbose: bool = False
    """Show tracebacks of errors."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, and do what it asks for.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    args = tyro.cli(
        ReplayArgs,
        args=argv,
        prog=prog,
        description=__doc__,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not args.path:
        cli.fail("Which recording? Give the path of a file or folder: mjlab-rec replay PATH.")
    try:
        code = run(args)
    except (DataError, ValueError, MissingExtraError, UnavailableError) as error:
        if args.verbose:
            raise
        cli.fail(f"{error} (--verbose shows the traceback.)")
    if code:
        raise SystemExit(code)


def run(args: ReplayArgs) -> int:
    """Do what the options ask for; returns the exit code."""
    from mjlab_rec.commands import replay_show, replay_verify
    from mjlab_rec.replay.episodes import recording_path

    args.path = str(recording_path(args.path))
    _check_options(args)
    return replay_verify.run(args) if args.verify else replay_show.run(args)


def _check_options(args: ReplayArgs) -> None:
    """End the command if an option has no effect."""
    only_verify = ("tolerance", "engine", "device", "num_worlds", "json")
    given = [name for name in only_verify if getattr(args, name) is not None]
    if given and not args.verify:
        cli.fail(f"--{given[0].replace('_', '-')} needs --verify.")
