"""Collect many episodes with many workers, on one or more machines, even if some are killed."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.agents import maker_of
from mjlab_rec.utils.interrupts import end_by_exit

if TYPE_CHECKING:
    from mjlab_rec.collecting.folder import Folder
    from mjlab_rec.collecting.plan import Plan
    from mjlab_rec.collecting.ranks import Place
    from mjlab_rec.collecting.streaming import RowStream
    from mjlab_rec.collecting.work import Work

_PATH = f"{cli.RECORD_PREFIX}path"
_ENV_NUM_ENVS = f"{cli.ENV_PREFIX}scene.num-envs"
_ENVS = {"cpu": 64, "cuda": 2048}
_MOST_PER_ENV = 4
_FEWEST_SHARDS = 16
# Fields of recorders that choose what is recorded, which the shards do.
_CHOSEN = ("trigger", "length", "envs", "max_episodes", "max_steps", "max_bytes")
# Values of recorders' fields that may lose rows, which cannot be played again.
_LOSSY = {"overflow": "drop", "on_error": "disable", "autostart": False}


@dataclass(kw_only=True)
class CollectArgs(cli.RecordArgs):
    """Options of ``collect``."""

    record: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What to record with: a preset (hdf5, csv, ...), a TOML file or package.module:Class.
    --record.path FOLDER, or a URL such as s3://bucket/run, says where. --record.FIELD VALUE sets
    other fields of the recorder."""
    agent: str = "latest"
    """latest or best: a checkpoint of the task's last training. Or the file of a checkpoint, a
    TorchScript or ONNX file, the folder of a run, zero, random, or package.module:function."""
    episodes: int = 1000
    """Number of episodes, of all workers together. They are divided into shards of --num-envs times
    --per-env episodes, which workers play one after another. The same options give the same
    episodes, whatever the number of workers."""
    num_envs: int | None = None
    """Environments that a worker simulates at once. None: 64 on a CPU, 2048 on a GPU, or fewer if
    there are fewer episodes."""
    per_env: int | None = None
    """Episodes that an environment plays in a shard. None: 4, or fewer if that would make less than
    16 shards."""
    workers: int | None = None
    """Processes to start on this machine; with --ray the most actors in the cluster. None: 1, and
    with --ray as many as fit."""
    ray: str | None = None
    """Use a Ray cluster: its address, auto for the one that this machine belongs to, or local to
    start one here."""
    worker_cores: int | None = None
    """CPU cores of each worker. None: all cores, divided among the workers of a machine; with --ray
    1."""
    rank: int | None = None
    """Which of --ranks workers this process is, from 0. None: as torchrun or SLURM says."""
    ranks: int | None = None
    """How many workers you start yourself, each with its own --rank."""
    log_root: str = "logs"
    """Folder of the training runs, for latest and best."""
    config: Literal["train", "play"] = "train"
    """Which cfg of the task: train, that of training; or play, its cfg for watching, if it has one,
    often without noise, pushes and time limit."""
    where: str = field(default="", init=False)
    """The folder or URL."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the command line, play what is missing and print the progress.

    Args:
        argv: The arguments. None: those of the process.
        prog: Name of the command in its help. None: that of the process.
    """
    collect(list(sys.argv[1:] if argv is None else argv), prog=prog)


def collect(
    words: Sequence[str],
    on_shard: Callable[[str], None] | None = None,
    prog: str | None = None,
    stream: RowStream | None = None,
) -> None:
    """Collect what is missing, as ``mjlab-rec collect`` does.

    Args:
        words: The words of the command line.
        on_shard: Called with the path or URL of each shard's folder when this process, one that it
            has started or one of its Ray actors has finished it.
        prog: Name of the command in its help. None: that of the process.
        stream: Gets the rows that are recorded while this runs, of Ray actors only.
    """
    with nullcontext() if stream is None else stream.feeding():
        args, env_cfg = _parsed(words, prog)
        if stream is not None and args.ray is None:
            cli.fail(
                "A stream gets rows from a Ray cluster: add --ray, or --ray local to start one on"
                " this machine. Without it, follow(FOLDER) reads each shard when it is finished."
            )
        with cli.explained(args), _ending_on_sigterm():
            try:
                _collect(args, env_cfg, list(words), _told(on_shard), stream)
            except (KeyboardInterrupt, SystemExit):  # Ctrl-C or SIGTERM.
                Console().print("Stopped. What is finished stays: the same command goes on.")
                raise


def _told(on_shard: Callable[[str], None] | None) -> Callable[[str], None]:
    """The caller's function, whose errors are not explained like those of options."""

    def told(path: str) -> None:
        try:
            if on_shard is not None:
                on_shard(path)
        except Exception as error:
            raise RuntimeError(f"on_shard failed for '{path}': {error!r}") from error

    return told


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that workers end and clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Handlers can be set in the main thread only.
        return
    before = signal.signal(signal.SIGTERM, end_by_exit)  # SLURM may send several.
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def work_from(
    words: Sequence[str],
    place: Place | None = None,
    device: str | None = None,
    agent: str | None = None,
) -> Work:
    """What a worker needs, from the words of the command line.

    Args:
        words: The words.
        place: Which of how many workers it is. None: the only one.
        device: Device of the plan, "cpu" or "cuda". None: what this machine has.
        agent: What plays instead of --agent.
    """
    args, env_cfg = _parsed(words)
    args.agent = agent or args.agent
    return _work(args, env_cfg, place, device)


