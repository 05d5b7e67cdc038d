"""Several recordings opened as one: order, numbers, origin, and what does not fit together."""

from __future__ import annotations

import gc
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damaged_files import record
from data_worlds import World
from data_worlds import same as equal

from mjlab_rec.data import open_rollouts, union
from mjlab_rec.data.discovery import find_recordings
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.schema import DataError


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype and equal(found[name], values)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with runs 2, 10 and 1, in folders of their own."""
    folder = tmp_path_factory.mktemp("runs")
    for number in (2, 10, 1):
        record(
            "hdf5", folder / f"run-{number}/rollouts.h5", World(seed=number, steps=24), block_rows=7
        )
        (folder / f"run-{number}/notes.csv").write_text("a,b\n1,2\n")
    return folder


def opened_one_by_one(runs: Path) -> list:
    return [open_rollouts(runs / f"run-{number}/rollouts.h5") for number in (1, 2, 10)]


def test_a_folder_of_runs_is_read_as_one_in_numeric_order(runs):
    with open_rollouts(runs) as together:
        single = opened_one_by_one(runs)
        assert len(together) == sum(map(len, single))
        assert together.rows == sum(one.rows for one in single)
        assert [path.parent.name for path in together.paths] == ["run-1", "run-2", "run-10"]
        wanted = [one[i] for one in single for i in range(len(one))]
        for index, arrays in enumerate(wanted):
            same(together[index], arrays)
            if index % 7 == 0:
                same(together.read(index, ["action"]), {"action": arrays["action"]})
        rewards = np.concatenate([arrays["reward"] for arrays in wanted])
        assert equal(together.arrays("reward"), rewards)


def test_read_many_returns_rows_in_the_order_of_the_request(runs):
    with open_rollouts(runs) as together:
        order = np.random.default_rng(0).permutation(len(together)).tolist()
        arrays = together.read_many(order, ["step", "obs/actor", "next_obs/actor"])
        each = [together.read(index, list(arrays)) for index in order]
        same(arrays, {name: np.concatenate([one[name] for one in each]) for name in arrays})


def test_episodes_are_numbered_on_and_name_their_file(runs):
    with open_rollouts(runs) as together:
        table = together.episodes
        assert table.select("env", "number").is_unique().all()
        single = opened_one_by_one(runs)
        first = single[0].episodes
        assert table.head(len(first)).drop("file", "file_number").equals(first)
        of_two = table.filter(table["file"] == str(runs / "run-2/rollouts.h5"))
        assert of_two["file_number"].to_list() == single[1].episodes["number"].to_list()
        env = of_two["env"][0]
        offset = 1 + first.filter(first["env"] == env)["number"].to_numpy().max()
        assert of_two["number"][0] == offset


def test_a_further_recording_changes_no_number(runs):
    paths = [runs / f"run-{number}/rollouts.h5" for number in (10, 2, 1)]
    with open_rollouts(paths[:2]) as two, open_rollouts(paths) as three:
        assert three.episodes.head(len(two)).equals(two.episodes)


def test_windows_and_transitions_work_over_all(runs):
    with open_rollouts(runs / "run-*/*.h5") as together:
        rows = sum(len(batch["step"]) for batch in together.transitions(16, ["step"], seed=0))
        assert rows == together.rows
        windows = sum(len(batch["step"]) for batch in together.windows(4, 16, ["step"]))
        assert windows == int(np.maximum(together.episodes["rows"].to_numpy() - 3, 0).sum())


def test_a_list_may_mix_formats_and_repeats_nothing(tmp_path):
    first = record("npz", tmp_path / "first", World(seed=1))
    second = record("parquet", tmp_path / "second", World(seed=2))
    with open_rollouts([first, second, str(first)]) as together:
        assert together.paths == (first, second) and together.format == "npz, parquet"
        assert together.path is None and together.source == [first, second]
        with open_rollouts(second) as alone:
            same(together[len(together) - 1], alone[len(alone) - 1])


def test_recordings_of_one_folder_in_several_formats_are_not_mixed_unasked(tmp_path):
    record("npz", tmp_path / "a", World(seed=1))
    record("hdf5", tmp_path / "a.h5", World(seed=1), block_rows=7)
    for source in (tmp_path, tmp_path / "*"):
        with pytest.raises(DataError, match="a, a.h5. They are in several formats, so they may be"):
            open_rollouts(source)
    with open_rollouts(tmp_path / "*.h5") as rollouts:
        assert len(rollouts.paths) == 1


def test_parts_belong_to_their_recording_and_count_once(tmp_path):
    path = record("hdf5", tmp_path / "run.h5", World(steps=14), block_rows=7, roll_over_bytes=1)
    assert len(list(tmp_path.iterdir())) > 2
    assert find_recordings(tmp_path) == find_recordings(tmp_path / "*.h5") == [path]
    with open_rollouts(path) as one, open_rollouts(tmp_path) as together:
        assert len(one) == len(together)


def test_names_are_ordered_by_their_numbers(tmp_path):
    for name in ("run-10.h5", "run-2.h5", "run.h5", "run-2b.h5", "2.h5", "10.h5", "a10/x.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ordered = ["2.h5", "10.h5", "x.h5", "run.h5", "run-2.h5", "run-2b.h5", "run-10.h5"]
    assert names(find_recordings(tmp_path)) == ordered


def test_files_that_are_no_recordings_are_left_out(tmp_path):
    path = record("csv", tmp_path / "run.csv", World(steps=3))
    (tmp_path / "progress.csv").write_text("step,loss\n1,2\n")
    (tmp_path / "readme.txt").write_text("hello")
    np.savez(tmp_path / "motion.npz", a=np.zeros(3))
    (tmp_path / ".hidden.h5").touch()
    os.symlink(tmp_path, tmp_path / "loop")
    assert find_recordings(tmp_path) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.dtype("float64")}, "the dtype of channel 'action' is 'float64', not 'float3"),
        ({"shape": (3,), "elements": ()}, r"the shape of channel 'action' is \[3\], not \[2\]"),
        ({"elements": ("right", "left")}, r"the elements of channel 'action' is \['right', 'left"),
        ({"units": "N"}, "the units of channel 'action' is 'N', not ''"),
        ({"name": "torque"}, "'.*b.h5' has no channel 'action'"),
    ],
)
def test_a_difference_between_channels_names_the_field(tmp_path, change, message):
    world = World(steps=2)
    first = record("hdf5", tmp_path / "a.h5", world, block_rows=7)
    other = World(steps=2)
    specs = [replace(s, **change) if s.name == "action" else s for s in other.info.channels]
    other.info.channels = tuple(specs)
    writer_of(tmp_path / "b.h5", other)
    with pytest.raises(DataError, match=message):
        open_rollouts([first, tmp_path / "b.h5"])


def writer_of(path: Path, world: World) -> None:
    writer_class("hdf5")(world.info, WriterOptions(path=str(path))).close()


def test_a_difference_in_step_dt_is_an_error(tmp_path):
    record("npz", tmp_path / "a", World(steps=2))
    other = World(steps=2)
    other.info.step_dt = 0.5
    record("npz", tmp_path / "b", other)
    with pytest.raises(DataError, match="its step_dt is 0.5, not 0.02"):
        open_rollouts(tmp_path)


def test_what_all_recordings_say_is_said_of_the_union(runs):
    with open_rollouts(runs) as together:
        assert together.info.about["task"] == "made-up" and "seed" not in together.info.about
        assert together.attachments == World().info.attachments
        assert "3 recordings" not in together.summary() and str(runs) in together.summary()


def test_few_files_are_open_at_a_time(runs, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5_reader._MOST_OPEN", 1)
    gc.collect()  # Files of other tests that were not closed.
    before = len(os.listdir("/proc/self/fd"))
    with open_rollouts(runs) as together:
        assert len(os.listdir("/proc/self/fd")) <= before + 1
        for index in (len(together) - 1, 0, len(together) // 2):
            together.read(index, ["reward"])
            assert len(os.listdir("/proc/self/fd")) <= before + 1
        for _ in together.transitions(8, ["reward"], memory_bytes=1000, workers=3):
            assert len(os.listdir("/proc/self/fd")) <= before + 1 + 4  # One that each thread reads.
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_recording_that_was_replaced_while_it_was_closed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.hdf5_reader._MOST_OPEN", 1)
    for seed in (1, 2):
        record("hdf5", tmp_path / f"{seed}.h5", World(seed=seed, steps=8), block_rows=7)
    with open_rollouts(tmp_path) as together:
        together[len(together) - 1]
        os.replace(tmp_path / "2.h5", tmp_path / "1.h5")
        with pytest.raises(DataError, match="1.h5' was replaced after it was opened. Open it agai"):
            together[0]


def test_a_recording_that_changed_while_it_was_closed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(union, "_MOST_OPEN", 1)
    for seed in (1, 2):
        record("npz", tmp_path / f"{seed}", World(seed=seed, steps=8))
    with open_rollouts(tmp_path) as together:
        together[len(together) - 1]
        shutil.rmtree(tmp_path / "1")
        os.replace(tmp_path / "2", tmp_path / "1")
        with pytest.raises(DataError, match="1' was changed after it was opened"):
            together[0]


def test_numbers_go_on_per_environment_as_in_a_simple_model(tmp_path):
    for seed, num_envs in enumerate((2, 1, 3)):
        world = World(seed=seed, steps=20, num_envs=num_envs)
        record("hdf5", tmp_path / f"{seed}.h5", world, block_rows=7)
    with open_rollouts(tmp_path) as together:
        first: dict[int, int] = {}
        found = together.episodes.select("env", "number", "file", "file_number").rows()
        for file in sorted(tmp_path.iterdir()):
            mine = [row for row in found if row[2] == str(file)]
            with open_rollouts(file) as alone:
                assert [row[3] for row in mine] == alone.episodes["number"].to_list()
            for env, number, _, within in mine:
                assert number == first.get(env, 0) + within
            for env in {row[0] for row in mine}:
                first[env] = 1 + max(row[1] for row in mine if row[0] == env)


def test_impossible_sources_are_clear_errors(tmp_path):
    with pytest.raises(DataError, match="the list of recordings is empty"):
        open_rollouts([])
    with pytest.raises(DataError, match="No recording matches '.*none-"):
        open_rollouts(tmp_path / "none-*.h5")
    with pytest.raises(DataError, match="There is no recording at"):
        open_rollouts([tmp_path / "none.h5"])


# -- workers of a collection -----------------------------------------------------------------------


def collection(folder: Path, ranks: dict[int, dict]) -> Path:
    """A folder of workers, each with a recording and a worker.json with these keys."""
    for rank, about in ranks.items():
        place = folder / f"worker-{rank:05d}"
        record("hdf5", place / "rollouts.h5", World(seed=rank, steps=9), block_rows=7)
        facts = {"rank": rank, "host": f"node{rank}", "finished": True, "cfg_hash": "c0", **about}
        (place / "worker.json").write_text(json.dumps(facts))
    return folder


def test_workers_are_named_in_the_table_and_described(tmp_path):
    with open_rollouts(collection(tmp_path, {0: {}, 2: {}, 1: {"seed": 7}})) as rollouts:
        table = rollouts.episodes
        assert table["worker"].unique(maintain_order=True).to_list() == [0, 1, 2]
        for rank in range(3):
            files = table.filter(table["worker"] == rank)["file"].unique().to_list()
            assert files == [str(tmp_path / f"worker-{rank:05d}/rollouts.h5")]
        assert rollouts.workers["host"].to_list() == ["node0", "node1", "node2"]
        assert rollouts.workers["seed"].to_list() == [None, "7", None]
        assert rollouts.incomplete == [] and rollouts.workers["complete"].all()
        assert "workers" in rollouts.summary() and "Incomplete" not in rollouts.summary()
        assert "worker" in rollouts.origins.columns


def test_incomplete_workers_are_told(tmp_path):
    collection(
        tmp_path,
        {
            0: {"planned_episodes": 10_000},
            1: {"finished": False},
            2: {"cfg_hash": 5},
            3: {"cfg_hash": "c1"},
            6: {},
        },
    )
    (tmp_path / "worker-00006/worker.json").write_text("{")
    (tmp_path / "worker-00007").mkdir()
    (tmp_path / "worker-00007/worker.json").write_text('{"rank": 7}')
    with open_rollouts(tmp_path) as rollouts:
        count = rollouts.workers["episodes"][0]
        found = [text.replace(str(tmp_path), "") for text in rollouts.incomplete]
        assert found == [
            f"'/worker-00000' (rank 0, host node0): it has {count} of 10000 episodes.",
            "'/worker-00001' (rank 1, host node1): it has not finished.",
            "'/worker-00002' (rank 2, host node2): its worker.json has an impossible cfg_hash.",
            found[3],
            "'/worker-00007' (rank 7): it has no recording.",
            "Ranks 4-6 are missing: there are higher ones.",
        ]
        assert "'/worker-00006': its worker.json cannot be read" in found[3]
        assert "2 different values of cfg_hash. The rarest is that of" in rollouts.summary()
        assert "... and 1 more." in rollouts.summary()


def test_shards_of_the_same_worker_are_told_apart(tmp_path):
    ranks = {n: {"shard": n, "rank": n % 2} for n in (0, 1, 2, 4)}
    with open_rollouts(collection(tmp_path, ranks)) as rollouts:
        missing = "Shard 3 is missing: there are higher ones."
        assert rollouts.incomplete == [missing]


def test_shards_that_are_planned_are_missed(tmp_path):
    ranks = {n: {"shard": n, "shards": 5} for n in (0, 2)}
    with open_rollouts(collection(tmp_path, ranks)) as rollouts:
        assert rollouts.incomplete == ["Shards 1, 3-4 of 5 are missing."]


def test_what_all_descriptions_say_is_kept_at_any_depth():
    one = {"task": "a", "env_cfg": {"seed": 1, "sim": {"dt": 0.1, "log": "x"}}, "seed": 1}
    other = {"task": "a", "env_cfg": {"seed": 2, "sim": {"dt": 0.1, "log": "y"}}}
    assert union._common([one, other]) == {"task": "a", "env_cfg": {"sim": {"dt": 0.1}}}


def test_a_killed_recording_without_a_worker_is_told(tmp_path):
    for seed in (1, 2):
        writer = writer_class("hdf5")(World().info, WriterOptions(path=f"{tmp_path}/{seed}.h5",
                                                                  block_rows=7))  # fmt: skip
        for block in World(seed=seed).blocks():
            writer.write(block)
        if seed == 2:
            with open_rollouts(tmp_path) as rollouts:
                path = tmp_path / "2.h5"
                assert rollouts.incomplete == [f"'{path}' is being written."]
                assert f"Incomplete:\n'{path}' is being written." in rollouts.summary()
        writer.close()


def test_a_growing_worker_changes_no_id_of_another(tmp_path):
    folder = collection(tmp_path, {0: {}, 1: {}})
    key = ["worker", "file", "env", "file_number"]
    with open_rollouts(folder) as before:
        old = before.episodes.select(*key, "start", "length", "return")
    record("hdf5", folder / "worker-00000/rollouts.h5", World(seed=9), block_rows=7,
           if_exists="append")  # fmt: skip
    collection(folder, {2: {}})
    with open_rollouts(folder) as after:
        assert len(after) > len(old) and after.episodes.select(key).is_unique().all()
        assert (
            after.episodes.join(old, key, "semi", maintain_order="left")
            .select(old.columns)
            .equals(old)
        )


def test_folders_of_workers_without_a_recording_are_a_clear_error(tmp_path):
    (tmp_path / "worker-0").mkdir()
    (tmp_path / "worker-0/worker.json").write_text("{}")
    with pytest.raises(DataError, match="No worker in '.*' has a recording yet: there are 1 fold"):
        open_rollouts(tmp_path)


def test_refresh_finds_new_rows_and_new_recordings(tmp_path):
    folder = collection(tmp_path / "all", {0: {}, 1: {}})
    growing = tmp_path / "all/worker-00000/more.h5"
    world = World(seed=5)
    writer = writer_class("hdf5")(world.info, WriterOptions(path=str(growing), block_rows=7))
    blocks = world.blocks()
    writer.write(next(blocks))
    with open_rollouts(folder) as rollouts, open_rollouts(growing) as alone:
        assert rollouts.refresh() == alone.refresh() == 0
        kept = [reader for reader in rollouts.reader._open.values() if reader.finished]
        batches = rollouts.transitions(8, ["reward"])
        rows, own = rollouts.rows, alone.rows
        writer.write(next(blocks))
        assert alone.refresh() == 21 and alone.rows == own + 21
        assert rollouts.refresh() == 21 and rollouts.rows == rows + 21
        assert [r for r in rollouts.reader._open.values() if r in kept] == kept
        assert sum(len(batch["reward"]) for batch in batches) == rows
        collection(folder, {2: {}})
        added = rollouts.refresh()
        with open_rollouts(folder / "worker-00002") as new:
            assert added == new.rows
        assert rollouts.refresh() == 0 and rollouts.workers["rank"].to_list() == [0, 1, 2]
        with open_rollouts(folder) as again:
            assert again.episodes.equals(rollouts.episodes)
            same(again[len(again) - 1], rollouts[len(again) - 1])
    for block in blocks:
        writer.write(block)
    writer.close()


def test_a_refresh_that_fails_leaves_the_recordings_open(tmp_path):
    record("hdf5", tmp_path / "1.h5", World(steps=8), block_rows=7)
    with open_rollouts([tmp_path / "1.h5"]) as alone:
        whole = alone[0]
    with open_rollouts(str(tmp_path / "*.h5")) as rollouts:
        record("hdf5", tmp_path / "2.h5", World(steps=8, every=2), block_rows=7)
        with pytest.raises(DataError, match="2.h5' cannot be read as one data set"):
            rollouts.refresh()
        same(rollouts[0], whole)


@pytest.mark.parametrize("format", ["hdf5", "csv", "npz"])
def test_a_url_is_downloaded_and_opened(tmp_path, format):
    fsspec = pytest.importorskip("fsspec")
    name = {"hdf5": "run.h5", "csv": "run.csv", "npz": "run"}[format]
    options = {"block_rows": 7, "roll_over_bytes": 1} if format == "hdf5" else {}
    path = record(format, tmp_path / name, World(steps=14), **options)
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path), "/bucket/all", recursive=True)
    try:
        with open_rollouts(f"memory://bucket/all/{name}") as remote, open_rollouts(path) as local:
            assert remote.episodes.equals(local.episodes) and remote.finished
            same(remote[len(remote) - 1], local[len(local) - 1])
            assert remote.path is not None and remote.path.exists()
        assert not remote.path.exists()
        with open_rollouts("memory://bucket/all") as together:
            assert together.rows == local.rows
        with pytest.raises(DataError, match="There is no recording at 'memory://bucket/none.h5'"):
            open_rollouts("memory://bucket/none.h5")
    finally:
        store.rm("/bucket", recursive=True)


def test_an_unknown_url_is_a_clear_error():
    with pytest.raises(DataError, match="'nosuch://a/b' is not the URL of a file system"):
        open_rollouts("nosuch://a/b")
