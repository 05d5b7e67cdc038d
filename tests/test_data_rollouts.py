"""Opening recordings by path, and reading episodes, rows and windows."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_worlds import World, episodes_of, same
from torch.utils.data import DataLoader
from waiting import PATIENCE_S

from mjlab_rec.data.files import PathLock
from mjlab_rec.data.formats import episode_table, writer_class
from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Reader, WriterOptions
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo


def write(world: World, path: Path, **options) -> Path:
    names = {".csv": "csv", ".parquet": "parquet", ".h5": "hdf5"}
    name = "robomimic" if path.name == "demo.h5" else names.get(path.suffix, "npz")
    writer = writer_class(name)(world.info, WriterOptions(path=str(path), **options))
    for episode in episodes_of(world):
        writer.write_episode(episode)
    writer.close()
    return path


class FakeReader(Reader):
    """Episodes whose rows have an id: 1000 * episode + row."""

    def __init__(self, steps: list[list[int]], every: int = 1) -> None:
        self.steps = steps
        self.info = RunInfo(
            channels=(
                ChannelSpec(name="id", dtype=np.dtype("int64")),
                ChannelSpec(name="pair", dtype=np.dtype("float32"), shape=(2,)),
            ),
            envs=(0,),
            step_dt=0.1,
            every=every,
        )
        self.episodes = episode_table.table(
            {
                **dict.fromkeys(EPISODE_COLUMNS),
                "number": number,
                "rows": len(steps),
                "partial": bool((np.diff(steps) != every).any()),
            }
            for number, steps in enumerate(steps)
        )
        self.reads: list[int] = []

    def read(self, index, channels):
        self.reads.append(index)
        count = len(self.steps[index])
        ids = 1000 * index + np.arange(count)
        arrays = {
            "id": ids,
            "pair": np.stack([ids, -ids], 1).astype(np.float32),
            "step": np.array(self.steps[index], np.int32),
        }
        return {name: arrays[name] for name in channels}

    def close(self):
        self.reads.append(-1)


def fake(*counts: int) -> Rollouts:
    return Rollouts(FakeReader([list(range(count)) for count in counts]))


def ids(batches) -> list[int]:
    return [i for batch in batches for i in batch["id"].flatten().tolist()]


ALL = [1000 * episode + row for episode, count in enumerate((5, 0, 7, 1)) for row in range(count)]

# -- episodes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world_and_path(tmp_path_factory) -> tuple[World, Path]:
    world = World(steps=60)
    return world, write(world, tmp_path_factory.mktemp("rollouts") / "run.npz")


def test_episodes_are_a_sequence(world_and_path):
    world, path = world_and_path
    with open_rollouts(path) as rollouts:
        count = len(rollouts)
        assert count == len(rollouts.episodes) == len(world.episodes) == len(list(rollouts))
        assert same(rollouts[-1]["action"], rollouts[count - 1]["action"])
        assert same(rollouts[np.int64(2)]["step"], list(rollouts)[2]["step"])
        with pytest.raises(IndexError, match=f"no episode {count}: the recording has {count}"):
            rollouts[count]
        with pytest.raises(IndexError, match=f"no episode {-count - 1}"):
            rollouts[-count - 1]
        with pytest.raises(TypeError, match="chosen by its number, got 'action'"):
            rollouts["action"]


def test_only_wanted_channels_are_read_and_unknown_ones_get_a_suggestion(world_and_path):
    with open_rollouts(world_and_path[1]) as rollouts:
        assert set(rollouts.read(0, ["action", "step"])) == {"action", "step"}
        with pytest.raises(DataError, match="Unknown channel 'acton'. Did you mean 'action'"):
            rollouts.read(0, ["acton"])
        with pytest.raises(TypeError, match=r"must be a list: \['action'\]"):
            rollouts.read(0, "action")
        with pytest.raises(DataError, match="Did you mean 'reward'"):
            rollouts.arrays("rewards")


def test_arrays_are_the_rows_of_all_episodes(world_and_path):
    world, path = world_and_path
    with open_rollouts(path) as rollouts:
        episodes = sorted(world.episodes, key=lambda e: (e.env, e.number))
        logged = [row.values["reward"] for episode in episodes for row in episode.rows]
        assert same(rollouts.arrays("reward"), np.stack(logged))
        assert rollouts.rows == len(logged) == len(rollouts.arrays("step"))


def test_the_summary_describes_the_recording(world_and_path):
    world, path = world_and_path
    with open_rollouts(path) as rollouts:
        lines = {
            line.split()[0]: " ".join(line.split()[1:])
            for line in rollouts.summary().splitlines()
            if line.strip()
        }
    outcomes = {
        "terminated": sum(e.terminated for e in world.episodes),
        "truncated": sum(e.truncated for e in world.episodes),
        "cut": sum(not (e.terminated or e.truncated) for e in world.episodes),
        "success": sum(e.success is True for e in world.episodes),
        "failure": sum(e.success is False for e in world.episodes),
    }
    reported = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    assert lines["recording"] == str(path)
    assert lines["task"] == "made-up"
    assert lines["environments"] == "3"
    assert lines["rows"] == f"lost {world.lost}"  # the later of the two lines
    assert lines["episodes"] == f"{len(world.episodes)} ({reported})"
    totals = [e.total for e in world.episodes]
    assert lines["return"].startswith(f"mean {np.mean(totals):g}, min {min(totals):g}")
    assert lines["obs/actor"] == "float32 3 -"
    assert lines["camera"] == "uint8 2x2 -"
    assert lines["state"] == "float64 2 m"


def test_a_recording_and_its_channels_are_printed_as_tables(world_and_path):
    world, path = world_and_path
    with open_rollouts(path) as rollouts:
        text = repr(rollouts)
        assert text.startswith(rollouts.summary())
        title, header, _, *rows = text[len(rollouts.summary()) :].strip().splitlines()
        assert title == f"Episodes (the first 5 of {len(rollouts)})" and len(rows) == 5
        assert header.split() == "env number length return terminated truncated cut".split()
        title, header, _, *rows = repr(rollouts.channels).splitlines()
        assert [row.split()[0] for row in rows] == list(rollouts.channels)
        assert rollouts.channels == {spec.name: spec for spec in world.info.channels}


def test_closing_releases_the_reader():
    reader = FakeReader([[0]])
    with Rollouts(reader):
        pass
    assert reader.reads == [-1]


# -- opening ---------------------------------------------------------------------------------------


def test_a_missing_recording_suggests_what_there_is(tmp_path):
    with pytest.raises(DataError, match="no recording at .*There are no recordings in"):
        open_rollouts(tmp_path / "rolout.csv")
    write(World(steps=3), tmp_path / "rollout.csv")
    write(World(steps=3), tmp_path / "episodes")
    with pytest.raises(DataError, match="Did you mean 'rollout.csv'"):
        open_rollouts(tmp_path / "rolout.csv")
    with pytest.raises(DataError, match="does not exist"):
        open_rollouts(tmp_path / "nowhere" / "rollout.csv")
    with pytest.raises(DataError, match="is not a recording. It contains: episodes, rollout"):
        open_rollouts(tmp_path)


@pytest.mark.parametrize("name", ["x.h5", "x.npz"])
def test_a_file_with_a_wrong_suffix_is_refused(name, tmp_path):
    (tmp_path / name).write_text("hello")
    with pytest.raises(DataError, match="has the suffix of (hdf5 or robomimic|npz) files, but"):
        open_rollouts(tmp_path / name)


def test_another_file_is_refused_and_the_error_says_what_is_possible(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"Formats that can be read: csv \(.csv\); hdf5 \(.h5"):
        open_rollouts(tmp_path / "notes.txt")
    np.savez(tmp_path / "weights.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="was not recorded by mjlab_rec"):
        open_rollouts(tmp_path / "weights.npz")


@pytest.mark.parametrize("name", ["run.csv", "run.npz"])
def test_parts_are_found_if_the_first_one_is_missing(name, tmp_path):
    world = World(steps=40)
    path = write(world, tmp_path / name, roll_over_bytes=1000)
    path.unlink()
    with open_rollouts(path) as rollouts:
        assert 0 < rollouts.rows < len(world.rows)


def test_a_recording_is_recognised_by_its_content(tmp_path):
    path = write(World(steps=20), tmp_path / "run.npz")
    renamed = path.rename(tmp_path / "run.dat")
    with open_rollouts(str(renamed)) as rollouts:
        assert rollouts.rows == 60


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(World(steps=3), tmp_path / "run")
    with open_rollouts("~/run") as rollouts:
        assert rollouts.path == tmp_path / "run"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b", "contains a NUL character"),
        ("x" * 300, "Cannot open .*File name too long"),
        ("~no_such_user/run", "Cannot find the home folder"),
        ("loop.h5", "Cannot open .*Too many levels of symbolic links"),
        ("pipe.h5", "pipe.h5' is a named pipe, but a recording is a file or a folder"),
        ("a.csv", "a.part001.csv' is a named pipe"),
        ("/dev/zero", "'/dev/zero' is a device"),
        ("socket.npz", "socket.npz' is a socket"),
        ("folder.h5", "The folder 'folder.h5' is not a recording"),
    ],
)
def test_devices_and_impossible_paths_are_refused_without_a_hang(
    path, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    os.mkfifo("pipe.h5")
    os.mkfifo("a.part001.csv")
    os.mkdir("folder.h5")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.npz")
        with pytest.raises(DataError, match=message):
            open_rollouts(path)


@pytest.mark.parametrize("what", ["run.npz", "run", "folder"])
def test_a_missing_permission_is_a_clear_error(what, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    write(World(steps=3), tmp_path / "run.npz")
    write(World(steps=3), tmp_path / "run")
    (tmp_path / "folder").mkdir()
    if what == "run.npz":
        monkeypatch.setattr("mjlab_rec.data.formats.registry.open", refuse, raising=False)
    else:
        target = (os, "open") if what == "run" else (Path, "iterdir")
        monkeypatch.setattr(*target, refuse)
    with pytest.raises(DataError, match=f"{what}.*: .*Permission denied"):
        open_rollouts(tmp_path / what)


@pytest.mark.parametrize("name", ["run.npz", "run.h5", "run"])
def test_a_recording_without_anything_to_read_yet_is_reported_as_being_written(name, tmp_path):
    path = tmp_path / name
    lock = PathLock(path, "error", folder=name == "run")
    for content in (None, b"", b"\x89HDF"):
        if content is not None and name != "run":
            path.write_bytes(content)
        with pytest.raises(DataError, match="is being written, and nothing in it can be read"):
            open_rollouts(path)
    lock.release()
    with pytest.raises(DataError) as caught:
        open_rollouts(path)
    assert "being written" not in str(caught.value)


@pytest.mark.parametrize("name", ["run.csv", "run.npz", "run", "run.parquet", "run.h5", "demo.h5"])
def test_whether_to_check_is_passed_to_the_reader_and_to_other_processes(name, tmp_path):
    path = write(World(steps=10), tmp_path / name)
    for check in (True, False):
        with open_rollouts(path, check=check) as rollouts:
            assert rollouts._reader.check is rollouts.checked is check
            copy = pickle.loads(pickle.dumps(rollouts.dataset(channels=["reward"])))
            copy[0]
            assert copy._rollouts.checked is check
            copy._rollouts.close()
    with open_rollouts(path) as rollouts:
        assert rollouts.checked
        assert rollouts.verify() == []


def test_a_recording_reports_damage_and_whether_it_was_finished(tmp_path):
    reader = FakeReader([[0, 1]])
    rollouts = Rollouts(reader)
    assert rollouts.finished and "state" not in rollouts.summary()

    class Broken(FakeReader):
        finished = False

        def verify(self):
            return ["Block 3 is damaged."]

    path = tmp_path / "run.h5"
    rollouts = Rollouts(Broken([[0, 1]]), path)
    assert rollouts.verify() == ["Block 3 is damaged."]
    assert not rollouts.finished
    assert re.search("state +not finished: its process was killed", rollouts.summary())
    lock = PathLock(path, "error")
    assert re.search("state +being written", rollouts.summary())
    lock.release()


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [1 << 20, 100, 1])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 13, 50])
def test_each_row_comes_once_per_pass(memory_bytes, shuffle, batch_size):
    batches = fake(5, 0, 7, 1).transitions(
        batch_size, shuffle=shuffle, seed=0, memory_bytes=memory_bytes
    )
    for _ in range(2):
        sizes = [len(batch["id"]) for batch in batches]
        assert len(sizes) == len(batches) == -(-13 // batch_size)
        assert all(size == batch_size for size in sizes[:-1])
        seen = ids(batches)
        assert sorted(seen) == ALL
        assert (seen == ALL) is not shuffle
    for batch in batches:
        assert torch.equal(batch["pair"], torch.stack([batch["id"], -batch["id"]], 1).float())
        assert torch.equal(batch["step"], (batch["id"] % 1000).int())
        assert batch["pair"].dtype == torch.float32


@pytest.mark.parametrize("memory_bytes", [1 << 20, 100])
def test_a_seed_repeats_the_order_but_each_pass_has_its_own(memory_bytes):
    def make(seed):
        return fake(5, 0, 7, 1).transitions(4, seed=seed, memory_bytes=memory_bytes)

    one, same_seed, other = make(3), make(3), make(4)
    first, second = ids(one), ids(one)
    assert first != second
    assert [ids(same_seed), ids(same_seed)] == [first, second]
    assert ids(other) != first
    assert ids(make(None)) != ids(make(None))


def test_batches_do_not_change_torchs_random_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ids(fake(5, 7).transitions(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_last_batch_may_be_left_out():
    batches = fake(5, 0, 7, 1).transitions(4, drop_last=True)
    assert [len(batch["id"]) for batch in batches] == [4, 4, 4]
    assert len(batches) == 3


def test_rows_that_fit_are_read_once_and_others_in_groups():
    rollouts = fake(5, 0, 7, 1)
    reader = rollouts._reader
    batches = rollouts.transitions(2, channels=["id"])
    ids(batches), ids(batches)
    assert sorted(reader.reads) == [0, 2, 3]  # Episode 1 has no rows.
    reader.reads.clear()
    batches = rollouts.transitions(2, channels=["id"], memory_bytes=120, shuffle=False)
    stream = iter(batches)
    next(stream)
    assert reader.reads == [0]  # 5 rows of 20 bytes; the next episode has 7
    assert set(next(stream)) == {"id"}


def test_only_some_episodes_may_be_used():
    assert ids(fake(2, 3, 2).transitions(9, episodes=[2, 0], shuffle=False)) == [2000, 2001, 0, 1]
    with pytest.raises(IndexError, match="numbered from 0 to 2, got"):
        fake(2, 3, 2).transitions(9, episodes=[3])


@pytest.mark.parametrize("memory_bytes", [1 << 20, 1])
def test_windows_do_not_cross_the_end_of_an_episode_nor_a_gap(memory_bytes):
    steps = [[0, 1, 2, 3], [0, 1], [], [4, 5, 6, 9, 10, 11, 12], [0, 2, 4]]
    rollouts = Rollouts(FakeReader(steps))
    batches = rollouts.windows(3, 2, shuffle=False, memory_bytes=memory_bytes)
    windows = [window for batch in batches for window in batch["id"].tolist()]
    assert [w[0] for w in windows] == [0, 1, 3000, 3003, 3004]
    assert all(w == [w[0], w[0] + 1, w[0] + 2] for w in windows)
    assert len(batches) == 3
    assert next(iter(batches))["pair"].shape == (2, 3, 2)
    assert sorted(ids(rollouts.windows(3, 2))) == sorted(i for w in windows for i in w)


def test_windows_have_a_stride_and_respect_every():
    rollouts = Rollouts(FakeReader([[1, 3, 5, 7, 9, 11], [0, 4, 6]], every=2))
    batches = rollouts.windows(2, 10, stride=2, shuffle=False)
    assert [w[0] for batch in batches for w in batch["id"].tolist()] == [0, 2, 4, 1001]


def test_windows_longer_than_every_episode_are_an_error():
    with pytest.raises(ValueError, match="no window of 8 rows: the longest episode has 7 rows. Ch"):
        fake(7, 3).windows(8, 2)
    with pytest.raises(ValueError, match="no window of 4 rows: the longest episode has 3 rows. Ch"):
        fake(7, 3).windows(4, 1, episodes=[1])
    with pytest.raises(ValueError, match="no window of 3 rows: the longest .* 4 rows, with gaps."):
        Rollouts(FakeReader([[0, 1, 4, 5]])).dataset(3)
    assert fake(7, 3).windows(7, 2).items == 1


def test_only_partial_episodes_are_read_to_find_windows():
    rollouts = Rollouts(FakeReader([[0, 1, 2], [0, 1, 4, 5], [2, 3, 4]]))
    windows = rollouts.windows(2, 10, ["id"], shuffle=False)
    assert rollouts._reader.reads == [1]
    assert [w[0] for batch in windows for w in batch["id"].tolist()] == [
        0,
        1,
        1000,
        1002,
        2000,
        2001,
    ]
    rollouts._reader.episodes = rollouts.episodes.with_columns(partial=None)  # not known
    rollouts._reader.reads.clear()
    assert len(rollouts.windows(2, 1)) == 6
    assert rollouts._reader.reads == [0, 1, 2]


@pytest.mark.parametrize("name", ["run.h5", "run", "run.csv"])
@pytest.mark.parametrize(
    "how", [{}, {"activity": "rows"}, {"gaps": (1, 3)}, {"every": 3}, {"partial": True, "every": 2}]
)
def test_windows_of_recordings_are_all_without_a_gap(how, name, tmp_path):
    world = World(steps=120, **how)
    with open_rollouts(write(world, tmp_path / name)) as rollouts:
        for length, stride in ((2, 1), (4, 3)):
            wanted = []
            for episode in sorted(world.episodes, key=lambda e: (e.env, e.number)):
                run: list = []
                for row, after in zip(episode.rows, [*episode.rows[1:], None], strict=True):
                    run.append((row.step, float(row.values["reward"])))
                    if after is None or after.step != row.step + world.every:
                        last = len(run) - length + 1
                        wanted += [run[i : i + length] for i in range(0, last, stride)]
                        run = []
            if not wanted:
                with pytest.raises(ValueError, match="There is no window of"):
                    rollouts.dataset(length)
                continue
            found = [
                (tuple(window["step"].tolist()), tuple(window["reward"].tolist()))
                for window in rollouts.dataset(length, ["step", "reward"], stride=stride)
            ]
            assert found == [tuple(zip(*window, strict=True)) for window in wanted]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: r.transitions(0), "batch_size must be at least 1, got 0"),
        (lambda r: r.windows(0, 4), "length must be at least 1, got 0"),
        (lambda r: r.windows(2, 4, stride=0), "stride must be at least 1, got 0"),
        (lambda r: r.transitions(2, channels=["idd"]), "Unknown channel 'idd'. Did you mean 'id'"),
    ],
)
def test_bad_arguments_are_refused_at_once(make, message):
    with pytest.raises((ValueError, DataError), match=message):
        make(fake(3))


def test_without_rows_there_are_no_batches():
    for rollouts in (fake(), fake(0, 0)):
        batches = rollouts.transitions(3)
        assert len(batches) == 0 == len(list(batches))
        assert list(rollouts.windows(2, 3)) == []
        assert len(rollouts.dataset()) == 0


def test_batches_from_files_hold_true_transitions(tmp_path):
    world = World(steps=60, special=False)
    path = write(world, tmp_path / "run")
    logged = {
        (float(row.values["state"][0]), float(row.values["state"][1])): row for row in world.rows
    }
    with open_rollouts(path) as rollouts:
        channels = ["state", "obs/actor", "action", "next_obs/actor", "step"]
        for batch in rollouts.transitions(16, channels, memory_bytes=2000):
            for i, state in enumerate(batch["state"].tolist()):
                row = logged.pop(tuple(state))
                assert batch["step"][i] == row.step
                for name in ("obs/actor", "action", "next_obs/actor"):
                    assert same(batch[name][i].numpy(), row.values[name])
    assert not logged


# -- data sets -------------------------------------------------------------------------------------


def test_a_data_set_gives_rows_or_windows_by_number():
    rollouts = fake(5, 0, 7, 1)
    rows = rollouts.dataset()
    assert [int(rows[i]["id"]) for i in range(len(rows))] == ALL
    assert int(rows[-1]["id"]) == ALL[-1]
    with pytest.raises(IndexError, match="no item 13: the dataset has 13"):
        rows[13]
    windows = rollouts.dataset(3, ["id"], stride=2)
    assert [windows[i]["id"].tolist() for i in range(len(windows))] == [
        [first, first + 1, first + 2] for first in (0, 2, 2000, 2002, 2004)
    ]


def test_items_of_a_data_set_do_not_share_memory():
    rows = fake(3).dataset()
    rows[0]["pair"].fill_(99)
    assert rows[0]["pair"].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["run.csv", "run", "run.parquet"])
def test_a_data_set_passes_to_another_process_without_its_open_files(name, tmp_path):
    path = write(World(steps=20), tmp_path / name)
    with open_rollouts(path) as rollouts:
        rows = rollouts.dataset(channels=["state"])
        copy = pickle.loads(pickle.dumps(rows))
        assert all(same(copy[i]["state"].numpy(), rows[i]["state"].numpy()) for i in (0, 5, 59))


def test_a_data_set_in_memory_cannot_be_passed_to_another_process():
    with pytest.raises(DataError, match="in memory cannot be passed to another process"):
        pickle.dumps(fake(3).dataset())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_sees_every_row_once(workers, tmp_path):
    world = World(steps=30)
    with open_rollouts(write(world, tmp_path / "run")) as rollouts:
        loader = DataLoader(
            rollouts.dataset(channels=["state"]),
            batch_size=8,
            shuffle=True,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        seen = [tuple(state) for batch in loader for state in batch["state"].numpy()]
        logged = [tuple(row.values["state"]) for row in world.rows]
        assert np.array_equal(sorted(map(str, seen)), sorted(map(str, logged)))


def test_forked_workers_cannot_decode_parquet_and_say_what_to_do(tmp_path):
    with open_rollouts(write(World(steps=30), tmp_path / "run.parquet")) as rollouts:
        data = rollouts.dataset(None, ["state", "step"])
        loader = DataLoader(
            data, batch_size=8, num_workers=2, multiprocessing_context="fork", timeout=PATIENCE_S
        )
        with pytest.raises(DataError, match="spawn"):
            list(loader)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("length", [None, 3])
@pytest.mark.parametrize("name", ["run.csv", "run.npz", "run", "run.h5", "demo.h5"])
def test_forked_workers_use_the_files_of_their_parent(name, length, tmp_path):
    with open_rollouts(write(World(steps=30), tmp_path / name)) as rollouts:
        data = rollouts.dataset(length, ["state", "step"])
        loader = DataLoader(
            data, batch_size=8, num_workers=2, multiprocessing_context="fork", timeout=PATIENCE_S
        )
        batches = list(loader)
        for key in ("state", "step"):
            wanted = torch.stack([data[i][key] for i in range(len(data))])
            assert same(torch.cat([batch[key] for batch in batches]).numpy(), wanted.numpy())


def test_a_forked_worker_opens_nothing_itself(tmp_path, monkeypatch):
    with open_rollouts(write(World(steps=20), tmp_path / "run")) as rollouts:
        rows = rollouts.dataset(channels=["state"])
        copy = pickle.loads(pickle.dumps(rows))
        monkeypatch.setattr("mjlab_rec.data.dataset.open_rollouts", None)
        monkeypatch.setattr("os.getpid", lambda: -5)
        assert rows[3]["state"].shape == (2,)
        with pytest.raises(TypeError):
            copy[3]


def test_a_missing_path_imports_no_heavy_package():
    code = (
        "import sys, mjlab_rec.data.rollouts, mjlab_rec.data.episodes\n"
        "print({'h5py', 'polars', 'torch', 'mujoco'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
