"""Make a motion file from an example, a table of positions, a recording, or another motion file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.data.schema import DataError
from mjlab_rec.registry import UnknownTaskError, load_env_cfg
from mjlab_rec.utils.string import nearest
from tasks.tracking.motion import Motion, MotionError
from tasks.tracking.sources import load_motion


@dataclass(kw_only=True)
class MotionArgs:
    """Options of ``make_motion``."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """squat, wave or step; or a path: a CSV table (root position, root quaternion x y z w, joint
    positions), a recording with the channel state, or an NPZ motion file."""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")]
    """The NPZ file to write."""
    fps: float = 50.0
    """Frames per second of the file; the task interpolates if its control rate is another."""
    csv_fps: float = 30.0
    """Frames per second of a CSV table."""
    start_s: float = 0.0
    """Where to begin in the source, in seconds."""
    end_s: float | None = None
    """Where to end in the source, in seconds. None: at its end."""
    episode: int = 0
    """Which episode of a recording."""
    task: str = "tracking-biped"
    """The task whose robot moves."""
    entity: str = "robot"
    """Name of the robot in the task's scene."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, and write the file.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    args = tyro.cli(MotionArgs, args=argv, prog=prog, description=__doc__)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        print_summary(make(args), args.output)
    except (MotionError, DataError, UnknownTaskError, OSError, IndexError) as error:
        cli.fail(str(error))


def make(args: MotionArgs) -> Motion:
    """Make the motion that the options describe, and write it."""
    if args.output.suffix != ".npz":
        raise MotionError(f"Motion files are NPZ files: end the name in .npz, got {args.output}.")
    entities = load_env_cfg(args.task).scene.entities
    if args.entity not in entities:
        raise MotionError(
            f"The task {args.task} has no entity '{args.entity}'."
            f" {nearest(args.entity, list(entities))}"
        )
    motion = load_motion(
        args.source, entities[args.entity], csv_fps=args.csv_fps, episode=args.episode
    )
    motion = motion.cut(args.start_s, args.end_s).resampled(args.fps)
    motion.save(args.output)
    return motion


def print_summary(motion: Motion, path: Path) -> None:
    """Tell what is in the file, and how fast the robot must move."""
    fastest = motion.joint_vel.abs().amax(dim=0)
    joint = int(fastest.argmax())
    Console().print(
        f"{path}: {motion.duration_s:.2f} s, {len(motion)} frames at {motion.fps:g} fps,"
        f" {len(motion.joint_names)} joints, {len(motion.body_names)} bodies. Fastest joint:"
        f" {motion.joint_names[joint]} with {float(fastest[joint]):.1f} rad/s.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
