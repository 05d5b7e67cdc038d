"""Collections of which shards are missing: everything that describes them says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from damaged_files import record
from data_worlds import World

from mjlab_rec.commands.main import main
from mjlab_rec.data import DataError, describe, follow, open_rollouts, report
from mjlab_rec.data.checking import check, check_plans
from mjlab_rec.data.following import Follower


def shard(folder: Path, number: int, planned: int = 12) -> Path:
    """Write a finished shard of a collection of `planned` shards."""
    place = folder / f"shard-{number:05d}"
    path = place / "hdf5.h5"
    record("hdf5", path, World(seed=number, steps=9), block_rows=7)
    about = {"shard": number, "shards": planned, "rank": 0, "finished": True}
    (place / "worker.json").write_text(json.dumps(about))
    return path


def collection(folder: Path, shards: int, planned: int = 12) -> Path:
    """A collection with its first shards."""
    folder.mkdir(exist_ok=True)
    (folder / "collect.json").write_text(json.dumps({"shards": planned, "episodes": 10 * planned}))
    for number in range(shards):
        shard(folder, number, planned)
    return folder


def test_a_collection_is_finished_once_all_planned_shards_are_there(tmp_path):
    folder = collection(tmp_path / "run", 1, planned=2)
    with open_rollouts(folder) as rollouts:
        assert not rollouts.finished
        assert rollouts.state == f"incomplete: 1 of 2 shards ({len(rollouts)} of 20 episodes)"
        assert rollouts.incomplete == ["Shard 1 of 2 is missing."]
        assert "1 of 2 shards" in rollouts.summary()
        shard(folder, 1, planned=2)
        assert rollouts.refresh() > 0
        assert rollouts.finished and rollouts.state == "complete" and rollouts.incomplete == []


def test_several_collections_are_counted_together_but_missed_one_by_one(tmp_path):
    collection(tmp_path / "a", 2, planned=2), collection(tmp_path / "b", 1)
    with open_rollouts([tmp_path / "a", tmp_path / "b"]) as rollouts:
        assert "incomplete: 3 of 14 shards" in rollouts.state
        assert rollouts.incomplete == [f"'{tmp_path}/b': shards 1-11 of 12 are missing."]
    with open_rollouts([tmp_path / "a", tmp_path / "a"]) as rollouts:
        assert rollouts.finished


def test_single_shards_miss_no_others(tmp_path):
    folder = collection(tmp_path / "run", 2)
    paths = [folder / "shard-00000", folder / "shard-00001/hdf5.h5"]
    for source in (paths[0], paths, str(paths[1])):
        with open_rollouts(source) as rollouts:
            assert rollouts.finished and rollouts.incomplete == []
    with open_rollouts(f"{folder}/shard-*/*.h5") as rollouts:
        assert rollouts.incomplete == ["Shards 2-11 of 12 are missing."]


def test_a_collection_without_a_shard_says_so(tmp_path):
    with pytest.raises(DataError, match=r"nothing to read yet: 0 of 12 shards"):
        open_rollouts(collection(tmp_path / "run", 0))


def test_info_check_and_report_say_what_is_missing(tmp_path, capsys):
    folder = collection(tmp_path / "run", 1)
    about = describe(folder)
    assert not about["finished"] and about["incomplete"] == ["Shards 1-11 of 12 are missing."]
    main(["data", "info", str(folder)])
    assert "incomplete: 1 of 12 shards" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(folder), "--json"])
    result = json.loads(capsys.readouterr().out)[-1]
    assert ended.value.code == 1 and not result["ok"] and result["path"] == str(folder)
    assert {finding["kind"] for finding in result["findings"]} == {"unfinished"}
    assert "<b>incomplete</b>" in report(folder, tmp_path / "page.html").read_text()
    path = folder / "shard-00000/hdf5.h5"
    for single in (path, path.parent):
        assert check_plans([single], [check(path)]).ok


class Clock:
    """A clock that goes on only while the follower pauses; then one more thing is done, too."""

    def __init__(self, *work: Callable[[], object]) -> None:
        self.now, self.work = 0.0, list(work)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.work:
            self.work.pop(0)()

    def follow(self, source: Any, **options: Any) -> Follower:
        return follow(source, clock=lambda: self.now, pause=self.pause, **options)


def test_following_a_collection_waits_for_all_planned_shards(tmp_path):
    folder = collection(tmp_path / "run", 0, planned=3)
    clock = Clock(*(partial(shard, folder, number, 3) for number in range(3)))
    rows = clock.follow(folder)
    assert not rows.finished
    count = sum(len(some["step"]) for some in rows)
    with open_rollouts(folder) as rollouts:
        assert count == rollouts.rows and len(rows.paths) == 3 and rows.finished


def test_shards_that_do_not_come_are_told_but_waited_for_without_a_timeout(tmp_path, caplog):
    folder = collection(tmp_path / "run", 1, planned=2)
    clock = Clock(*[lambda: None] * 500, lambda: shard(folder, 1, 2))
    rows = clock.follow(folder)
    assert list(rows) and rows.finished and clock.now > 99
    (message,) = caplog.messages
    assert message.startswith(f"1 of 2 shards in '{folder}' are missing, and nothing came for 60")
    assert "recordings=1 takes only what is there" in message


def test_with_a_timeout_missing_shards_are_a_warning_and_it_is_not_finished(tmp_path, caplog):
    folder = collection(tmp_path / "run", 2)
    rows = Clock().follow(folder, timeout_s=5)
    assert list(rows) and len(rows.paths) == 2 and not rows.finished
    assert "10 of 12 shards" in caplog.text and "What is there was read" in caplog.text
    caplog.clear()
    rows = Clock().follow(folder, recordings=2)
    assert list(rows) and rows.finished and not caplog.text
