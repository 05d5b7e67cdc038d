"""Look at recordings, check them and make new ones of them."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.utils.string import nearest

_HERE = "mjlab_rec.commands.data"

SUBCOMMANDS = {
    "info": f"{_HERE}.info:InfoArgs",
    "check": f"{_HERE}.check:CheckArgs",
    "merge": f"{_HERE}.merge:MergeArgs",
    "split": f"{_HERE}.split:SplitArgs",
    "filter": f"{_HERE}.filter:FilterArgs",
    "diff": f"{_HERE}.diff:DiffArgs",
    "plot": f"{_HERE}.plot:PlotArgs",
    "relabel": f"{_HERE}.relabel:RelabelArgs",
    "report": f"{_HERE}.report:ReportArgs",
    "export": f"{_HERE}.export:ExportArgs",
    "import": f"{_HERE}.import_:ImportArgs",
}
"""Each subcommand with its options, as "module:Class".

The module also has ``main(args)``, which returns the exit code (None is 0), and a docstring, which
is the description in the help. It imports what takes long only in ``main``. Options with a field
``env_fields`` get those that --env.PATH set.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run a subcommand; without arguments, list the subcommands.

    It ends with exit code 0 if all is well, 1 if what was checked or compared is not, and 2 if an
    option is wrong or a recording cannot be read.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    name, *words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    prog = prog or Path(sys.argv[0]).name
    if name in ("-h", "--help"):
        _print_help(prog)
        return
    if name not in SUBCOMMANDS:
        cli.fail(f"Unknown subcommand {name!r}. {nearest(name, list(SUBCOMMANDS))}")
    module, args_type = load(name)
    takes_fields = "env_fields" in getattr(args_type, "__dataclass_fields__", ())
    fields: list[cli.Setting] = []
    if takes_fields:
        words, fields = cli.split_options(words, cli.ENV_PREFIX)
    more = "\n\nSet any field of the task: --env.PATH VALUE." if takes_fields else ""
    args: Any = tyro.cli(
        args_type,
        args=words,
        description=f"{module.__doc__}{more}",
        prog=f"{prog} {name}",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if takes_fields:
        args.env_fields = fields
    logging.basicConfig(
        level=logging.WARNING if args.verbose else logging.ERROR, format="%(message)s"
    )
    with cli.explained(args):
        code = module.main(args)
    if code:
        raise SystemExit(code)


def load(name: str) -> tuple[ModuleType, type]:
    """The module of a subcommand, and its options."""
    module_name, _, args_type = SUBCOMMANDS[name].partition(":")
    module = importlib.import_module(module_name)
    return module, getattr(module, args_type)


def _print_help(prog: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"usage: {prog} SUBCOMMAND [OPTIONS]\n", markup=False)
    console.print(f"{(__doc__ or '').splitlines()[0]}\n", markup=False)
    for name in SUBCOMMANDS:
        module, _ = load(name)
        console.print(f"  {name:10}{(module.__doc__ or '').splitlines()[0]}", markup=False)
    console.print("\nSUBCOMMAND --help lists the options of a subcommand.", markup=False)
