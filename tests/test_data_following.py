"""Recordings that are read while they are written: all rows, each once, in order."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_worlds import World, episodes_of, same
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_worlds import PictureWorld

from mjlab_rec.data import DataError, follow, open_rollouts
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.hdf5_part import Part
from mjlab_rec.data.formats.hdf5_tail import BlockTail

NAMES = {"hdf5": "run.h5", "csv": "run.csv", "npz": "run", "parquet": "run", "robomimic": "run.h5"}


def writer(path: Path, world: Any, format: str = "hdf5", **options: Any) -> Writer:
    more = {"block_rows": world.block_rows, **options}
    return writer_class(format)(world.info, WriterOptions(path=str(path), **more))


def writing(path: Path, world: Any, format: str = "hdf5", blocks: bool = True, **options: Any):
    """Write a world step by step: a block or an episode at each `next`; at the end it is closed."""
    target = writer(path, world, format, **options)
    for item in world.blocks() if blocks else episodes_of(world):
        (target.write if blocks else target.write_episode)(item)
        yield
    target.close()
    yield


class Clock:
    """A clock that goes on only while the follower pauses; then `work` is done, too."""

    def __init__(self, *work: Iterator[None]) -> None:
        self.now, self.work = 0.0, list(work)

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.work = [each for each in self.work if next(each, self) is not self]

    def follow(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        return follow(source, *args, clock=self, pause=self.pause, **kwargs)


def by_episode(items: Sequence[dict[str, np.ndarray]], key: str = "") -> dict[tuple, dict]:
    """The rows of each episode, in the order in which they came."""
    names = [name for name in items[0] if name not in ("recording", "env", "episode")]
    found: dict[tuple, list[tuple[dict, int]]] = {}
    for rows in items:
        assert len({len(values) for values in rows.values()}) == 1
        keys = [rows[name].tolist() for name in ([key] if key else []) + ["env", "episode"]]
        for at, each in enumerate(zip(*keys, strict=True)):
            found.setdefault(each, []).append((rows, at))
    return {
        each: {name: np.stack([rows[name][at] for rows, at in places]) for name in names}
        for each, places in found.items()
    }


def check_same(found: dict[tuple, dict], path: Path, key: tuple = ()) -> None:
    """Compare with the finished recording."""
    with open_rollouts(path) as rollouts:
        table = rollouts.episodes.select("env", "number").rows()
        assert sorted(each for each in found if each[: len(key)] == key) == [
            (*key, *each) for each in table
        ]
        for index, each in enumerate(table):
            arrays = rollouts[index]
            for name, values in found[*key, *each].items():
                assert values.dtype == arrays[name].dtype and same(values, arrays[name]), name


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_followed_rows_are_those_of_the_finished_recording(tmp_path_factory, data):
    draw = data.draw
    path = tmp_path_factory.mktemp("run") / "run.h5"
    world = World(
        num_envs=draw(st.integers(1, 4)),
        steps=draw(st.integers(1, 50)),
        block_rows=draw(st.integers(1, 12)),
        every=draw(st.sampled_from([1, 3])),
        seed=draw(st.integers(0, 99)),
        partial=draw(st.booleans()),
        gaps=draw(st.sampled_from([(), (1,), (0, 2)])),
    )
    options: dict[str, Any] = {
        "compression": draw(st.sampled_from([None, "gzip"])),
        "roll_over_bytes": draw(st.sampled_from([1, 1 << 30])),
    }
    work = writing(path, world, **options)
    for _ in range(draw(st.integers(0, 3))):
        next(work, None)
    clock = Clock(work)
    how = draw(st.sampled_from(["rows", "batches", "episodes"]))
    size = draw(st.integers(1, 40)) if how == "batches" else None
    follower = clock.follow(path, episodes=how == "episodes", batch_size=size)
    items = list(follower)
    assert follower.finished and follower.ends == {path: "finished"}
    with open_rollouts(path) as rollouts:
        if not rollouts.rows:
            assert not items
            return
        names = ["env", "episode", "step", *rollouts.channels]
    assert all(list(rows) == names for rows in items)
    check_same(by_episode(items), path)
    if how == "batches":
        assert {len(rows["env"]) for rows in items[:-1]} <= {size}
        assert 0 < len(items[-1]["env"]) <= (size or 0)
    if how == "episodes":
        assert all(len({*zip(rows["env"], rows["episode"], strict=True)}) == 1 for rows in items)
        assert len(items) == len(by_episode(items))


@pytest.mark.parametrize("format", ["npz", "parquet", "csv", "hdf5", "robomimic"])
def test_every_format_is_followed_episode_by_episode(tmp_path, format):
    path, world = tmp_path / NAMES[format], World(seed=3)
    clock = Clock(writing(path, world, format, blocks=format == "csv"))
    follower = clock.follow(path, ["action", "reward"])
    items = list(follower)
    assert follower.finished and list(items[0]) == ["env", "episode", "step", "action", "reward"]
    check_same(by_episode(items), path)
    if format in ("npz", "csv", "hdf5"):
        assert clock.now > 1, "Episodes came before the end."


def test_rows_come_as_soon_as_their_block_is_written(tmp_path):
    world = World(steps=30, block_rows=7, seed=1)
    work = writing(tmp_path / "run.h5", world)
    seen = [len(rows["env"]) for rows in Clock(work).follow(tmp_path / "run.h5")]
    assert seen == [7 * 3] * 4 + [2 * 3]
    for pauses in range(1, 4):
        work = writing(tmp_path / f"{pauses}.h5", World(steps=30, block_rows=7))
        for _ in range(pauses):
            next(work)
        follower = Clock(work).follow(tmp_path / f"{pauses}.h5")
        for _ in range(pauses):
            next(follower)
        assert follower._clock() == 0, "It did not wait for what was there."
        follower.close()
        list(work)


def test_the_first_file_is_read_even_if_it_is_seen_just_before_it_is_replaced(
    tmp_path, monkeypatch
):
    world = World(steps=20)
    tail, target = BlockTail(tmp_path / "run.h5"), writer(tmp_path / "run.h5", world)
    close = Part.close

    def close_and_look(part: Part, state: int) -> None:
        close(part, state)
        assert not list(tail.blocks())

    monkeypatch.setattr(Part, "close", close_and_look)
    blocks = world.blocks()
    target.write(next(blocks))
    assert len(list(tail.blocks())) == 1
    monkeypatch.undo()
    target.close()
    assert not list(tail.blocks()) and tail.finished


def test_pictures_are_decoded(tmp_path):
    world = PictureWorld(steps=20, kinds={"obs/eye": ("uint8", (4, 5, 3))}, partial=True)
    items = list(Clock(writing(tmp_path / "run.h5", world)).follow(tmp_path / "run.h5"))
    check_same(by_episode(items), tmp_path / "run.h5")


def test_an_appended_recording_continues_the_numbers(tmp_path):
    path = tmp_path / "run.h5"
    list(writing(path, World(steps=20)))

    def more() -> Iterator[None]:
        yield from writing(path, World(steps=20, seed=1), if_exists="append")

    work = more()
    next(work)
    for episodes in (False, True):
        clock = Clock(work if not episodes else iter(()))
        check_same(by_episode(list(clock.follow(path, episodes=episodes))), path)


def test_recordings_and_workers_that_appear_later_are_followed(tmp_path):
    worlds = [World(seed=seed, steps=15) for seed in range(3)]
    paths = [tmp_path / f"worker-{n}/rollouts.h5" for n in (2, 0, 1)]

    def later() -> Iterator[None]:
        for path, world in zip(paths, worlds, strict=True):
            yield from writing(path, world)

    follower = Clock(later()).follow(tmp_path, recordings=3)
    items = list(follower)
    assert follower.paths == paths and follower.finished
    found = by_episode(items, "recording")
    for number, path in enumerate(paths):
        check_same(found, path, (number,))


def test_recordings_with_other_channels_are_refused(tmp_path):
    list(writing(tmp_path / "a.h5", World(steps=9)))
    list(writing(tmp_path / "b.h5", World(steps=9, every=3)))
    with pytest.raises(DataError, match="b.h5' cannot be read as one data set with '.*a.h5': its"):
        list(Clock().follow(tmp_path))


def killed(path: Path, then: Callable[[], None]) -> Iterator[None]:
    """Write some blocks; then the process seems to have been killed."""
    work = writing(path, World(steps=30, block_rows=7))
    for _ in range(3):
        next(work)
        yield
    then()
    yield
    list(work)


@pytest.mark.parametrize("episodes", [False, True])
def test_a_killed_recording_ends_with_what_it_has(tmp_path, monkeypatch, caplog, episodes):
    path = tmp_path / "run.h5"
    alive = [True]
    monkeypatch.setattr("mjlab_rec.data.tails.being_written", lambda path: bool(alive))
    follower = Clock(killed(path, alive.clear)).follow(path, episodes=episodes)
    items = list(follower)
    assert follower.ends == {path: "killed"} and not follower.finished
    assert "was not closed, and its process has ended" in caplog.text
    shutil.copy(path, tmp_path / "copy.h5")
    check_same(by_episode(items), tmp_path / "copy.h5")


def test_silence_of_a_process_that_lives_is_an_error_only_with_a_timeout(tmp_path):
    path = tmp_path / "run.h5"
    work = writing(path, World(steps=30))
    next(work)
    with pytest.raises(DataError, match="Nothing was written to .* for 5 seconds, though its"):
        for rows in Clock().follow(path, timeout_s=5, poll_s=1):
            assert len(rows)
    list(work)


def test_a_copy_whose_writer_is_not_known_ends_after_a_while(tmp_path):
    path = tmp_path / "run.h5"
    work = writing(path, World(steps=30))
    next(work)
    shutil.copy(path, tmp_path / "copy.h5")
    clock = Clock()
    follower = clock.follow(tmp_path / "copy.h5")
    assert list(follower) and follower.ends == {tmp_path / "copy.h5": "unknown"}
    assert 60 <= clock.now < 62
    list(work)


def test_what_never_appears_is_a_clear_error(tmp_path):
    for source in (tmp_path / "none.h5", tmp_path, tmp_path / "*.h5"):
        with pytest.raises(
            DataError, match="nothing new in '.*' for 9 seconds, and there are 0 of"
        ):
            list(Clock().follow(source, timeout_s=9))
    with pytest.raises(ValueError, match="an item is either a batch or an episode. Got 5"):
        follow(tmp_path, episodes=True, batch_size=5)
    with pytest.raises(TypeError, match="it must be a list"):
        follow(tmp_path, "action")


def test_unknown_channels_are_named(tmp_path):
    list(writing(tmp_path / "run.h5", World(steps=9)))
    with pytest.raises(DataError, match="Unknown channel 'acton'"):
        list(Clock().follow(tmp_path / "run.h5", ["acton"]))


WRITE = """
import sys
from data_worlds import World
from test_data_following import writing
for _ in writing(sys.argv[1], World(steps=int(sys.argv[2]), seed=int(sys.argv[3]), num_envs=4)):
    pass
"""


def test_processes_that_record_are_followed_and_one_is_killed(tmp_path):
    doomed, other = tmp_path / "worker-0/run.h5", tmp_path / "worker-1/run.h5"
    processes = {
        path: subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), steps, str(seed)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for seed, (path, steps) in enumerate({doomed: "1000000", other: "300"}.items())
    }
    last = random.randrange(40)
    try:
        items: list[dict[str, np.ndarray]] = []
        follower = follow(tmp_path, recordings=2, poll_s=0.01)
        for rows in follower:
            items.append(rows)
            last -= follower.paths[rows["recording"][0]] == doomed
            if last < 0:
                processes[doomed].kill()
        assert processes[other].wait() == 0
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert follower.ends == {doomed: "killed", other: "finished"}
    found = by_episode(items, "recording")
    for path in processes:
        check_same(found, path, (follower.paths.index(path),))
