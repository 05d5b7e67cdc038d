"""Merge recordings with the same channels into one; each episode keeps where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mjlab_rec.commands.data.options import OutputArgs, Recordings, need_paths, say_written
from mjlab_rec.commands.data.progress import progress_bar


@dataclass(kw_only=True)
class MergeArgs(OutputArgs):
    """Options of ``data merge``."""

    paths: Recordings = ()
    """Recordings: files, folders with recordings in them, or patterns like 'runs/*.h5'."""
    out: Path
    """Path of the new recording."""


def main(args: MergeArgs) -> None:
    """Write the new recording."""
    from mjlab_rec.data.selecting import merge

    need_paths(args.paths)
    with progress_bar(f"Writing {args.out.name}") as progress:
        files = merge(args.paths, args.out, args.options, progress)
    say_written(files)
