"""Compare two recordings: channels, episodes, and the first step and field that differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.options import DataArgs
from mjlab_rec.commands.data.progress import progress_bar
from mjlab_rec.utils.plain_data import json_text

if TYPE_CHECKING:
    from mjlab_rec.data.comparing import Difference


@dataclass(kw_only=True)
class DiffArgs(DataArgs):
    """Options of ``data diff``."""

    old: tyro.conf.Positional[str]
    """The first recording: a file or a folder."""
    new: tyro.conf.Positional[str]
    """The second recording."""
    tolerance: float = 0.0
    """Largest difference of floating-point values that counts as equal. 0: equal bit for bit."""
    channels: tuple[str, ...] = ()
    """Channels to compare. Without it all that both have."""
    most: int = 20
    """Number of episodes to list."""
    json: bool = False
    """Print JSON."""


def main(args: DiffArgs) -> int:
    """Print the differences; the exit code is 1 if there are any."""
    from mjlab_rec.data.comparing import diff

    if args.tolerance < 0:
        cli.fail(f"--tolerance must be at least 0, got {args.tolerance}.")
    with progress_bar("Comparing") as progress:
        found = diff(
            *(args.old, args.new),
            tolerance=args.tolerance,
            channels=args.channels or None,
            progress=progress,
        )
    said = json_text(found.to_json(), indent=2) if args.json else text(found, args.most)
    Console(highlight=False, soft_wrap=True).print(said, markup=False)
    return 0 if found.same else 1


def text(found: Difference, most: int) -> str:
    """The differences, a line each."""
    if found.same:
        return f"The recordings are equal: {found.equal} episodes."
    lines = list(found.schema)
    for which, keys in (("first", found.only_old), ("second", found.only_new)):
        if keys:
            named = ", ".join(f"{number} of environment {env}" for env, number in keys[:most])
            more = ", ..." if len(keys) > most else ""
            lines.append(f"Only the {which} has {len(keys)} episodes: {named}{more}.")
    lines += map(str, found.channels)
    lines += map(str, found.episodes[:most])
    if len(found.episodes) > most:
        lines.append(f"... ({len(found.episodes)} in all; --most lists more)")
    lines.append(f"{len(found.episodes)} episodes differ, {found.equal} are equal.")
    return "\n".join(lines)
