"""Make a recording of a file or folder of another program, such as robomimic or Minari."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mjlab_rec import cli
from mjlab_rec.commands.data.options import OutputArgs, RecordingAndNew, say_result
from mjlab_rec.commands.data.progress import progress_bar

Source = Literal[
    "robomimic", "isaaclab", "minari", "maniskill", "lerobot", "torchrl", "webdataset", "mjlab_rec"
]


@dataclass(kw_only=True)
class ImportArgs(OutputArgs):
    """Options of ``data import``."""

    paths: RecordingAndNew = ()
    """What to import, and the recording to write."""
    source_format: Source | None = None
    """Format of what is imported. None: recognised."""
    record: bool = True
    """Restore what an export of this package kept. Without it, only what other programs see."""
    step_dt: float = 0.0
    """Duration of a step in seconds, if the source does not say it."""


def main(args: ImportArgs) -> None:
    """Write the recording, and print what was left out."""
    from mjlab_rec.data.importing import import_rollouts

    if len(args.paths) != 2:
        cli.fail("Give what to import, and the recording to write.")
    with progress_bar("Importing") as progress:
        done = import_rollouts(
            *args.paths,
            source_format=args.source_format or "",
            format=args.format,
            compression=args.compression,
            step_dt=args.step_dt,
            record=args.record,
            if_exists=args.if_exists,
            progress=progress,
        )
    say_result(done, source=f" of {done.source_format}")
