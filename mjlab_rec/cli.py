"""The command line that all scripts share: which task, how many envs, and any cfg field by path."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from numbers import Number
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mjlab_rec import registry
from mjlab_rec.utils import cfg_paths

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg

_ENV_PREFIX = "--env."


@dataclass(kw_only=True)
class TaskArgs:
    """Options of every script that runs a task."""

    task: str
    """Id of the task: scripts/list_tasks.py lists them."""
    task_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module to import first, because it registers tasks of your own. May be repeated."""
    num_envs: int | None = None
    """Number of parallel environments. None leaves it to the task."""
    device: str = "auto"
    """Where to simulate: cpu, cuda or cuda:1. auto takes a GPU if there is one. On a CPU,
    --env.sim.engine chooses between mjbatch and warp."""
    seed: int | None = None
    """Seed of everything random: the same seed gives the same rollout. None leaves it to the
    task."""
    verbose: bool = False
    """Show the tables of the environment's managers, and tracebacks of errors."""


Args = TypeVar("Args", bound=TaskArgs)


def parse(
    args_type: type[Args], description: str, argv: Sequence[str] | None = None, play: bool = False
) -> tuple[Args, ManagerBasedRlEnvCfg]:
    """Read a command line into a script's options and the cfg of the task they name.

    `--env.PATH VALUE` sets any field of that cfg. What is wrong is said on stderr, and the script
    ends with exit code 2.
    """
    options, overrides = _split(list(sys.argv[1:] if argv is None else argv))
    wants_help = not {"-h", "--help"}.isdisjoint(options)
    if wants_help:
        options = [word for word in options if word not in ("-h", "--help")]
        _print_options(args_type, description)
        if not any(word.partition("=")[0] == "--task" for word in options):
            raise SystemExit(0)
    args = tyro.cli(args_type, args=options, description=description)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s"
    )
    import_task_modules(args.task_module)
    try:
        registry.task_spec(args.task)
    except registry.UnknownTaskError as error:
        fail(str(error))

    cfg = registry.load_env_cfg(args.task, play=play)
    if args.num_envs is not None:
        cfg.scene.num_envs = args.num_envs
    if args.seed is not None:
        cfg.seed = args.seed
    for path, values in overrides:
        override(cfg, path, values)
    if wants_help:
        _print_fields(args.task, cfg)
        raise SystemExit(0)
    return args, cfg


def import_task_modules(modules: Sequence[str]) -> None:
    """Import the modules given by --task-module; end the script if one does not exist."""
    for module in modules:
        try:
            registry.import_task_module(module)
        except ModuleNotFoundError as error:
            # A module that exists but imports one that doesn't is the user's to debug.
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            fail(f"--task-module: {error}. It is looked for in the current folder too.")


def override(cfg: Any, path: str, values: Sequence[str]) -> None:
    """Set one field of a cfg from the words given for it; end the script if they do not fit."""
    try:
        cfg_paths.update(cfg, path, lambda leaf: _read(leaf, values))
    except ValueError as error:
        fail(f"{_ENV_PREFIX}{path}: {error}")


@contextlib.contextmanager
def explained(args: TaskArgs) -> Iterator[None]:
    """End the script with the message of a ValueError, which says what to change in the cfg.

    With `--verbose` the error passes on as it is, with its traceback.
    """
    try:
        yield
    except ValueError as error:
        if args.verbose:
            raise
        fail(f"{error} (--verbose shows where this comes from.)")


def run(main: Callable[[], None]) -> None:
    """Run a script; Ctrl-C ends it with exit code 130, not with a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def fail(message: str) -> NoReturn:
    """Say on stderr what is wrong with the command, and end with exit code 2."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"Error: {message}", style="red", markup=False, highlight=False)
    raise SystemExit(2)


def _split(argv: list[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Part the `--env.PATH VALUE...` options from the script's own."""
    options: list[str] = []
    overrides: list[tuple[str, list[str]]] = []
    into = options
    for word in argv:
        if word.startswith(_ENV_PREFIX):
            path, equals, value = word.removeprefix(_ENV_PREFIX).partition("=")
            into = [value] if equals else []
            overrides.append((path, into))
        elif word.startswith("--") or word == "-h":
            into = options
            into.append(word)
        else:
            into.append(word)
    return options, overrides


def _read(leaf: cfg_paths.Leaf, words: Sequence[str]) -> Any:
    """Turn the words given for a field into a value of its type."""
    if not words:
        raise ValueError(f"a value is missing. It is {leaf.value!r} now.")
    if is_dataclass(leaf.value) or (isinstance(leaf.value, dict) and leaf.value):
        if list(words) == ["None"]:
            return None
        raise ValueError("this is a group of fields. Set one of them, or the whole to None.")
    if callable(leaf.value):
        raise ValueError("this is code, which the command line cannot set.")
    if leaf.hint is Any:
        return _read_untyped(leaf.value, words)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return tyro.cli(leaf.hint, args=words, config=(tyro.conf.FlagConversionOff,))
    except SystemExit:
        plain = isinstance(leaf.hint, type) and not get_args(leaf.hint)
        wanted = leaf.hint.__name__ if plain else str(leaf.hint).replace("typing.", "")
        raise ValueError(
            f"{' '.join(words)!r} is not of type {wanted}. It is {leaf.value!r} now."
        ) from None


def _read_untyped(old: Any, words: Sequence[str]) -> Any:
    """Read Python literals, several words as a tuple; they must be of the same kind as before."""
    new = tuple(_literal(word) for word in words) if len(words) > 1 else _literal(words[0])
    if isinstance(old, list) and isinstance(new, tuple):
        new = list(new)
    kind = Number if isinstance(old, Number) and not isinstance(old, bool) else type(old)
    if old is None or new is None or isinstance(new, kind):
        return new
    raise ValueError(f"{' '.join(words)!r} does not fit. It is {old!r} now.")


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _print_options(args_type: type[TaskArgs], description: str) -> None:
    with contextlib.suppress(SystemExit):
        tyro.cli(args_type, args=["--help"], description=description)
    Console().print("Any field of the task's cfg: --env.PATH VALUE. With --task, they follow here.")


def _print_fields(task: str, cfg: ManagerBasedRlEnvCfg) -> None:
    console = Console(highlight=False)
    console.print(f"\nFields of {task}, with their values:\n", markup=False)
    for leaf in cfg_paths.leaves(cfg):
        value = leaf.value.name if isinstance(leaf.value, Enum) else repr(leaf.value)
        option = Text(_ENV_PREFIX + leaf.path.replace("_", "-"), style="bold")
        console.print(option, Text(value, style="cyan"), soft_wrap=True)
        if leaf.doc:
            meaning = leaf.doc.partition(". ")[0].rstrip(".") + "."
            console.print(Padding(Text(meaning), (0, 0, 0, 8), expand=False))
