"""The command line that all scripts share: which task, how many envs, and any cfg field by path."""

from __future__ import annotations

import ast
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mjlab_rec import registry
from mjlab_rec.utils import cfg_paths
from mjlab_rec.utils.plain_data import fit_words

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg

_ENV_PREFIX = "--env."
_RECORD_PREFIX = "--record."
# Options that are short for a recorder.
_SHORTCUTS = {"--video": "video", "--rerun": "rerun", "--plot": "live_plot"}
# What people change first, and parts of a path that only concern how things look.
_FIRST = ("scene.num_envs", "episode_length_s", "rewards", "events", "terminations", "commands")
_LOOKS = {"lights", "cameras", "textures", "materials"}
# What is looked at with other programs.
_PLAIN_FILES = {".jsonl", ".mp4", ".rrd", ".png"}
# Flags have no --no-... twins.
_FLAGS = (tyro.conf.FlagCreatePairsOff,)


@dataclass(kw_only=True)
class TaskArgs:
    """Options of every script that runs a task."""

    task: str
    """Id of the task: mjlab-rec list shows them."""
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


@dataclass(kw_only=True)
class RecordArgs(TaskArgs):
    """Options of every script that can record a rollout."""

    record: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Record the rollout: name of a preset (csv, hdf5, ...), a TOML file, or package.module:Class.
    May be repeated. --record.FIELD VALUE sets a field of the one before it. Without --record.path
    the file is rollouts/TASK/PRESET, with a number if that exists."""
    video: bool = False
    """The same as --record video: record mp4 clips."""
    rerun: bool = False
    """The same as --record rerun: record poses, rewards and actions for the Rerun viewer."""
    plot: bool = False
    """The same as --record live_plot: plot rewards and actions while they come."""
    recorders: dict[str, Any] = field(default_factory=dict, init=False)
    """Cfgs of the recorders asked for, by name."""


Args = TypeVar("Args", bound=TaskArgs)


def parse(
    args_type: type[Args],
    description: str,
    argv: Sequence[str] | None = None,
    play: bool = False,
    prog: str | None = None,
) -> tuple[Args, ManagerBasedRlEnvCfg]:
    """Read a command line into a script's options and the cfg of the task they name.

    `--env.PATH VALUE` sets any field of that cfg. The recorders asked for are added to it if the
    script's options are RecordArgs. What is wrong is said on stderr, and the script ends with exit
    code 2.

    Args:
        args_type: The script's options.
        description: What the script does, for its help.
        argv: The words of the command line. None takes those of the process.
        play: Whether to load the cfg that is meant for watching the task.
        prog: The command's name in its help. None takes that of the process.
    """
    options, overrides = _split(list(sys.argv[1:] if argv is None else argv), _ENV_PREFIX)
    settings: list[Setting] = []
    if issubclass(args_type, RecordArgs):
        options = _without_shortcuts(options)
        options, settings = _split(options, _RECORD_PREFIX)
    wants_help = not {"-h", "--help"}.isdisjoint(options)
    if wants_help:
        options = [word for word in options if word not in ("-h", "--help")]
        _print_options(args_type, description, prog)
        if not any(word.partition("=")[0] == "--task" for word in options):
            raise SystemExit(0)
    args = tyro.cli(args_type, args=options, description=description, prog=prog, config=_FLAGS)
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
    for setting in overrides:
        override(cfg, setting.path, setting.words)
    recorders = {}
    if isinstance(args, RecordArgs) and (args.record or settings):
        recorders = args.recorders = _recorders(args, settings, taken=set(cfg.recorders))
    if wants_help:
        _print_fields(args.task, cfg, _ENV_PREFIX)
        for name, recorder in recorders.items():
            _print_fields(f"recorder {name}", recorder, _RECORD_PREFIX)
        raise SystemExit(0)
    if recorders:
        cfg.recorders = {**cfg.recorders, **recorders}
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
    """End the script with the message of an error that says what to change in the cfg.

    With `--verbose` the error passes on as it is, with its traceback.
    """
    try:
        yield
    except Exception as error:
        from mjlab_rec.data.schema import DataError
        from mjlab_rec.utils.extras import MissingExtraError, UnavailableError

        explained = ValueError, DataError, MissingExtraError, UnavailableError
        # Recorders that failed to close come together.
        errors = list(_leaves(error))
        if args.verbose or not all(isinstance(e, explained) for e in errors):
            raise
        said = " ".join(_message(e, args) for e in errors)
        fail(f"{said} (--verbose shows where this comes from.)")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """An error, or all those in a group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _message(error: BaseException, args: TaskArgs) -> str:
    """What an error says; of a recorder of the command line, with that recorder's options."""
    from mjlab_rec.data.files import PathExistsError, local_path

    if isinstance(error, PathExistsError) and isinstance(args, RecordArgs):
        paths = [getattr(cfg, "path", "") for cfg in args.recorders.values()]
        if any(path and error.path.is_relative_to(local_path(path)) for path in paths):
            return error.said(f"give {_RECORD_PREFIX}if-exists")
    return str(error)


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


@dataclass
class Setting:
    """A field set on the command line."""

    path: str
    words: list[str]
    after: int
    """How many --record options came before it."""


