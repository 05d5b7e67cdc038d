"""Collect many episodes with many workers, on one or more machines, even if some are killed."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.agents import maker_of

if TYPE_CHECKING:
    from mjlab_rec.collecting.folder import Folder
    from mjlab_rec.collecting.plan import Plan
    from mjlab_rec.collecting.ranks import Place
    from mjlab_rec.collecting.work import Work

_PATH = f"{cli.RECORD_PREFIX}path"
_ENV_NUM_ENVS = f"{cli.ENV_PREFIX}scene.num-envs"
_ENVS = {"cpu": 64, "cuda": 2048}
_MOST_PER_ENV = 4
_FEWEST_SHARDS = 16
# Fields of recorders that choose what is recorded, which the shards do.
_CHOSEN = ("trigger", "length", "envs", "max_episodes", "max_steps", "max_bytes")


@dataclass(kw_only=True)
class CollectArgs(cli.RecordArgs):
    """Options of ``collect``. --record.path is the folder, or a URL such as s3://bucket/run."""

    agent: str = "latest"
    """latest or best: a checkpoint of the task's last training. Or the file of a checkpoint, a
    TorchScript or ONNX file, the folder of a run, zero, random, or package.module:function."""
    episodes: int = 1000
    """Number of episodes, of all workers together. --num-envs and --per-env divide them into
    shards, which workers play one after another. The same options give the same episodes, whatever
    the number of workers."""
    per_env: int | None = None
    """Episodes that an environment plays in a shard. None: 4, or fewer if that makes less than 16
    shards. --num-envs is 64 on a CPU and 2048 on a GPU if it is not given."""
    workers: int | None = None
    """Processes to start on this machine; with --ray actors in the cluster. None: 1, and with --ray
    as many as fit."""
    ray: str | None = None
    """Use a Ray cluster: its address, auto for the one that this machine belongs to, or local to
    start one here."""
    worker_cores: int | None = None
    """CPU cores of each worker. None: all cores, divided among the workers of a machine; with --ray
    1."""
    rank: int | None = None
    """Which of --ranks workers this process is, from 0. None: as torchrun or SLURM says."""
    ranks: int | None = None
    """How many workers there are, if you start them yourself."""
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
    words: Sequence[str], on_shard: Callable[[str], None] | None = None, prog: str | None = None
) -> None:
    """Collect what is missing, as ``mjlab-rec collect`` does.

    Args:
        words: The words of the command line.
        on_shard: Called with the path or URL of each shard's folder when this process, one that it
            has started or one of its Ray actors has finished it.
        prog: Name of the command in its help. None: that of the process.
    """
    args, env_cfg = _parsed(words, prog)
    with cli.explained(args), _ending_on_sigterm():
        try:
            _collect(args, env_cfg, list(words), on_shard or (lambda path: None))
        except KeyboardInterrupt:
            Console().print("Stopped. What is finished stays: the same command goes on.")
            raise


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that workers end and clean up."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Handlers can be set in the main thread only.
        return
    before = signal.signal(signal.SIGTERM, end)
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
    for name in ("episodes", "per_env", "workers", "worker_cores"):
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
    from mjlab_rec.collecting.plan import Plan, plain_cfg
    from mjlab_rec.collecting.ranks import Place
    from mjlab_rec.collecting.work import Work
    from mjlab_rec.sim import resolve_device
    from mjlab_rec.utils.threads import choose_threads

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
        policy_hash=_policy_hash(args.agent, make_policy, path),
        seed=seed,
        episodes=args.episodes,
        num_envs=num_envs,
        per_env=args.per_env or per_env,
        device=kind,
        versions=_versions(),
        env_cfg=plain_cfg(env_cfg, "env_cfg"),
        recorder=plain_cfg(recorder, "recorder"),
    )
    plan.check()
    if env_cfg.sim.num_threads is None:
        threads = choose_threads(processes=place.local_count).engine
        env_cfg.sim.num_threads = args.worker_cores or threads
    return Work(plan=plan, env_cfg=env_cfg, device=chosen, make_policy=make_policy, rank=place.rank)


