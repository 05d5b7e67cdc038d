"""Command-line options of all scripts: the task, its environments, and any cfg field by path."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import tyro
from rich.console import Console

from mjlab_rec import registry
from mjlab_rec.utils.cfg_options import print_fields, set_field

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg

ENV_PREFIX = "--env."
RECORD_PREFIX = "--record."
_AGENT_PREFIX = "--agent."
# Short options for recorders.
_SHORTCUTS = {"--video": "video", "--rerun": "rerun", "--plot": "live_plot"}
# Files that are opened with other programs.
_PLAIN_FILES = {".jsonl", ".mp4", ".rrd", ".png"}
# Do not add --no-... for flags.
_FLAGS = (tyro.conf.FlagCreatePairsOff,)


@dataclass(kw_only=True)
class TaskArgs:
    """Options of scripts that run a task."""

    task: str
    """Id of the task. mjlab-rec list shows all ids. Tasks may have a second cfg for watching: play
    takes it, all other commands the one of training."""
    task_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module to import first, which registers your own tasks. May be repeated."""
    num_envs: int | None = None
    """Number of parallel environments. None: as the task defines it."""
    device: str = "auto"
    """Device: cpu, cuda or cuda:1. auto uses a GPU if there is one. On a CPU, --env.sim.engine
    selects mjbatch or warp."""
    seed: int | None = None
    """Seed of all random numbers: the same seed gives the same rollout. None: as the task defines
    it."""
    verbose: bool = False
    """Show the tables of the managers, and tracebacks of errors."""


@dataclass(kw_only=True)
class RecordArgs(TaskArgs):
    """Options of scripts that can record a rollout."""

    record: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Record the rollout with a preset (csv, hdf5, ...), a TOML file or package.module:Class. May
    be repeated. --record.FIELD VALUE sets a field of the recorder before it. The default path is
    rollouts/TASK/PRESET, with a number if that exists."""
    video: bool = False
    """Record mp4 clips. Short for --record video."""
    rerun: bool = False
    """Record poses, rewards and actions for the Rerun viewer. Short for --record rerun."""
    plot: bool = False
    """Plot rewards and actions live. Short for --record live_plot."""
    recorders: dict[str, Any] = field(default_factory=dict, init=False)
    """Cfgs of the requested recorders, by name."""

    @property
    def rollouts(self) -> Path:
        """Folder of recordings without a path."""
        return Path("rollouts") / self.task


@dataclass(kw_only=True)
class LearnArgs(RecordArgs):
    """Options of scripts that train."""

    preset: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Set fields as a preset says: a name in configs/train, such as quick, or a TOML file with the
    tables [env] and [agent]. May be repeated. --env.* and --agent.* override it, unless they are
    those of a run that is resumed."""
    resume: str | None = None
    """Go on with an earlier run and its options: latest, best, the folder of a run, or the path of
    a checkpoint. Options given now override those of the run."""
    log_root: str = "logs"
    """Folder of all experiments. A run is in LOG_ROOT/EXPERIMENT/DATE."""
    agent_cfg: Any = field(default=None, init=False)
    """Cfg of the learner."""
    checkpoint: Path | None = field(default=None, init=False)
    """The checkpoint to go on with."""
    options: dict[str, Any] = field(default_factory=dict, init=False)
    """The options that change cfgs, in layers, to go on with later."""

    @property
    def rollouts(self) -> Path:
        """Folder of recordings without a path, in that of the run."""
        return RUN_FOLDER / "rollouts"


RUN_FOLDER = Path("RUN")
"""Stands for the folder of the run, which is created later, in paths of recorders."""

Args = TypeVar("Args", bound=TaskArgs)