def _split(argv: list[str], prefix: str) -> tuple[list[str], list[Setting]]:
    """Part the options that begin with a prefix, such as `--env.PATH VALUE...`, from the others."""
    options: list[str] = []
    settings: list[Setting] = []
    into = options
    for word in argv:
        if word.startswith(prefix):
            path, equals, value = word.removeprefix(prefix).partition("=")
            into = [value] if equals else []
            records = sum(option.partition("=")[0] == "--record" for option in options)
            settings.append(Setting(path, into, records))
        elif word.startswith("--") or word == "-h":
            into = options
            into.append(word)
        else:
            into.append(word)
    return options, settings


def _without_shortcuts(options: list[str]) -> list[str]:
    """The options with those that are short for a recorder written out."""
    written = []
    for word in options:
        written += ["--record", _SHORTCUTS[word]] if word in _SHORTCUTS else [word]
    return written


def _recorders(args: RecordArgs, settings: list[Setting], taken: set[str]) -> dict[str, Any]:
    """The cfgs of the recorders asked for, by names that are not taken."""
    if not args.record:
        fail(f"{_RECORD_PREFIX}{settings[0].path}: name a recorder before it, as in --record hdf5.")
    from mjlab_rec.recorders.presets import Preset

    cfgs: dict[str, Any] = {}
    for number, source in enumerate(args.record, start=1):
        option = f"--record {source}"
        try:
            preset = Preset(source)
            for setting in settings:
                # What is set before any recorder is meant for the first.
                if max(setting.after, 1) == number:
                    option = f"{_RECORD_PREFIX}{setting.path}"
                    preset.set(setting.path, setting.words)
            option = f"--record {source}"
            name = preset.name
            while name in cfgs or name in taken:
                name += "_"
            cfgs[name] = preset.build(folder=Path("rollouts") / args.task)
        except (ValueError, TypeError) as error:
            fail(f"{option}: {error}")
    return cfgs


def print_recordings(recorders: dict[str, Any]) -> None:
    """Say which files recorders wrote, and what is in them, read back from there.

    Args:
        recorders: Recorders by name, after their environment was closed.
    """
    from mjlab_rec.data.files import parts
    from mjlab_rec.recorders.progress import progress

    console = Console(highlight=False, soft_wrap=True)
    for name, recorder in recorders.items():
        said = progress(recorder)
        files = list(said.files)
        if not files and not said.page:
            console.print(f"\nRecorder {name} wrote no files.", markup=False)
        plain = [file for file in files if file.suffix in _PLAIN_FILES]
        if plain:
            console.print(f"\nRecorder {name} wrote {', '.join(map(str, plain))}", markup=False)
        files = [file for file in files if file not in plain]
        while files:
            # Parts of one run are opened together.
            run = [file for file in files if file in {files[0], *parts(files[0])}]
            console.print(f"\nRecorder {name} wrote {', '.join(map(str, run))}", markup=False)
            console.print(_contents(run[0]), markup=False)
            files = [file for file in files if file not in run]


def _contents(file: Path) -> str:
    """What is in a recording, or why it cannot be read."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.data.schema import DataError

    try:
        with open_rollouts(file) as rollouts:
            return str(rollouts.summary())
    except DataError as error:
        return str(error)


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
        return fit_words(words, leaf.hint)
    except ValueError as error:
        raise ValueError(f"{error} It is {leaf.value!r} now.") from None


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


def _print_options(args_type: type[TaskArgs], description: str, prog: str | None) -> None:
    with contextlib.suppress(SystemExit):
        tyro.cli(args_type, args=["--help"], description=description, prog=prog, config=_FLAGS)
    Console().print("Any field of the task's cfg: --env.PATH VALUE. With --task, they follow here.")
    if issubclass(args_type, RecordArgs):
        Console().print("Any field of a recorder: --record.FIELD VALUE. With --record they follow.")


def _print_fields(owner: str, cfg: Any, prefix: str) -> None:
    """What most change comes first, in short at the end what only the looks depend on."""
    console = Console(highlight=False)
    console.print(f"\nFields of {owner}, with their values:\n", markup=False)
    looks: dict[str, list[str]] = {}
    for leaf in sorted(cfg_paths.leaves(cfg), key=_rank):
        path = leaf.path.replace("_", "-")
        if not _LOOKS.isdisjoint(leaf.path.split(".")):
            above, _, name = path.rpartition(".")
            looks.setdefault(above, []).append(name)
            continue
        value = leaf.value.name if isinstance(leaf.value, Enum) else repr(leaf.value)
        console.print(Text(prefix + path, style="bold"), Text(value, style="cyan"), soft_wrap=True)
        if leaf.doc:
            meaning = leaf.doc.partition(". ")[0].rstrip(".") + "."
            console.print(Padding(Text(meaning), (0, 0, 0, 8), expand=False))
    if looks:
        console.print("\nAnd how things look:\n")
    for above, names in looks.items():
        fields = names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"
        console.print(Text(f"{prefix}{above}.{fields}", style="bold"), soft_wrap=True)


def _rank(leaf: cfg_paths.Leaf) -> int:
    """Place of a field in the help; those of one place keep their order."""
    places = (i for i, top in enumerate(_FIRST) if f"{leaf.path}.".startswith(f"{top}."))
    return next(places, len(_FIRST))
