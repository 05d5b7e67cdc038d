"""Write a web page about a recording: returns, ends, distributions, worst and best episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mjlab_rec.commands.data.options import DataArgs, need_paths, say_written
from mjlab_rec.commands.data.progress import progress_bar


@dataclass(kw_only=True)
class ReportArgs(DataArgs):
    """Options of ``data report``."""

    paths: tyro.conf.Positional[tuple[str, ...]] = ()
    """Recordings: files, folders with recordings in them, or patterns like 'runs/*.h5'. Several are
    reported as one."""
    out: Path = Path("report.html")
    """The page: one file, which needs no network."""
    if_exists: Literal["error", "overwrite", "number"] = "error"
    """What to do if the page exists: end with an error, replace it, or write to the next free name,
    such as report_1.html."""


def main(args: ReportArgs) -> None:
    """Write the page."""
    from mjlab_rec.data.reporting import report

    need_paths(args.paths)
    source = args.paths[0] if len(args.paths) == 1 else args.paths
    with progress_bar("Reading") as progress:
        path = report(source, args.out, if_exists=args.if_exists, progress=progress)
    say_written([path])