def parse(
    args_type: type[Args],
    description: str,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
) -> tuple[Args, ManagerBasedRlEnvCfg]:
    """Parse a command line into a script's options and the cfg of the task.

    `--env.PATH VALUE` sets any field of that cfg. If the options are RecordArgs, the requested
    recorders are added to it. With an option `config` that is "play" it is the task's cfg for
    watching. Errors are printed to stderr, and the script ends with exit code 2.

    Args:
        args_type: The script's options.
        description: Description of the script, for its help.
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    options, overrides = split_options(list(sys.argv[1:] if argv is None else argv), ENV_PREFIX)
    settings: list[Setting] = []
    if issubclass(args_type, RecordArgs):
        options = _without_shortcuts(options)
        options, settings = split_options(options, RECORD_PREFIX)
    of_agent: list[Setting] = []
    if issubclass(args_type, LearnArgs):
        options, of_agent = split_options(options, _AGENT_PREFIX)
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
        spec = registry.task_spec(args.task)
    except registry.UnknownTaskError as error:
        fail(str(error))

    cfg = registry.load_env_cfg(args.task, play=getattr(args, "config", "train") == "play")
    if isinstance(args, LearnArgs):
        args.agent_cfg = _agent_cfg(args.task, cfg)
        cfg.scene.num_envs = spec.train_num_envs or cfg.scene.num_envs
        layers = _layers(args, overrides, of_agent)
        for layer in layers:
            _apply(layer, cfg, args.agent_cfg)
        args.options = {"layers": [_from_any_folder(layer) for layer in layers]}
    else:
        if args.num_envs is not None:
            cfg.scene.num_envs = args.num_envs
        if args.seed is not None:
            cfg.seed = args.seed
        for setting in overrides:
            override(cfg, setting.path, setting.words)
    recorders = {}
    if isinstance(args, RecordArgs) and (args.record or settings):
        recorders = args.recorders = requested_recorders(args, settings, taken=set(cfg.recorders))
    if wants_help:
        # First what was asked for, because a task has hundreds of fields.
        for name, recorder in recorders.items():
            print_fields(f"recorder {name}", recorder, RECORD_PREFIX)
        if isinstance(args, LearnArgs):
            print_fields("the learner", args.agent_cfg, _AGENT_PREFIX)
        print_fields(args.task, cfg, ENV_PREFIX)
        raise SystemExit(0)
    if recorders:
        cfg.recorders = {**cfg.recorders, **recorders}
    return args, cfg


def import_task_modules(modules: Sequence[str]) -> None:
    """Import the modules of --task-module; end the script if one does not exist."""
    for module in modules:
        try:
            registry.import_task_module(module)
        except ModuleNotFoundError as error:
            # If the module exists but an import in it fails, the user needs the traceback.
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            fail(f"--task-module: {error}. The current folder is searched, too.")


def override(cfg: Any, path: str, values: Sequence[str], prefix: str = ENV_PREFIX) -> None:
    """Set one field of a cfg from command-line words; end the script if they are invalid."""
    try:
        set_field(cfg, path, values)
    except ValueError as error:
        fail(f"{prefix}{path}: {error}")


@contextlib.contextmanager
def explained(args: Any) -> Iterator[None]:
    """Print the message of an expected error, without its traceback, and end the script.

    With `--verbose` the error is raised.

    Args:
        args: The script's options, one of which is `verbose`.
    """
    try:
        yield
    except Exception as error:
        from mjlab_rec.data.schema import DataError
        from mjlab_rec.utils.extras import MissingExtraError, UnavailableError

        explained = ValueError, DataError, MissingExtraError, UnavailableError
        # Several recorders may fail to close.
        errors = list(_leaves(error))
        if args.verbose or not all(isinstance(e, explained) for e in errors):
            raise
        messages = " ".join(_message(e, args) for e in errors)
        fail(messages)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """An error, or all those in a group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _message(error: BaseException, args: Any) -> str:
    """The message of an error; for a recorder of the command line, with its options."""
    from mjlab_rec.data.files import PathExistsError, local_path

    if isinstance(error, PathExistsError) and isinstance(args, RecordArgs):
        paths = [getattr(cfg, "path", "") for cfg in args.recorders.values()]
        if any(path and error.path.is_relative_to(local_path(path)) for path in paths):
            return error.described(f"give {RECORD_PREFIX}if-exists")
    return str(error)


def run(main: Callable[[], None]) -> None:
    """Run a script; Ctrl-C ends it with exit code 130 and without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def fail(message: str) -> NoReturn:
    """Print an error to stderr, and end with exit code 2."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"Error: {message}", style="red", markup=False, highlight=False)
    raise SystemExit(2)


@dataclass
class Setting:
    """A field set on the command line."""

    path: str
    words: list[str]
    after: int
    """Number of --record options before it."""


def split_options(argv: list[str], prefix: str) -> tuple[list[str], list[Setting]]:
    """Separate options with a prefix, such as `--env.PATH VALUE...`, from the others."""
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
    """Expand the short options of recorders."""
    written = []
    for word in options:
        written += ["--record", _SHORTCUTS[word]] if word in _SHORTCUTS else [word]
    return written


def _agent_cfg(task: str, env_cfg: ManagerBasedRlEnvCfg) -> Any:
    """The learner's cfg of a task; PPO with its defaults if it has none."""
    if registry.task_spec(task).rl_cfg is not None:
        return registry.load_rl_cfg(task)
    from mjlab_rec.rl.config import default_runner_cfg

    try:
        return default_runner_cfg(env_cfg.observations)
    except ValueError as error:
        fail(f"Task {task!r}: {error}")


