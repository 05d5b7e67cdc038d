"""Write a web page about a recording: returns, ends, distributions, worst and best episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from mjlab_rec.commands.data.options import DataArgs, Recordings, need_paths, say_written
from mjlab_rec.commands.data.progress import progress_bar

if TYPE_CHECKING:
    from mjlab_rec.data.reporting import Clip
    from mjlab_rec.data.rollouts import Rollouts


@dataclass(kw_only=True)
class ReportArgs(DataArgs):
    """Options of ``data report``."""

    paths: Recordings = ()
    """Recordings: files, folders with recordings in them, or patterns like 'runs/*.h5'. Several are
    reported as one."""
    out: Path = Path("report.html")
    """The page: one file, which needs no network."""
    if_exists: Literal["error", "overwrite", "number"] = "error"
    """What to do if the page exists: end with an error, replace it, or write to the next free name,
    such as report_1.html."""
    no_clips: bool = False
    """Do not draw clips of the worst and the best episode from their states."""


def main(args: ReportArgs) -> None:
    """Write the page."""
    from mjlab_rec.data.reporting import report

    need_paths(args.paths)
    source = args.paths[0] if len(args.paths) == 1 else args.paths
    clips: Any = None

    def clip(rollouts: Rollouts, index: int) -> Clip | None:
        """Draw a clip; what that needs takes long to import, so not without states."""
        nonlocal clips
        if "state" not in rollouts.channels:
            return None
        if clips is None:
            from mjlab_rec.replay.clips import StateClips

            clips = StateClips()
        return clips(rollouts, index)

    with progress_bar("Reading") as progress:
        path = report(
            *(source, args.out),
            if_exists=args.if_exists,
            clip=None if args.no_clips else clip,
            progress=progress,
        )
    if clips is not None and clips.why_not:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"There are no clips: {clips.why_not}", markup=False)
    say_written([path])
