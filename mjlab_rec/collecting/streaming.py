"""Rows for a learner while they are collected in Ray: from the files of the workers into a queue.

A worker reads along in the file of its shard and sends whole episodes. The queue takes each of them
once: a shard that is played again has the same episodes. It is full when it holds `memory_bytes`;
then rows wait in the file, and a worker ends its shard when all its rows are in the queue.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.collecting.folder import CollectError
from mjlab_rec.collecting.plan import Shard
from mjlab_rec.data.following import Rows, in_batches, joined, names_in
from mjlab_rec.data.tails import Tail
from mjlab_rec.utils.extras import require

_POLL_S = 0.2
_SHARE = 0.1  # of the time that polling may take
_SEND_BYTES = 4 << 20  # of episodes that are sent together
_MOST_WAITING = 10_000  # workers and learners of one queue


class RowStream:
    """Rows that Ray workers record, for a learner that iterates over this meanwhile.

    Give it to ``collect``, and to a Ray task or actor, or iterate over it in another thread. Each
    item is a dictionary of arrays with the channels and "shard", "env", "episode" and "step". Rows
    of an environment of a shard come in order. With several learners, each row goes to one of them.

    Args:
        channels: Names of channels, by default all.
        batch_size: Return exactly this many rows at a time; the last ones may be fewer. None: one
            or more whole episodes at a time.
        memory_bytes: Bytes of rows that wait in the queue, which is on this machine. If it is full,
            workers wait before they begin another shard.
    """

    def __init__(
        self,
        channels: Sequence[str] | None = None,
        *,
        batch_size: int | None = None,
        memory_bytes: int = 64 << 20,
    ) -> None:
        ray = _ray()
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if not ray.is_initialized():
            raise CollectError(
                "RowStream needs a connection to the Ray cluster. Call ray.init(address) before,"
                " with the address that --ray gets."
            )
        self.channels = names_in(channels)
        self.batch_size = batch_size
        # On the machine that gives out the shards: the queue is lost only with all the rest.
        strategies = require("ray.util.scheduling_strategies", "ray", "RowStream")
        machine = ray.get_runtime_context().get_node_id()
        here = strategies.NodeAffinitySchedulingStrategy(machine, soft=False)
        kind = ray.remote(Queue).options(
            num_cpus=0, max_concurrency=_MOST_WAITING, scheduling_strategy=here
        )
        self._queue = kind.remote(memory_bytes)
        self._rows: Iterator[Rows] | None = None

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        if self._rows is None:
            taken = self._taken()
            self._rows = in_batches(taken, self.batch_size) if self.batch_size else taken
        return next(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}

    def close(self) -> None:
        """Take no more rows. Collecting goes on without a learner."""
        self._ask("close")

    @contextmanager
    def feeding(self) -> Iterator[None]:
        """End the stream with this context; its error is raised in the learner, too."""
        try:
            yield
        except BaseException as error:
            # The context of a SystemExit is what was printed.
            why = error if isinstance(error, Exception) else error.__context__
            said = f" {why}" if isinstance(why, Exception) else ""
            with suppress(CollectError):
                self._ask("end", f"Collecting ended before all was collected.{said}")
            raise
        self._ask("end")

    def send(self, rows: Rows) -> None:
        """Add whole episodes of a shard; waits while the queue is full."""
        self._ask("put", rows)

    def forget(self, shard: Shard) -> None:
        """A shard is finished, so that none of its episodes comes again."""
        self._ask("forget", shard.number)

    def _taken(self) -> Iterator[Rows]:
        while (rows := self._ask("take")) is not None:
            # What Ray returns cannot be changed, and keeps its memory occupied.
            yield {name: np.array(values) for name, values in rows.items()}

    def _ask(self, name: str, *args: Any) -> Any:
        ray = _ray()
        try:
            return ray.get(getattr(self._queue, name).remote(*args))
        except ray.exceptions.RayTaskError as error:
            raise CollectError(str(error.cause)) from None
        except ray.exceptions.RayActorError as error:
            raise CollectError(
                "The queue of the stream is gone: the process that collects has ended."
            ) from error


class Queue:
    """What was recorded and not taken yet. All calls run in one thread."""

    def __init__(self, memory_bytes: int) -> None:
        self._most = memory_bytes
        self._waiting: deque[Rows] = deque()
        self._nbytes = 0
        self._known: dict[int, np.ndarray] = {}  # sorted keys of the episodes of a shard
        self._forgotten: set[int] = set()
        self._closed = False
        self._over: str | None = None
        self._changed = asyncio.Condition()

    async def put(self, rows: Rows) -> None:
        """Add the episodes that are new, as soon as there is room."""
        keys = (rows["env"].astype(np.int64) << 32) + rows["episode"]
        shard = int(rows["shard"][0])
        async with self._changed:
            # Compared again after waiting: the same episodes may have come meanwhile.
            await self._changed.wait_for(lambda: self._has_room or not self._new(shard, keys).any())
            new = self._new(shard, keys)
            if self._closed or not new.any():
                return
            if not new.all():
                rows = {name: values[new] for name, values in rows.items()}
            self._known[shard] = np.union1d(self._known.get(shard, keys[:0]), keys)
            self._waiting.append(rows)
            self._nbytes += _nbytes(rows)
            self._changed.notify_all()

    async def take(self) -> Rows | None:
        """The rows that wait for the longest time; None if all have been taken."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._over is not None)
            if self._waiting:
                rows = self._waiting.popleft()
                self._nbytes -= _nbytes(rows)
                self._changed.notify_all()
                return rows
            if self._over:
                raise CollectError(self._over)
            return None

    async def forget(self, shard: int) -> None:
        """Take no more episodes of a shard, of a worker that was believed to be lost."""
        async with self._changed:
            self._known.pop(shard, None)
            self._forgotten.add(shard)
            self._changed.notify_all()

    async def close(self) -> None:
        """Drop what waits and what comes."""
        async with self._changed:
            self._closed, self._nbytes = True, 0
            self._waiting.clear()
            self._changed.notify_all()
        await self.end()

    async def end(self, error: str = "") -> None:
        """Nothing comes any more."""
        async with self._changed:
            if self._over is None:
                self._over = error
            self._changed.notify_all()

    @property
    def _has_room(self) -> bool:
        return self._closed or self._nbytes < self._most

    def _new(self, shard: int, keys: np.ndarray) -> np.ndarray:
        if shard in self._forgotten:
            return np.zeros(len(keys), bool)
        return ~np.isin(keys, self._known.get(shard, keys[:0]))


