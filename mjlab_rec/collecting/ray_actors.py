"""Workers as actors in a Ray cluster; the shard of one that dies is given to another.

There are as many actors as the cluster has room for at the moment. A machine that does not see the
folder sends its shards to this process, which writes them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from mjlab_rec.collecting.board import Board
from mjlab_rec.collecting.folder import CollectError, Folder
from mjlab_rec.collecting.plan import Plan, Shard
from mjlab_rec.collecting.queue import ShardQueue
from mjlab_rec.collecting.streaming import ReadAlong, RowStream
from mjlab_rec.collecting.work import Work, do_shard
from mjlab_rec.utils.extras import require

_TICK_S = 0.5
_MOST_LOSSES = 10  # More than for processes: machines of a cluster may be taken away at any time.
Make = Callable[[dict[str, bytes]], Work]
"""Makes a worker's part, given the files of the agent by name."""


def connect(address: str, device: str) -> str:
    """Connect to a cluster; returns on which kind of device its workers simulate.

    Args:
        address: Its address, "auto", or "local" to start one on this machine.
        device: What was asked for: "auto", "cpu" or "cuda".
    """
    ray = _ray()
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            raise CollectError(
                f"--ray {address}: {error} `ray start --head` starts a cluster, and --ray local"
                " one for this run only."
            ) from error
    if device == "auto":
        return "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
    return device.partition(":")[0]


def collect_in_ray(
    make: Make,
    agent_files: dict[str, bytes],
    folder: Folder,
    plan: Plan,
    shards: list[Shard],
    board: Board,
    *,
    workers: int | None = None,
    cores: int = 1,
    on_shard: Callable[[str], None] = lambda path: None,
    shared: bool = True,
    stream: RowStream | None = None,
) -> None:
    """Play shards in the actors of a cluster that this process is connected to.

    Args:
        make: Makes a worker's part, in an actor.
        agent_files: What ``make`` gets.
        folder: Where to.
        plan: What is collected.
        shards: The shards to play.
        board: Shows the progress.
        workers: How many actors. None: as many as the cluster has cores and GPUs for, also when
            that changes.
        cores: CPU cores of each actor.
        on_shard: Called for each finished shard.
        shared: Whether machines that see the folder write to it themselves.
        stream: Gets the rows while they are recorded.
    """
    ray = _ray()
    queue = ShardQueue(shards, _MOST_LOSSES)

    def done(shard: Shard) -> None:
        if stream is not None:
            stream.forget(shard)
        on_shard(folder.path_of(shard))

    options = {"num_cpus": cores, "num_gpus": 1 if plan.device == "cuda" else 0}
    # Finding places progress next to the shard that is being played.
    kind = ray.remote(Worker).options(**options, max_concurrency=2)
    actors: list[_Actor] = []
    started = 0
    with _token(folder, shared) as token:
        about = (folder.where, token, plan.to_json(), os.getcwd(), sys.path)
        job = ray.put((make, agent_files, *about, stream))
        try:
            while len(queue):
                most = workers or _room(ray, **options)
                while len(actors) < min(most, len(queue)):
                    actors.append(_Actor(started, kind.remote(), job))
                    started += 1
                if not actors:
                    time.sleep(_TICK_S)  # No machine has room at the moment.
                    continue
                ready, _ = ray.wait([actor.answer for actor in actors], timeout=_TICK_S)
                for actor in [actor for actor in actors if actor.answer in ready]:
                    if not _hear(ray, actor, queue, board, folder, done):
                        actors.remove(actor)
                for actor in actors:
                    actor.ask(ray, board)
        finally:
            for actor in actors:
                ray.kill(actor.handle)


def _hear(
    ray: Any,
    actor: _Actor,
    queue: ShardQueue,
    board: Board,
    folder: Folder,
    done: Callable[[Shard], None],
) -> bool:
    """Take an actor's answer and give it the next shard; returns False if it is not needed."""
    shard = actor.shard
    try:
        answer = ray.get(actor.answer)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from None
    except ray.exceptions.RayError as error:
        why = f"its process or machine is gone ({type(error).__name__})"
        board.lost(actor.name, why)
        if shard is None:
            queue.unready(why)
        else:
            queue.lost(shard, why)
        return False
    if shard is None:
        actor.name = f"Worker {actor.number} on {answer}"
    else:
        about, content = answer
        if content is not None:
            with folder.writing(shard) as path:
                for name, data in content.items():
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                    (path / name).write_bytes(data)
        queue.done()
        board.done(actor.name, shard, about)
        done(shard)
    following = queue.take()
    if following is None:
        ray.kill(actor.handle)
        return False
    board.begin(actor.name, following)
    actor.play(following)
    return True


