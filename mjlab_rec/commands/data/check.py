"""Check recordings: checksums, rows, steps, flags, NaN; say what is wrong and what is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.options import OutputArgs, Recordings, need_paths
from mjlab_rec.commands.data.progress import progress_bar
from mjlab_rec.utils.plain_data import json_text

if TYPE_CHECKING:
    from mjlab_rec.data.checking import CheckResult


@dataclass(kw_only=True)
class CheckArgs(OutputArgs):
    """Options of ``data check``."""

    paths: Recordings = ()
    """Recordings: files, folders with recordings in them, or patterns like 'runs/*.h5'."""
    repair: Path | None = None
    """Write the episodes with which nothing is wrong to this path, for one recording only."""
    keep_rows: bool = False
    """With --repair: also keep the good rows of damaged episodes, which are marked as partial."""
    allow_nan: tuple[str, ...] = ()
    """Channels in which NaN and infinity are fine, such as 'obs/*'."""
    most: int = 20
    """Number of findings to list for each recording."""
    json: bool = False
    """Print JSON: a list with an object for each recording."""


def main(args: CheckArgs) -> int:
    """Check the recordings; the exit code is 1 if anything is wrong with one of them."""
    from mjlab_rec.data.checking import check, check_plans
    from mjlab_rec.data.discovery import find_recordings

    need_paths(args.paths)
    paths = find_recordings(args.paths)
    if args.repair is not None and len(paths) != 1:
        cli.fail(f"--repair needs one recording, but {len(paths)} were given.")
    if args.keep_rows and args.repair is None:
        cli.fail("--keep-rows says what --repair writes. Give --repair, too.")
    console = Console(highlight=False, soft_wrap=True)
    results = []
    for path in paths:
        with progress_bar(f"Checking {path.name}") as progress:
            result = check(
                path, allow_nan=args.allow_nan, most=max(args.most, 1), progress=progress
            )
        results.append(result)
        if not args.json:
            console.print(text(result, args.most), markup=False)
        if args.repair is not None:
            print = (lambda text: None) if args.json else console.print
            _repair(args, path, result, print)
    planned = check_plans(args.paths, results)
    if not planned.ok:
        results.append(planned)
        if not args.json:
            console.print(_text_of_plans(planned), markup=False)
    if args.json:
        console.print(json_text([result.to_json() for result in results], indent=2), markup=False)
    return 0 if all(result.ok for result in results) else 1


def _text_of_plans(result: CheckResult) -> str:
    """What is missing of what was planned."""
    lines = [f"  {finding.text}" for finding in result.findings]
    return "\n".join([f"{result.path}: NOT COMPLETE.", *lines])


def text(result: CheckResult, most: int) -> str:
    """What was found, a line each."""
    lines = [finding.text for finding in result.findings if finding.kind != "note"]
    notes = [f"Note: {finding.text}" for finding in result.findings if finding.kind == "note"]
    if len(lines) > most:
        lines = [*lines[:most], f"... ({len(lines)} in all; --most lists more)"]
    counts = ", ".join(f"{count} {kind}" for kind, count in result.counts.items())
    good = f"{int(result.good.sum())} of {len(result.good)} episodes, {result.good_rows} of"
    verdict = "good" if result.ok else f"NOT GOOD ({counts})"
    head = f"{result.path}: {verdict}. Good: {good} {result.rows} rows."
    return "\n".join([head, *(f"  {line}" for line in (*lines, *notes))])


def _repair(args: CheckArgs, path: Path, result: CheckResult, say: Callable[[str], None]) -> None:
    from mjlab_rec.data.checking import repair

    assert args.repair is not None
    with progress_bar(f"Writing {args.repair.name}") as progress:
        files = repair(path, args.repair, result, args.options, progress, keep_rows=args.keep_rows)
    parts = len(result.good_parts) if args.keep_rows else 0
    more = f" and the good rows of {parts} others" if parts else ""
    say(f"Wrote {int(result.good.sum())} episodes{more} to {', '.join(map(str, files))}")
