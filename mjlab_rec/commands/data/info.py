"""Describe recordings: task, channels, episodes, returns, size, and whether they are complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.options import DataArgs, Recordings, need_paths
from mjlab_rec.data.channel_table import channel_table
from mjlab_rec.utils.plain_data import json_text
from mjlab_rec.utils.tables import format_table, size_text

_MOST_TOLD = 5  # of the sentences about what is missing


@dataclass(kw_only=True)
class InfoArgs(DataArgs):
    """Options of ``data info``."""

    paths: Recordings = ()
    """Recordings: files or folders."""
    json: bool = False
    """Print JSON: a list with an object for each recording."""


def main(args: InfoArgs) -> int:
    """Print the descriptions; the exit code is 2 if a recording cannot be read."""
    from mjlab_rec.data.description import describe
    from mjlab_rec.data.schema import DataError

    need_paths(args.paths)
    console = Console(highlight=False, soft_wrap=True)
    found, errors = [], []
    for path in args.paths:
        try:
            found.append(describe(path))
        except DataError as error:
            errors.append(str(error))
    if args.json:
        console.print(json_text(found, indent=2), markup=False)
    else:
        console.print("\n\n".join(map(text, found)), markup=False)
    if errors:
        cli.fail(" ".join(errors))
    return 0


def text(about: dict[str, Any]) -> str:
    """A description as tables."""
    ends = ", ".join(f"{n} {name}" for name, n in about["ends"].items() if n)
    rows: list[tuple[str, Any]] = [
        ("path", about["path"]),
        ("format", about["format"]),
        ("files", f"{about['files']}, {size_text(about['bytes'])}"),
        ("state", about["state"]),
        *(("missing", text) for text in _missing(about)[:_MOST_TOLD]),
        *((name, about[name]) for name in ("task", "engine", "seed") if about[name] is not None),
        *([("versions", _versions(about["versions"]))] if about["versions"] else []),
        ("environments", about["envs"]),
        ("rows", about["rows"]),
        *([("rows lost", about["rows_lost"])] if about["rows_lost"] else []),
        ("step", f"{about['step_dt']:g} s"),
        *([("recorded", f"one of {about['every']} steps")] if about["every"] > 1 else []),
        ("episodes", f"{about['episodes']}" + f" ({ends})" * bool(ends)),
        *((name, _spread(about[name])) for name in ("return", "length")),
        *([("attached", ", ".join(about["attachments"]))] if about["attachments"] else []),
        *(("note", note) for note in about["notes"]),
    ]
    keys = "name", "dtype", "shape", "when", "units", "elements"
    channels = channel_table(tuple(spec[key] for key in keys) for spec in about["channels"])
    return f"{format_table('Recording', ('what', 'value'), rows)}\n\n{channels}"


def _missing(about: dict[str, Any]) -> list[str]:
    """What is missing, if the state does not say all of it."""
    return about["incomplete"] if about["state"].startswith("incomplete") else []


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _spread(numbers: dict[str, float] | None) -> str:
    if numbers is None:
        return "unknown"
    return ", ".join(f"{name} {value:g}" for name, value in numbers.items())
