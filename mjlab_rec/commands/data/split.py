"""Split the episodes of a recording at random, such as into train.h5 and valid.h5."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.options import OutputArgs, Recordings, need_paths
from mjlab_rec.commands.data.progress import progress_bar


@dataclass(kw_only=True)
class SplitArgs(OutputArgs):
    """Options of ``data split``."""

    paths: Recordings = ()
    """Recordings: files, folders with recordings in them, or patterns like 'runs/*.h5'."""
    out: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A new recording and its share, PATH=SHARE: a fraction such as train.h5=0.9, or a number of
    episodes such as valid.h5=100. Give it once for each new recording."""
    seed: int = 0
    """The same seed divides the same episodes in the same way."""


def main(args: SplitArgs) -> None:
    """Write the new recordings."""
    from mjlab_rec.data.selecting import split

    need_paths(args.paths)
    if not args.out:
        cli.fail("Give the new recordings: --out train.h5=0.9 --out valid.h5=0.1")
    with progress_bar("Splitting") as progress:
        outs = {path: share for path, share in map(_share, args.out)}
        if len(outs) < len(args.out):
            cli.fail("--out: a path is given twice.")
        found = split(args.paths, outs, args.options, seed=args.seed, progress=progress)
    console = Console(highlight=False, soft_wrap=True)
    for file, count in found.items():
        console.print(f"Wrote {count} episodes to {file}", markup=False)


def _share(text: str) -> tuple[str | Path, float | int]:
    path, _, share = text.rpartition("=")
    if path:
        try:
            return path, int(share) if share.isdigit() else float(share)
        except ValueError:
            pass
    cli.fail(f"--out {text}: it must be PATH=SHARE, such as train.h5=0.9 or valid.h5=100.")
