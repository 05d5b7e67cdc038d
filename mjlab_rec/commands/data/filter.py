"""Keep the episodes that match conditions: return, length, success, environment, any column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mjlab_rec import cli
from mjlab_rec.commands.data.options import OutputArgs, Recordings, need_paths, say_written
from mjlab_rec.commands.data.progress import progress_bar


@dataclass(kw_only=True)
class FilterArgs(OutputArgs):
    """Options of ``data filter``; an episode is kept if it meets all conditions."""

    paths: Recordings = ()
    """Recordings: files, folders with recordings in them, or patterns like 'runs/*.h5'."""
    out: Path
    """Path of the new recording."""
    where: str = ""
    """A condition on the columns of the table of episodes: "return > 10 and length >= 50"."""
    min_return: float | None = None
    """Lowest return."""
    max_return: float | None = None
    """Highest return."""
    min_length: int | None = None
    """Fewest control steps."""
    max_length: int | None = None
    """Most control steps."""
    success: bool = False
    """Only episodes that succeeded."""
    failure: bool = False
    """Only episodes that did not succeed."""
    ended: Literal["terminated", "truncated", "cut"] | None = None
    """Only episodes that ended in this way."""
    whole: bool = False
    """Only episodes of which every step has a row, up to their end."""
    env: tuple[int, ...] = ()
    """Only episodes of these environments."""


def main(args: FilterArgs) -> None:
    """Write the new recording."""
    from mjlab_rec.data.selecting import keep_where

    need_paths(args.paths)
    where = " and ".join(_conditions(args))
    if not where:
        cli.fail("Give a condition, such as --min-return 10 or --where 'return > 10 and not cut'.")
    with progress_bar(f"Writing {args.out.name}") as progress:
        files, kept, count = keep_where(args.paths, args.out, where, args.options, progress)
    say_written(files, f"{kept} of {count} episodes")


def _conditions(args: FilterArgs) -> Iterator[str]:
    bounds = {
        "return >=": args.min_return,
        "return <=": args.max_return,
        "length >=": args.min_length,
        "length <=": args.max_length,
    }
    yield from (f"{compared} {bound!r}" for compared, bound in bounds.items() if bound is not None)
    flags = {"success": args.success, "not success": args.failure}
    yield from (word for word, wanted in flags.items() if wanted)
    if args.ended:
        yield args.ended
    if args.whole:
        yield "not partial and not cut"
    if args.env:
        yield f"env in {list(args.env)}"
    if args.where:
        yield f"({args.where})"