class _Actor:
    """What is known about an actor, in the process that gives out the shards."""

    def __init__(self, number: int, handle: Any, job: Any) -> None:
        self.number = number
        self.name = f"Worker {number}"
        self.handle = handle
        self.shard: Shard | None = None
        self.answer = handle.prepare.remote(number, job)
        self._asked: Any = None

    def play(self, shard: Shard) -> None:
        """Let it play a shard."""
        self.shard, self._asked = shard, None
        self.answer = self.handle.play.remote(shard)

    def ask(self, ray: Any, board: Board) -> None:
        """Show how far it is, if it has answered the last question, and ask again."""
        if self.shard is None:
            return
        if self._asked is not None:
            if not ray.wait([self._asked], timeout=0)[0]:
                return
            with contextlib.suppress(ray.exceptions.RayError):  # Its shard's answer says so, too.
                number, *said = ray.get(self._asked)
                if number == self.shard.number:
                    board.tell(self.name, *said)
        self._asked = self.handle.progress.remote()


class Worker:
    """A worker, in its actor."""

    def __init__(self) -> None:
        self._progress = (-1, 0, 0, False)

    def prepare(self, number: int, job: tuple[Any, ...]) -> str:
        """Get ready to play shards; returns the name of the machine."""
        make, agent_files, where, token, planned, cwd, path, self._stream = job
        # As in the first process, for relative paths and the user's modules.
        with contextlib.suppress(OSError):
            os.chdir(cwd)
        sys.path += [each for each in path if each not in sys.path]
        self._work: Work = make(agent_files)
        self._work.rank = number
        host = socket.gethostname()
        self._work.plan.check_same(Plan.from_json(planned, where), f"{where}' on '{host}")
        folder = Folder(where)
        sees = folder.is_remote or (token and os.path.exists(os.path.join(where, token)))
        self._folder = folder if sees else None
        return host

    def play(self, shard: Shard) -> tuple[dict[str, Any], dict[str, bytes] | None]:
        """Play a shard; returns its worker.json, and its files if they must be sent."""

        def tell(episodes: int, steps: int) -> None:
            # After the last step it ends when the learner has taken the rows.
            waits = self._stream is not None and episodes == shard.episodes
            self._progress = (shard.number, episodes, steps, waits)
            if along is not None:
                along.check()

        along: ReadAlong | None = None

        def meanwhile(recording: Path) -> contextlib.AbstractContextManager[Any]:
            nonlocal along
            if self._stream is None:
                return contextlib.nullcontext()
            along = ReadAlong(recording, shard, self._stream.channels, self._stream.send)
            return along

        def played(folder: Folder) -> dict[str, Any]:
            about = do_shard(self._work, folder, shard, tell, meanwhile)
            return about if along is None else {**about, "waited_s": along.waited_s}

        if self._folder is not None:
            return played(self._folder), None
        with tempfile.TemporaryDirectory() as here:
            about = played(Folder(here))
            root = Path(here) / shard.name
            files = [file for file in root.rglob("*") if file.is_file()]
            return about, {str(file.relative_to(root)): file.read_bytes() for file in files}

    def progress(self) -> tuple[int, int, int, bool]:
        """The shard, its finished episodes, its steps, and whether it waits for the learner."""
        return self._progress


@contextlib.contextmanager
def _token(folder: Folder, shared: bool) -> Iterator[str]:
    """Yield the name of a file in the folder by which other machines know that they see it."""
    if folder.is_remote or not shared:
        yield ""
        return
    path = Path(folder.where) / f".{uuid4().hex}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _room(ray: Any, num_cpus: int, num_gpus: int) -> int:
    """How many actors fit into the cluster as it is now, if nothing else uses it."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            fit = [there.get("CPU", 0) // num_cpus]
            fit += [there.get("GPU", 0) // num_gpus] if num_gpus else []
            room += int(min(fit))
    return room


def _cause(error: Any) -> Exception:
    """The error that was raised in an actor."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _ray() -> Any:
    return require("ray", "ray", "--ray")