class ReadAlong:
    """Sends the episodes of a shard while they are recorded, in a thread of its own.

    As a context manager it ends when all have been sent.

    Args:
        path: The recording.
        shard: The shard.
        channels: Names of channels. None: all.
        send: Gets whole episodes; may wait.
    """

    def __init__(
        self,
        path: Path,
        shard: Shard,
        channels: Sequence[str] | None,
        send: Callable[[Rows], None],
    ) -> None:
        self.waited_s = 0.0
        """Seconds from the last step of the shard until all had been sent."""
        self._path, self._shard, self._channels, self._send = path, shard, channels, send
        self._recorded = threading.Event()
        self._error: BaseException | None = None
        # If an error ends the shard, the thread may wait for a queue that is full.
        self._thread = threading.Thread(target=self._run, name="read along", daemon=True)

    def __enter__(self) -> ReadAlong:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        began = time.monotonic()
        self._recorded.set()
        if kind is None:
            self._thread.join()
            self.waited_s = time.monotonic() - began
            self.check()

    def check(self) -> None:
        """Raise if reading or sending has failed."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for rows in self._pieces():
                number = np.full(len(rows["env"]), self._shard.number, np.int32)
                self._send({"shard": number, **rows})
        except BaseException as error:
            self._error = error

    def _pieces(self) -> Iterator[Rows]:
        tail = Tail(self._path, check=True, now=0.0)
        pause, over = _POLL_S, False
        try:
            while not over:
                # Looked up first: if all is recorded, all of it is read below.
                over = self._recorded.wait(pause)
                begun, count = time.monotonic(), 0
                for rows in _together(tail.rows(self._channels, episodes=True)):
                    yield rows
                    count += 1
                looked = 0.0 if count else time.monotonic() - begun
                pause = max(_POLL_S, looked * (1 - _SHARE) / _SHARE)
            yield from _together(tail.rest(self._channels, episodes=True))
        finally:
            tail.close()


def _together(episodes: Iterator[Rows]) -> Iterator[Rows]:
    """Several episodes as one, up to some megabytes."""
    held: list[Rows] = []
    nbytes = 0
    for episode in episodes:
        held.append(episode)
        nbytes += _nbytes(episode)
        if nbytes >= _SEND_BYTES:
            yield joined(held)
            held, nbytes = [], 0
    if held:
        yield joined(held)


def _ray() -> Any:
    return require("ray", "ray", "RowStream")


def _nbytes(rows: Rows) -> int:
    return sum(values.nbytes for values in rows.values())
