"""Rows of a shard while it is recorded: each episode once, and no more than the queue may hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_worlds import World
from test_collect import words
from test_data_following import NAMES, by_episode, check_same, writing
from waiting import until

from mjlab_rec.collecting import Folder
from mjlab_rec.collecting.board import Board
from mjlab_rec.collecting.folder import CollectError
from mjlab_rec.collecting.plan import Shard
from mjlab_rec.collecting.streaming import Queue, ReadAlong
from mjlab_rec.collecting.work import do_shard
from mjlab_rec.commands import collect as command
from mjlab_rec.data import DataError

SHARD = Shard(7, 3, 4)


def by_shard(sent: list[dict[str, np.ndarray]]) -> dict[tuple, dict]:
    """The rows of each episode, with the shard in its key only."""
    assert sent
    return by_episode([{"recording": rows.pop("shard"), **rows} for rows in sent], "recording")


@pytest.mark.parametrize("format", ["hdf5", "npz", "csv", "parquet"])
def test_all_episodes_are_sent_and_those_that_are_written_early_come_early(tmp_path, format):
    path, sent = tmp_path / NAMES[format], []
    work = writing(path, World(steps=40, seed=3), format, blocks=format == "csv")
    with ReadAlong(path, SHARD, None, sent.append):
        for _ in work:
            if format in ("hdf5", "npz") and not sent:
                until(lambda: sent)
    check_same(by_shard(sent), path, (7,))


def test_it_ends_when_the_learner_has_taken_all_and_says_how_long_that_took(tmp_path):
    path, sent, room = tmp_path / "run.h5", [], threading.Event()

    def send(rows: Any) -> None:
        assert room.wait(60)
        sent.append(rows)

    along = ReadAlong(path, SHARD, ["reward"], send)
    ended = threading.Event()

    def play() -> None:
        with along:
            list(writing(path, World(steps=20), blocks=False))
        ended.set()

    thread = threading.Thread(target=play)
    thread.start()
    until(along._recorded.is_set)
    assert not ended.is_set()
    room.set()
    thread.join()
    assert sent and along.waited_s > 0
    assert list(sent[0]) == ["shard", "env", "episode", "step", "reward"]


def test_an_error_while_reading_or_sending_ends_the_shard(tmp_path):
    with pytest.raises(DataError, match="Unknown channel 'acton'"):
        with ReadAlong(tmp_path / "run.h5", SHARD, ["acton"], lambda rows: None) as along:
            list(writing(tmp_path / "run.h5", World(steps=20)))
    with pytest.raises(DataError, match="Unknown channel 'acton'"):
        along.check()


def test_an_error_of_the_shard_does_not_wait_for_the_learner(tmp_path):
    never = threading.Event()
    with pytest.raises(ValueError, match="the shard"):
        with ReadAlong(tmp_path / "run.h5", SHARD, None, lambda rows: never.wait()):
            list(writing(tmp_path / "run.h5", World(steps=20)))
            raise ValueError("the shard")
    never.set()


def test_a_worker_sends_what_it_records(tmp_path):
    work = command.work_from(words(tmp_path))
    folder, shard, sent = Folder(tmp_path), work.plan.shards[1], []
    folder.claim(work.plan)
    do_shard(
        *(work, folder, shard, lambda episodes, steps: None),
        lambda path: ReadAlong(path, shard, None, sent.append),
    )
    found = by_shard(sent)
    assert len(found) == shard.episodes
    check_same(found, Path(folder.path_of(shard)) / "hdf5.h5", (1,))


# The queue


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it in another thread: the tests that use a browser leave a running loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def rows(shard: int, *episodes: tuple[int, int], length: int = 2) -> dict[str, np.ndarray]:
    env, episode = np.repeat(np.array(episodes, np.int32), length, axis=0).T
    shards = np.full(len(env), shard, np.int32)
    return {"shard": shards, "env": env, "episode": episode, "at": np.arange(len(env))}


def taken(queue: Queue) -> list[tuple[int, int, int]]:
    """All that waits in a queue, which ends."""

    async def all_of_it() -> list[tuple[int, int, int]]:
        await queue.end()
        found = []
        while (rows := await queue.take()) is not None:
            keys = zip(*(rows[name].tolist() for name in ("shard", "env", "episode")), strict=True)
            found += list(keys)[::2]
        return found

    return run(all_of_it())


def test_each_episode_is_taken_once_though_a_shard_is_played_again():
    async def put(*all_rows: dict[str, np.ndarray]) -> None:
        for each in all_rows:
            await queue.put(each)

    queue = Queue(1 << 20)
    run(put(rows(0, (1, 0), (0, 0)), rows(1, (0, 0))))  # Then the worker of 0 died.
    run(put(rows(0, (0, 0)), rows(0, (0, 1), (1, 0), (1, 1))))
    run(queue.forget(0))
    run(put(rows(0, (0, 0), (2, 0)), rows(1, (0, 0), (0, 1))))
    assert taken(queue) == [(0, 1, 0), (0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)]


def test_a_full_queue_lets_workers_wait_until_rows_are_taken():
    async def check() -> None:
        queue = Queue(1)  # Full with anything in it.
        await queue.put(rows(0, (0, 0)))
        second = asyncio.create_task(queue.put(rows(0, (0, 1))))
        again = asyncio.create_task(queue.put(rows(0, (0, 1))))  # As by another worker.
        await asyncio.wait_for(queue.put(rows(0, (0, 0))), 60)  # It is there already.
        late = asyncio.create_task(queue.put(rows(1, (0, 0))))  # Of a worker believed to be lost.
        await asyncio.sleep(0)
        await queue.forget(1)
        await asyncio.wait_for(late, 60)
        assert not second.done()
        assert await queue.take() is not None
        await asyncio.wait_for(asyncio.gather(second, again), 60)
        last = await queue.take()
        assert last is not None and last["episode"].tolist() == [1, 1]
        waiting = asyncio.create_task(queue.take())
        await queue.end()
        assert await waiting is None and await queue.take() is None

    run(check())


def test_a_learner_that_closes_lets_workers_go_on():
    async def check() -> None:
        queue = Queue(1)
        await queue.put(rows(0, (0, 0)))
        second = asyncio.create_task(queue.put(rows(0, (0, 1))))
        await asyncio.sleep(0)
        await queue.close()
        await asyncio.wait_for(second, 60)
        await asyncio.wait_for(queue.put(rows(0, (0, 2))), 60)
        assert await queue.take() is None

    run(check())


def test_what_was_recorded_before_an_error_comes_before_it():
    async def check() -> None:
        queue = Queue(1)
        await queue.put(rows(0, (0, 0)))
        await queue.end("It failed.")
        await queue.end()
        assert await queue.take() is not None
        with pytest.raises(CollectError, match="It failed"):
            await queue.take()

    run(check())


# The command


def test_a_stream_needs_ray(tmp_path, capsys):
    class Stream:
        def feeding(self) -> Any:
            import contextlib

            return contextlib.nullcontext()

    with pytest.raises(SystemExit):
        command.collect(words(tmp_path), stream=Stream())  # type: ignore[arg-type]
    assert "add --ray, or --ray local" in capsys.readouterr().err


def test_waiting_for_the_learner_is_shown(tmp_path):
    from rich.console import Console

    work = command.work_from(words(tmp_path))
    console = Console(record=True, width=100)
    shards = work.plan.shards
    board, shard = Board(shards, shards, console), shards[0]
    board.begin("Worker 0", shard)
    board.tell("Worker 0", 8, 100, True)
    console.print(board.table())
    board.done("Worker 0", shard, {"steps": 100, "seconds": 4.0, "waited_s": 3.0})
    said = console.export_text()
    assert "waits for the learner" in said
    assert "in 4.0 s, 25 env-steps/s, 3.0 s of it waiting for the learner" in said
