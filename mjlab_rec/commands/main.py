"""The command ``mjlab-rec``, which does what the scripts do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands import collect, data, evaluate, export, play, replay, terrain, train
from mjlab_rec.commands import list as list_tasks
from mjlab_rec.utils.string import nearest

_NAME = "mjlab-rec"
_COMMANDS = {
    "play": play,
    "train": train,
    "evaluate": evaluate,
    "collect": collect,
    "export": export,
    "replay": replay,
    "data": data,
    "list": list_tasks,
    "terrain": terrain,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command with its options; without arguments, list the commands."""
    command, *words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        _print_help()
    elif command in _COMMANDS:
        cli.run(lambda: _COMMANDS[command].main(words, prog=f"{_NAME} {command}"))
    else:
        cli.fail(f"Unknown command {command!r}. {nearest(command, list(_COMMANDS))}")


def _print_help() -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"usage: {_NAME} COMMAND [OPTIONS]\n", markup=False)
    for name, module in _COMMANDS.items():
        console.print(f"  {name:10}{(module.__doc__ or '').splitlines()[0]}", markup=False)
    console.print(f"\n{_NAME} COMMAND --help lists the options of a command.", markup=False)