def _collect(
    args: CollectArgs, env_cfg: Any, words: list[str], on_shard: Callable[[str], None]
) -> None:
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
    work = _work(args, env_cfg, here, device)
    folder.claim(work.plan)
    finished, plan = folder.finished(), work.plan
    missing = here.share([shard for shard in plan.shards if shard.number not in finished])
    console.print(_announcement(work, here, folder, len(finished), len(missing)), markup=False)
    with Board(plan, finished, console) as board:
        if args.ray is not None:
            from mjlab_rec.collecting.ray_actors import collect_in_ray

            name, files = _agent_files(args)
            collect_in_ray(
                *(
                    partial(_of_actor, words, plan.device, name),
                    files,
                    folder,
                    plan,
                    missing,
                    board,
                ),
                workers=args.workers,
                cores=args.worker_cores or 1,
                on_shard=on_shard,
            )
        elif args.workers is not None and args.workers > 1:
            from mjlab_rec.collecting.processes import collect_in_processes

            make = partial(_of_process, words, args.workers)
            collect_in_processes(make, folder, missing, args.workers, board, on_shard)
        else:
            _collect_here(work, folder, missing, board, on_shard)
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


def _of_process(words: list[str], workers: int, number: int) -> Work:
    """The part of one of several processes on this machine."""
    from mjlab_rec.collecting.ranks import Place

    return work_from(words, Place(number, workers, number, workers))


def _agent_files(args: CollectArgs) -> tuple[str, dict[str, bytes]]:
    """The file of the agent with what is next to it, for machines that may not see it."""
    from mjlab_rec.rl.run_folders import AGENT

    _, path = maker_of(args.agent, args.task, args.log_root)
    if path is None:
        return "", {}
    files = [file for file in (path, path.parent / AGENT) if file.is_file()]
    return path.name, {file.name: file.read_bytes() for file in files}


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
    missing = folder.missing(plan)
    done = plan.episodes - sum(shard.episodes for shard in missing)
    said = f"{folder.where}: {done} of {plan.episodes} episodes."
    if missing and here.count > 1:
        said += " Other workers may still be at work. The same command does what is missing."
    elif not missing and folder.is_remote:
        said += " Read them after mjlab_rec.collecting.download(URL, FOLDER)."
    elif not missing:
        said += f" Read them with open_rollouts({folder.where!r})."
    console.print(said, markup=False)


def _announcement(work: Work, here: Place, folder: Folder, finished: int, missing: int) -> str:
    plan = work.plan
    count = len(plan.shards)
    said = (
        f"{plan.task}: {plan.episodes} episodes, seed {plan.seed}, {plan.agent}, in {count} shards"
        f" of {plan.num_envs} environments on {plan.device}\nInto {folder.where}"
    )
    if finished:
        said += f", where {finished} shards are finished"
    if here.count > 1:
        said += f"\nWorker {here.rank} of {here.count} ({here.launcher}): {missing} shards to do"
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
    if not getattr(recorder, "path", None):
        raise ValueError(f"{type(recorder).__name__} writes no files, which collect needs.")
    return recorder


def _policy_hash(agent: str, make_policy: Any, path: Path | None) -> str:
    """A hash of the agent's file, of the source of its function, or of its name."""
    from mjlab_rec.collecting.plan import hash_of

    if path is None and ":" in agent:
        source = inspect.getsourcefile(inspect.unwrap(make_policy))
        path = None if source is None else Path(source)
    return hash_of(agent.encode() if path is None else path.read_bytes())


def _versions() -> dict[str, str]:
    from mjlab_rec.recorders.about import versions

    return versions()


def _gpu_of(place: Place) -> str:
    """The GPU of one of several workers on a machine: they share GPUs if there are fewer."""
    import torch

    return f"cuda:{place.local_rank % torch.cuda.device_count()}"