def _layers(
    args: LearnArgs, of_env: list[Setting], of_agent: list[Setting]
) -> list[dict[str, Any]]:
    """The options that change cfgs: those of the run that is resumed, then those given now.

    Each layer overrides the ones before it. Also finds the checkpoint.
    """
    layers: list[dict[str, Any]] = []
    if args.resume is not None:
        from mjlab_rec.rl.run_folders import find_checkpoint, read_agent

        try:
            args.checkpoint = find_checkpoint(args.resume, args.task, args.log_root)
        except ValueError as error:
            fail(f"--resume: {error}")
        about = read_agent(args.checkpoint.parent)
        if about.get("task") not in (None, args.task):
            fail(
                f"--resume: {args.checkpoint} is a checkpoint of the task {about['task']!r}, not of"
                f" {args.task!r}."
            )
        earlier = about.get("options", {})
        # Older runs have one layer only.
        layers += earlier.get("layers", [earlier] if earlier else [])
    given = {
        "preset": list(args.preset),
        "num_envs": args.num_envs,
        "env": [[setting.path, setting.words] for setting in of_env],
        "agent": [[setting.path, setting.words] for setting in of_agent],
        "seed": args.seed,
    }
    if any(value not in (None, []) for value in given.values()):
        layers.append(given)
    return layers


def _from_any_folder(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer with paths of presets that hold in any current folder."""
    presets = [
        str(Path(p).expanduser().absolute()) if p.endswith(".toml") else p
        for p in layer.get("preset", ())
    ]
    return {**layer, "preset": presets}


def _apply(layer: dict[str, Any], cfg: ManagerBasedRlEnvCfg, agent_cfg: Any) -> None:
    """Set the fields that a layer of options names."""
    from mjlab_rec.rl.presets import TrainPreset

    for source in layer.get("preset", ()):
        try:
            TrainPreset(source).apply(cfg, agent_cfg)
        except ValueError as error:
            fail(f"--preset {source}: {error}")
    if layer.get("num_envs") is not None:
        cfg.scene.num_envs = layer["num_envs"]
    for path, words in layer.get("env", ()):
        override(cfg, path, words)
    for path, words in layer.get("agent", ()):
        override(agent_cfg, path, words, _AGENT_PREFIX)
    if layer.get("seed") is not None:
        cfg.seed = agent_cfg.seed = layer["seed"]


def requested_recorders(args: Any, settings: list[Setting], taken: set[str]) -> dict[str, Any]:
    """The cfgs of the requested recorders, by names that are not taken.

    Args:
        args: Options with ``record`` and ``rollouts``, such as RecordArgs.
        settings: Fields of the recorders.
        taken: Names that are taken.
    """
    if not args.record:
        fail(
            f"{RECORD_PREFIX}{settings[0].path} needs a recorder before it, such as --record hdf5."
        )
    from mjlab_rec.recorders.presets import Preset

    cfgs: dict[str, Any] = {}
    for number, source in enumerate(args.record, start=1):
        option = f"--record {source}"
        try:
            preset = Preset(source)
            for setting in settings:
                # Fields set before any recorder belong to the first one.
                if max(setting.after, 1) == number:
                    option = f"{RECORD_PREFIX}{setting.path}"
                    preset.set(setting.path, setting.words)
            option = f"--record {source}"
            name = preset.name
            while name in cfgs or name in taken:
                name += "_"
            cfgs[name] = preset.build(folder=args.rollouts)
        except (ValueError, TypeError) as error:
            fail(f"{option}: {error}")
    return cfgs


def print_recordings(recorders: dict[str, Any]) -> None:
    """Print the files that recorders wrote, and a summary of their content.

    Args:
        recorders: Recorders by name, whose environment is closed.
    """
    from mjlab_rec.data.files import parts
    from mjlab_rec.recorders.progress import progress

    console = Console(highlight=False, soft_wrap=True)
    described = False  # One of them at length: the others have the same episodes.
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
            # The parts of a recording are opened together.
            run = [file for file in files if file in {files[0], *parts(files[0])}]
            console.print(f"\nRecorder {name} wrote {', '.join(map(str, run))}", markup=False)
            console.print(_contents(run[0], short=described), markup=False)
            described = True
            files = [file for file in files if file not in run]


def _contents(file: Path, short: bool) -> str:
    """The summary of a recording or, if short, its size; or the reason why it cannot be read."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.data.schema import DataError

    try:
        with open_rollouts(file) as rollouts:
            if not short:
                return str(rollouts.summary())
            rows = rollouts.episodes["rows"].sum()
            return f"{len(rollouts)} episodes, {rows} rows: mjlab-rec data info {file}"
    except DataError as error:
        return str(error)


def _print_options(args_type: type[TaskArgs], description: str, prog: str | None) -> None:
    with contextlib.suppress(SystemExit):
        tyro.cli(args_type, args=["--help"], description=description, prog=prog, config=_FLAGS)
    Console().print(
        "Set any field of the task's cfg: --env.PATH VALUE. With --task, they are listed here."
    )
    if issubclass(args_type, LearnArgs):
        Console().print("Set any field of the learner's cfg: --agent.PATH VALUE.")
    if issubclass(args_type, RecordArgs):
        Console().print(
            "Set any field of a recorder: --record.FIELD VALUE. With --record, they are listed."
        )
