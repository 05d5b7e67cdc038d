"""Options that the subcommands of ``data`` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from mjlab_rec import cli

if TYPE_CHECKING:
    from mjlab_rec.data.export import Exported
    from mjlab_rec.data.importing import Imported
    from mjlab_rec.data.rewriting import OutputOptions

_Words = tyro.conf.Positional[tuple[str, ...]]
Recordings = Annotated[_Words, tyro.conf.arg(metavar="RECORDING ...", help_behavior_hint="")]
"""Files, folders or patterns, as words without an option."""
RecordingAndNew = Annotated[_Words, tyro.conf.arg(metavar="RECORDING NEW", help_behavior_hint="")]
"""What is read, then what is written."""


@dataclass(kw_only=True)
class DataArgs:
    """Options of every subcommand."""

    verbose: bool = False
    """Show tracebacks of errors, and warnings."""


@dataclass(kw_only=True)
class OutputArgs(DataArgs):
    """Options of subcommands that write a recording."""

    format: str = ""
    """Format of what is written: hdf5, npz, csv, parquet, robomimic or that of another package.
    Empty: the one that the suffix of the output says, hdf5 if it has none."""
    compression: str | None = None
    """Compression of what is written, such as gzip or lzf for hdf5. None: uncompressed."""
    if_exists: Literal["error", "overwrite", "number"] = "error"
    """What to do if the output exists: end with an error, replace it, or write to the next free
    name, such as out_1.h5."""

    @property
    def options(self) -> OutputOptions:
        """How the new recording is written."""
        from mjlab_rec.data.rewriting import OutputOptions

        return OutputOptions(
            format=self.format, compression=self.compression, if_exists=self.if_exists
        )


def need_paths(paths: tuple[str, ...], what: str = "a recording") -> None:
    """End with an error if no path was given."""
    if not paths:
        cli.fail(f"Give the path of {what}: a file, a folder of them, or a pattern like 'runs/*'.")


def say_written(files: Sequence[Path], what: str = "") -> None:
    """Print the files of a new recording."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"Wrote {what + ' to ' if what else ''}{', '.join(map(str, files))}", markup=False
    )


def say_result(result: Exported | Imported, target: str = "", source: str = "") -> None:
    """Print what an export or import left out, and what it wrote."""
    console = Console(highlight=False, soft_wrap=True)
    for note in result.notes:
        console.print(note, markup=False)
    console.print(
        f"Wrote {result.path}{target}: {result.episodes} episodes, {result.rows} rows{source}",
        markup=False,
    )
