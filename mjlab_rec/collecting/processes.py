"""Workers as processes of this machine; the shard of one that dies is given to a new one."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from mjlab_rec.collecting.board import Board
from mjlab_rec.collecting.folder import Folder
from mjlab_rec.collecting.plan import Shard
from mjlab_rec.collecting.queue import ShardQueue
from mjlab_rec.collecting.work import Work, do_shard
from mjlab_rec.utils.interrupts import end_by_exit

_PATIENCE_S = 20.0  # SLURM and torchrun kill what has not ended after 30 s.

OnShard = Callable[[str], None]
"""Gets the path or URL of a shard's folder when it is finished."""


def collect_in_processes(
    make: Callable[[int], Work],
    folder: Folder,
    shards: list[Shard],
    workers: int,
    board: Board,
    on_shard: OnShard = lambda path: None,
) -> None:
    """Play shards in several processes.

    Args:
        make: Makes a worker's part, in its process, given the number of the worker.
        folder: Where to.
        shards: The shards to play.
        workers: How many processes.
        board: Shows the progress.
        on_shard: Called for each finished shard.
    """
    queue = ShardQueue(shards)
    pool: list[_Process] = []
    try:
        while len(queue):
            taken = {process.number for process in pool}
            free = [number for number in range(workers) if number not in taken]
            pool += [_Process(number, make, folder) for number in free[: queue.waiting]]
            for process in pool:
                if process.shard is None and (shard := queue.take()):
                    process.give(shard)
                    board.begin(process.name, shard)
            ready = wait([each for p in pool for each in (p.connection, p.process.sentinel)])
            for process in pool:
                if process.connection in ready or process.process.sentinel in ready:
                    _hear(process, queue, board, folder, on_shard)
            pool = [process for process in pool if not process.ended]
    finally:
        for process in pool:
            process.process.terminate()
        for process in pool:
            process.end()


def _hear(
    process: _Process, queue: ShardQueue, board: Board, folder: Folder, on_shard: OnShard
) -> None:
    """Deal with what a process has sent, or with its end."""
    for kind, *said in process.received():
        if kind == "tell":
            board.tell(process.name, *said)
        elif kind == "done":
            assert process.shard is not None
            shard, process.shard = process.shard, None
            queue.done()
            board.done(process.name, shard, said[0])
            on_shard(folder.path_of(shard))
        else:
            raise said[0]
    if process.ended:
        why = _why(process.process.exitcode)
        board.lost(process.name, why)
        if process.shard is not None:
            queue.lost(process.shard, why)


class _Process:
    """A worker, and what it is playing."""

    def __init__(self, number: int, make: Callable[[int], Work], folder: Folder) -> None:
        self.number = number
        self.name = f"Worker {number}"
        self.shard: Shard | None = None
        self.ended = False
        # A forked process would have the threads' locks, but not the threads.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(make, number, folder.where, theirs), name=self.name, daemon=True
        )
        # The process inherits this: Ctrl-C reaches all processes of a terminal, and the first one
        # ends the others.
        resource_tracker.ensure_running()  # Or start() would, and let the signal through.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # So that reading ends when the process does.

    def give(self, shard: Shard) -> None:
        """Let it play a shard. If it has died, that is noticed later."""
        self.shard = shard
        with contextlib.suppress(OSError):
            self.connection.send(shard)

    def received(self) -> list[Any]:
        """What it has sent. If it has died, that is noticed here."""
        found = []
        try:
            while self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, OSError):  # Perhaps in the middle of a message.
            self.process.join(_PATIENCE_S)  # It says why it ends, if it is not terminated.
            self.end()
        return found

    def end(self) -> None:
        """End the process, after it has removed what it was writing."""
        self.ended = True
        self.connection.close()
        self.process.terminate()
        self.process.join(_PATIENCE_S)
        self.process.kill()
        self.process.join()


def _work(make: Callable[[int], Work], number: int, where: str, connection: Connection) -> None:
    """Play the shards that come, in the process of a worker."""
    signal.signal(signal.SIGTERM, end_by_exit)

    def tell(episodes: int, steps: int) -> None:
        connection.send(("tell", episodes, steps))

    try:
        work, folder = make(number), Folder(where)
        while True:
            try:
                shard = connection.recv()
            except EOFError:
                return  # The first process has ended.
            connection.send(("done", do_shard(work, folder, shard, tell)))
    except ConnectionError:
        return  # The first process has ended.
    except Exception as error:
        connection.send(("error", _sendable(error)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # It is ending.


def _sendable(error: Exception) -> Exception:
    """An error as it can be raised in another process."""
    from mjlab_rec.data.schema import DataError
    from mjlab_rec.utils.extras import MissingExtraError, UnavailableError

    if isinstance(error, ExceptionGroup):  # Several recorders may fail to close.
        return ExceptionGroup(error.message, [_sendable(each) for each in error.exceptions])
    for known in (MissingExtraError, UnavailableError, DataError, ValueError):
        if isinstance(error, known):
            return known(str(error))
    import traceback

    return RuntimeError("".join(traceback.format_exception(error)))


def _why(code: int | None) -> str:
    """Why a process has ended, from its exit code."""
    if code is not None and code < 0:
        names = {s.value: s.name for s in signal.Signals}
        return f"it was killed by {names.get(-code, f'signal {-code}')}"
    return f"its process ended with exit code {code}"
