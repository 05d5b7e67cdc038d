"""The folder of a collection: killed, disturbed or out of space at every step, it stays whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from collect_tasks import a_plan

from mjlab_rec.collecting import Folder
from mjlab_rec.collecting.folder import CollectError
from mjlab_rec.collecting.work import do_shard
from mjlab_rec.data.schema import DataError

PLAN = a_plan(episodes=3, num_envs=2, per_env=1)
WRITES = ("mkdir", "link", "replace", "rename", "fsync")
STEPS = (*WRITES, "unlink", "rmdir")


class Killed(BaseException):
    """Ends a run as a kill does: nothing is done afterwards."""


def play(path: Path) -> dict[str, Any]:
    """Instead of episodes, a few bytes."""
    try:
        (path / "rows").mkdir()
        (path / "rows" / "0.csv").write_text("rows")
    except OSError as error:  # As recorders say it.
        raise DataError(os.strerror(error.errno or 0)) from error
    return {"episodes": 2}


def run(where: Path, rank: int = 0) -> None:
    """What a worker does."""
    folder = Folder(where)
    folder.claim(PLAN)
    work: Any = SimpleNamespace(plan=PLAN, rank=rank, recording=lambda path: path / "rows")
    work.play = lambda shard, path, tell: play(path)
    for shard in folder.missing(PLAN):
        do_shard(work, folder, shard, lambda episodes, steps: None)
    folder.clean()


def assert_whole(where: Path) -> None:
    found = {str(path.relative_to(where)) for path in where.rglob("*")}
    files = ("worker.json", "rows", "rows/0.csv")
    shards = [shard.name for shard in PLAN.shards]
    assert found == {"collect.json", *shards, *(f"{s}/{file}" for s in shards for file in files)}
    assert all(Folder(where).worker(shard)["finished"] for shard in PLAN.shards)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what happens before the nth change in the file system, and before all that follow."""
    state: dict[str, Any] = {}

    def begin(number: int, act: Callable[[], None], once: bool, names: Any = STEPS) -> None:
        state.update(left=number, act=act, once=once, names=names)

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name in state.get("names", ()):
                state["left"] -= 1
                if state["left"] == 0 or (state["left"] < 0 and not state["once"]):
                    state["act"]()
            return real(*args, **options)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, wrapped(name, getattr(os, name)))
    begin.reached = lambda: state["left"] <= 0  # type: ignore[attr-defined]
    return begin


def test_a_kill_before_any_step_loses_nothing_and_leaves_nothing(tmp_path, step):
    def kill() -> None:
        raise Killed

    for number in range(1, 1000):
        where = tmp_path / str(number)
        step(number, kill, once=False)
        try:
            run(where)
        except Killed:
            pass
        if not step.reached():
            break
        step(0, kill, once=True)
        run(where)
        assert_whole(where)
    assert number > 20


def test_another_worker_may_finish_before_any_step(tmp_path, step):
    """It plays everything that is missing, and removes what seems to be left."""
    for number in range(1, 1000):
        where = tmp_path / str(number)
        step(number, lambda where=where: run(where, rank=1), once=True)
        run(where)
        if not step.reached():
            break
        assert_whole(where)
    assert number > 20


def test_a_shard_that_another_worker_has_finished_is_not_played(tmp_path):
    """Such as by a task of a SLURM array that was submitted again while others go on."""
    run(tmp_path)
    work: Any = SimpleNamespace(plan=PLAN, rank=3, play=None)
    assert do_shard(work, Folder(tmp_path), PLAN.shards[0], lambda *told: None)["rank"] == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_an_error_of_the_disk_is_told_and_the_shard_stays_missing(tmp_path, step, number):
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for place in range(1, 1000):
        where = tmp_path / str(place)
        step(place, fail, once=False, names=WRITES)
        try:
            run(where)
        except DataError as error:
            assert os.strerror(number) in str(error)
        if not step.reached():
            break
        step(0, fail, once=True)
        run(where)
        assert_whole(where)
    assert place > 10


def test_shards_without_a_plan_are_not_taken_for_those_of_a_new_one(tmp_path):
    run(tmp_path)
    (tmp_path / "collect.json").unlink()
    with pytest.raises(CollectError, match=r"has 2 finished shards but no collect\.json"):
        run(tmp_path)
    assert not (tmp_path / "collect.json").exists()


@pytest.mark.parametrize("name", ["shard-00007", "shard-000000"])
def test_a_shard_of_another_collection_is_an_error(tmp_path, name):
    run(tmp_path)
    (tmp_path / "shard-00000").rename(tmp_path / name)
    with pytest.raises(CollectError, match=f"{name}' is none of the 2 shards"):
        run(tmp_path)


def test_other_files_are_left_alone(tmp_path):
    for name in ("slurm-1.out", ".hidden", ".shard-00009.x", "shard-1", "notes/shard-00000/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    run(tmp_path)
    assert (tmp_path / "slurm-1.out").exists() and (tmp_path / ".shard-00009.x").exists()
    assert (tmp_path / ".hidden").exists() and (tmp_path / "notes/shard-00000/x").exists()