def _parsed(words: Sequence[str], prog: str | None = None) -> tuple[CollectArgs, Any]:
    """The options and the cfg of the task; its recorders' paths are names of files."""
    words, paths = _without_path(words)
    args, env_cfg = cli.parse(CollectArgs, __doc__ or "", words, prog=prog)
    if not args.recorders or not paths:
        cli.fail(f"Say what to record and where: --record hdf5 {_PATH} FOLDER.")
    if len(set(paths)) > 1:
        cli.fail(f"{_PATH} is the one folder of all workers, but {' and '.join(paths)} were given.")
    args.where = paths[0]
    for name in ("episodes", "num_envs", "per_env", "workers", "worker_cores"):
        value = getattr(args, name)
        if value is not None and value < 1:
            cli.fail(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
    if any(word.partition("=")[0].replace("_", "-") == _ENV_NUM_ENVS for word in words):
        cli.fail(f"Give --num-envs instead of {_ENV_NUM_ENVS}: it decides the size of shards.")
    if args.ray is not None and args.rank is not None:
        cli.fail("--ray and --rank are mutually exclusive. Give only one of them.")
    return args, env_cfg


def _without_path(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the folder out of the words, because each shard's recorder has its own path."""
    rest: list[str] = []
    paths: list[str] = []
    takes = False
    for word in words:
        name, equals, value = word.partition("=")
        if takes:
            paths.append(word)
            takes = False
        elif name == _PATH:
            takes = not equals
            paths += [value] if equals else []
        else:
            rest.append(word)
    if takes:
        cli.fail(f"{_PATH}: a value is missing.")
    return rest, paths


def _work(args: CollectArgs, env_cfg: Any, place: Place | None, device: str | None) -> Work:
    """What a worker needs."""
    from mjlab_rec.collecting.agent_files import AgentFiles
    from mjlab_rec.collecting.plan import Plan, plain_cfg
    from mjlab_rec.collecting.ranks import Place
    from mjlab_rec.collecting.sources import source_hashes
    from mjlab_rec.collecting.work import Work
    from mjlab_rec.sim import resolve_device
    from mjlab_rec.utils.threads import choose_threads, usable_cores

    place = place or Place()
    # In a cluster the first process may have no GPU, and a worker has one of its own.
    chosen = device or str(resolve_device(args.device))
    kind = chosen.partition(":")[0]
    if kind == "cuda" and args.device in ("auto", "cuda") and place.local_count > 1:
        chosen = _gpu_of(place)
    recorder = _checked_recorder(args.recorders)
    make_policy, path = maker_of(args.agent, args.task, args.log_root)
    num_envs = args.num_envs or min(args.episodes, _ENVS[kind])
    env_cfg.scene.num_envs = num_envs
    seed = env_cfg.seed = 0 if env_cfg.seed is None else env_cfg.seed
    per_env = max(1, min(_MOST_PER_ENV, args.episodes // (num_envs * _FEWEST_SHARDS)))
    plan = Plan(
        task=args.task,
        config=args.config,
        agent=str(path or args.agent),
        policy_hash=AgentFiles.read(args.agent, make_policy, path).hash,
        device=kind,
        seed=seed,
        episodes=args.episodes,
        num_envs=num_envs,
        per_env=args.per_env or per_env,
        versions=_versions(),
        env_cfg=plain_cfg(env_cfg, "env_cfg"),
        recorder=plain_cfg(recorder, "recorder"),
        sources=source_hashes(type(env_cfg), {**vars(env_cfg), "recorders": {}}, recorder),
    )
    plan.check()
    if env_cfg.sim.num_threads is None:
        threads = choose_threads(processes=place.local_count, cores=place.cores).engine
        env_cfg.sim.num_threads = args.worker_cores or min(threads, usable_cores())
    return Work(plan=plan, env_cfg=env_cfg, device=chosen, make_policy=make_policy, rank=place.rank)


def _collect(
    args: CollectArgs,
    env_cfg: Any,
    words: list[str],
    on_shard: Callable[[str], None],
    stream: RowStream | None,
) -> None:
    from mjlab_rec.collecting.agent_files import AgentFiles
    from mjlab_rec.collecting.board import Board
    from mjlab_rec.collecting.folder import Folder
    from mjlab_rec.collecting.ranks import place

    console = Console(highlight=False, soft_wrap=True)
    here = place(args.rank, args.ranks)
    folder = Folder(args.where)
    device = None
    if args.ray is not None:
        from mjlab_rec.collecting.ray_actors import connect

        device = connect(args.ray, args.device)
    agent = AgentFiles.read(args.agent, *maker_of(args.agent, args.task, args.log_root))
    with agent.unpacked() as args.agent:
        work = _work(args, env_cfg, here, device)
        plan = work.plan = replace(work.plan, agent=agent.name)
        folder.claim(plan)
        missing = folder.missing(plan)
        own = here.share(missing)
        console.print(_announcement(work, here, folder, len(missing), len(own)), markup=False)
        with Board(here.share(plan.shards), own, console) as board:
            if args.ray is not None:
                from mjlab_rec.collecting.ray_actors import collect_in_ray

                collect_in_ray(
                    partial(_of_actor, words, plan.device, Path(args.agent).name),
                    *(dict(agent.content), folder, plan, own, board),
                    workers=args.workers,
                    cores=args.worker_cores or 1,
                    on_shard=on_shard,
                    stream=stream,
                )
            elif args.workers is not None and args.workers > 1:
                from mjlab_rec.collecting.processes import collect_in_processes

                part = (words, here, args.workers, args.agent, plan, folder.where)
                make = partial(_of_process, *part)
                collect_in_processes(make, folder, own, args.workers, board, on_shard)
            else:
                _collect_here(work, folder, own, board, on_shard)
    _conclude(folder, plan, here, console)


def _collect_here(
    work: Work, folder: Folder, shards: list[Any], board: Any, on_shard: Callable[[str], None]
) -> None:
    """Play shards in this process."""
    from mjlab_rec.collecting.work import do_shard

    name = f"Worker {work.rank}"
    for shard in shards:
        board.begin(name, shard)
        board.done(name, shard, do_shard(work, folder, shard, partial(board.tell, name)))
        on_shard(folder.path_of(shard))


def _of_process(
    words: list[str],
    here: Place,
    workers: int,
    agent: str,
    planned: Plan,
    where: str,
    number: int,
) -> Work:
    """The part of one of several processes on this machine."""
    work = work_from(words, here.part(number, workers), agent=agent)
    work.plan.check_same(planned, where)  # A file may have changed since the first process began.
    return work


def _of_actor(words: list[str], device: str, agent: str, agent_files: dict[str, bytes]) -> Work:
    """The part of an actor, which may be on another machine."""
    import tempfile

    if not agent_files:
        return work_from(words, device=device)
    folder = Path(tempfile.mkdtemp(prefix="mjlab_rec_agent_"))
    for name, content in agent_files.items():
        (folder / name).write_bytes(content)
    return work_from(words, device=device, agent=str(folder / agent))


def _conclude(folder: Folder, plan: Plan, here: Place, console: Console) -> None:
    """Say what there is now, and how to go on."""
    folder.clean()
    missing = folder.missing(plan)
    done = plan.episodes - sum(shard.episodes for shard in missing)
    said = f"{folder.where}: {done} of {plan.episodes} episodes."
    if missing and here.count > 1:
        said += " Other workers may still be at work. The same command does what is missing."
    elif not missing:
        said += f" Read them with open_rollouts({folder.where!r})."
    console.print(said, markup=False)


def _announcement(work: Work, here: Place, folder: Folder, missing: int, own: int) -> str:
    plan = work.plan
    count = len(plan.shards)
    said = (
        f"{plan.task}: {plan.episodes} episodes, seed {plan.seed}, {plan.agent}, on {plan.device},"
        f" in {count} shards (environments: {plan.num_envs}, episodes of each: {plan.per_env})\n"
        f"Into {folder.where}"
    )
    if missing < count:
        said += f", where {count - missing} shards are finished"
    if here.count > 1:
        said += f"\nWorker {here.rank} of {here.count} ({here.launcher}): {own} shards to do"
    return said


def _checked_recorder(recorders: dict[str, Any]) -> Any:
    """The recorder of rollouts among those that were requested."""
    from mjlab_rec.recorders.cfg import RolloutRecorderCfg

    found = [cfg for cfg in recorders.values() if isinstance(cfg, RolloutRecorderCfg)]
    if len(found) != 1:
        raise ValueError(
            f"collect writes rollouts with one recorder, such as --record hdf5, but {len(found)}"
            " were given. Others, such as --video, may come with it."
        )
    recorder = found[0]
    for name in _CHOSEN:
        if getattr(recorder, name) is not None:
            raise ValueError(
                f"{cli.RECORD_PREFIX}{name.replace('_', '-')} cannot be used with collect, which"
                " records --episodes whole episodes. Filter them afterwards: mjlab-rec data filter."
            )
    for name, value in _LOSSY.items():
        if getattr(recorder, name) == value:
            raise ValueError(
                f"{cli.RECORD_PREFIX}{name.replace('_', '-')} {value} cannot be used with collect:"
                " finished shards would lack episodes or rows."
            )
    if not getattr(recorder, "path", None):
        raise ValueError(f"{type(recorder).__name__} writes no files, which collect needs.")
    return recorder


def _versions() -> dict[str, str]:
    from mjlab_rec.recorders.about import versions

    return versions()


def _gpu_of(place: Place) -> str:
    """The GPU of one of several workers on a machine: they share GPUs if there are fewer."""
    import torch

    return f"cuda:{place.local_rank % torch.cuda.device_count()}"
