"""List the tasks that can be run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.table import Column, Table

from mjlab_rec import cli, registry


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line and print a table of tasks.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    tyro.cli(print_tasks, args=argv, prog=prog)


def print_tasks(
    keyword: tyro.conf.Positional[str] = "",
    /,
    task_module: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """List the tasks that can be run.

    Args:
        keyword: Show only tasks with this text in their id.
        task_module: Module to import first, which registers your own tasks. May be repeated.
    """
    logging.basicConfig(format="%(message)s")
    cli.import_task_modules(task_module)
    table = Table(Column("Task", no_wrap=True), "Environment cfg", "Learner cfg")
    for task_id in registry.list_tasks():
        if keyword.lower() in task_id.lower():
            spec = registry.task_spec(task_id)
            table.add_row(task_id, _text(spec.env_cfg), _text(spec.rl_cfg))
    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print(f"No task id contains {keyword!r}.", markup=False)


def _text(source: registry.CfgSource | None) -> str:
    """The name of a cfg's source, without loading it."""
    if source is None or isinstance(source, str):
        return source or "-"
    return getattr(source, "__qualname__", type(source).__name__)
