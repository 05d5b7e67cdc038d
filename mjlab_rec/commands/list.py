"""List the tasks that can be run, and what can be recorded of one."""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Column, Table

from mjlab_rec import cli, registry
from mjlab_rec.utils.string import nearest


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line and print a table of tasks, or of the channels of one.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    tyro.cli(print_tasks, args=argv, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


def print_tasks(
    keyword: tyro.conf.Positional[str] = "",
    /,
    channels: bool = False,
    task_module: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """List the tasks that can be run, and what can be recorded of one.

    Args:
        keyword: Show only tasks with this text in their id.
        channels: Show what can be recorded of this one task, sensors included: names, shapes, and
            names of elements.
        task_module: Module to import first, which registers your own tasks. May be repeated.
    """
    logging.basicConfig(format="%(message)s")
    cli.import_task_modules(task_module)
    console = Console()
    found = [task for task in registry.list_tasks() if keyword.lower() in task.lower()]
    if channels:
        task = keyword if keyword in found else found[0] if len(found) == 1 else None
        if task is None:
            known = found or registry.list_tasks()
            cli.fail(f"--channels needs the id of one task. {nearest(keyword, known)}")
        console.print(channel_table(task))
        console.print(
            "next_obs/... is what obs/... is after the step. A name such as obs, sensor or command"
            " stands for everything below it.",
            soft_wrap=True,
        )
    elif not found:
        console.print(f"No task id contains {keyword!r}.", markup=False)
    else:
        table = Table(Column("Task", no_wrap=True), "Description", "Own config for play")
        for task in found:
            spec = registry.task_spec(task)
            table.add_row(task, description(spec), "yes" if spec.play_env_cfg else "")
        console.print(table)
        console.print("mjlab-rec list TASK --channels: what can be recorded of a task.")


def description(spec: registry.TaskSpec) -> str:
    """The first line of the docstring of the function that makes a task's cfg."""
    source: Any = spec.env_cfg
    if isinstance(source, str):
        text = _unloaded(source)
    else:
        text = inspect.getdoc(source) if inspect.isroutine(source) else None
    return (text or "-").splitlines()[0]


def _unloaded(source: str) -> str | None:
    """The docstring of "module:function", read without importing what the module needs."""
    module, _, name = source.partition(":")
    try:
        found = find_spec(module)
        tree = ast.parse(Path(found.origin).read_text("utf-8") if found and found.origin else "")
    except (ImportError, OSError, SyntaxError, ValueError):
        return None  # What is wrong with it is said when it is loaded.
    nodes = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    return ast.get_docstring(nodes[0]) if nodes else None


def channel_table(task: str) -> Table:
    """What can be recorded of a task: one of its environments is built and reset."""
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.channels import all_sources

    table = Table(Column("Channel", no_wrap=True), "Shape", "Type", "Time", "Elements", title=task)
    cfg = registry.load_env_cfg(task)
    cfg.scene.num_envs, cfg.recorders = 1, {}
    with ManagerBasedRlEnv(cfg, device="cpu") as env:
        env.reset(seed=0)
        for source in all_sources(env):
            if source.next_of:
                continue
            spec = source.spec(None)
            shape = " x ".join(map(str, spec.shape)) or "1"
            table.add_row(spec.name, shape, str(spec.dtype), spec.when, ", ".join(spec.elements))
    return table
