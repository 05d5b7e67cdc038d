"""Recordings in HDF5 and in memory read back every step."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from long_runs import some_long
from waiting import PATIENCE_S

from mjlab_rec.data.formats import hdf5_layout
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader, Hdf5Writer
from mjlab_rec.data.formats.hdf5_file import RawFile
from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import (
    Block,
    ChannelSpec,
    DataError,
    Ends,
    Episode,
    ModelRows,
    RunInfo,
)

NUM_ENVS = 5


def channel(name, dtype, shape=(), **kwargs):
    return ChannelSpec(name=name, dtype=np.dtype(dtype), shape=shape, **kwargs)


def make_info(chained=True, every=1, about=None) -> RunInfo:
    channels = [
        channel("obs/actor", np.float32, (3,), when="before"),
        channel("time", np.float64, when="before"),
        channel("action", np.float32, (2,), elements=("slide", "hinge")),
        channel("reward", np.float32),
        channel("terminated", bool),
    ]
    if chained:
        channels.append(channel("next_obs/actor", np.float32, (3,), next_of="obs/actor"))
    return RunInfo(
        channels=tuple(channels),
        envs=tuple(10 * env_index for env_index in range(NUM_ENVS)),
        step_dt=0.02,
        every=every,
        about=about or {"task": "Made-Up"},
        attachments={"model.mjb": b"\x00\x01model\x00"},
    )


@dataclass
class Log:
    """The steps of one episode, as a simple log."""

    env: int
    number: int
    began: int
    rows: list = field(default_factory=list)  # (step in episode, {channel: value})
    steps: int = 0
    total: float = 0.0
    end: tuple = (False, False, None)
    ended: bool = False
    recorded: float = 0.0
    due: int = 0  # rows without skipped ones

    @property
    def partial(self) -> bool:
        return len(self.rows) < self.due


class World:
    """Environments that step, end and are cut at random, as blocks and as a log."""

    def __init__(self, info: RunInfo, rows: int, seed: int = 0) -> None:
        self.info, self.rows = info, rows
        self.rng = np.random.default_rng(seed)
        self.num_envs = len(info.envs)
        self.clock = np.full(self.num_envs, 100)
        self.count = 100
        self.logs = [Log(env, 0, 100) for env in info.envs]
        self.done: list[Log] = []
        self.obs = self.fresh(self.num_envs)
        self.counter = 0

    def fresh(self, n: int) -> np.ndarray:
        values = self.rng.normal(size=(n, 3)).astype(np.float32)
        values[self.rng.random((n, 3)) < 0.05] = np.nan
        values[self.rng.random((n, 3)) < 0.05] = np.inf
        return values

    def block(self, rows: int | None = None, p_end: float = 0.2, lose: bool = False) -> Block:
        info, every = self.info, self.info.every
        rows = self.rows if rows is None else rows
        arrays = {
            spec.name: np.full((rows, self.num_envs, *spec.shape), 77, spec.dtype)
            for spec in info.stored
        }
        first_episode = np.array([log.number for log in self.logs], np.int32)
        first_step = np.array([self.count - log.began for log in self.logs], np.int32)
        steps, ends, finals = [], [], []
        for row in range(rows):
            steps.append(self.count)
            for sub in range(every):
                action = self.rng.normal(size=(self.num_envs, 2)).astype(np.float32)
                reward = self.rng.normal(size=self.num_envs).astype(np.float32)
                following = self.fresh(self.num_envs)
                fate = self.rng.random(self.num_envs)
                terminated = fate < p_end / 2
                truncated = (fate >= p_end / 2) & (fate < p_end)
                cut = self.rng.random(self.num_envs) < p_end / 4
                values = {
                    "obs/actor": self.obs.copy(),
                    "time": np.array([0.02 * (self.count - log.began) for log in self.logs]),
                    "action": action,
                    "reward": reward,
                    "terminated": terminated,
                }
                if sub == 0:
                    for name, value in values.items():
                        arrays[name][row] = value
                final = following.copy()
                for env_index, log in enumerate(self.logs):
                    if sub == 0:
                        kept = {name: value[env_index] for name, value in values.items()}
                        kept["next_obs/actor"] = final[env_index]
                        log.due += 1
                        if not lose:
                            log.rows.append((self.count - log.began, kept))
                            log.recorded += float(reward[env_index])
                    log.steps += 1
                    log.total += float(reward[env_index])
                self.count += 1
                over = terminated | truncated | cut
                for env_index in np.flatnonzero(over):
                    log = self.logs[env_index]
                    success = [None, True, False][int(self.rng.integers(3))]
                    log.end = (bool(terminated[env_index]), bool(truncated[env_index]), success)
                    log.ended = True
                    code = -1 if success is None else int(success)
                    ends.append(
                        (env_index, row, log.number, self.count, log.steps, log.total)
                        + (len(log.rows), log.recorded, *log.end[:2], code)
                    )
                    finals.append(final[env_index])
                    self.done.append(log)
                    self.logs[env_index] = Log(log.env, log.number + 1, self.count)
                    following[env_index] = self.fresh(1)
                self.obs = following
        columns = list(zip(*ends, strict=True)) if ends else [()] * 11
        types = (np.int32, np.int32, np.int32, np.int64, np.int32, np.float64)
        types += (np.int32, np.float64, bool, bool, np.int8)
        names = ("env_index", "row", "episode", "at", "length", "total")
        names += ("rows", "recorded", "terminated", "truncated")
        table = {
            name: np.array(column, dtype)
            for name, column, dtype in zip((*names, "success"), columns, types, strict=True)
        }
        chained = {name: np.zeros((0, 3), np.float32) for name in info.chained}
        if finals and info.chained:
            chained = {name: np.stack(finals) for name in info.chained}
        return Block(
            info=info,
            rows=rows,
            arrays=arrays,
            tail={name: self.obs.copy() for name in info.chained},
            step=np.array(steps, np.int64),
            first_episode=first_episode,
            first_step=first_step,
            total=np.array([log.total for log in self.logs]),
            recorded=np.array([log.recorded for log in self.logs]),
            ends=Ends(**table, final=chained),
        )

    def cut(self, env_index: int) -> tuple:
        """End an environment's episode from outside, between two rows."""
        log = self.logs[env_index]
        self.done.append(log)
        log.ended = True
        self.logs[env_index] = Log(log.env, log.number + 1, self.count)
        final = self.obs[env_index].copy()
        self.obs[env_index] = self.fresh(1)
        return log, final

    def episodes(self) -> list[Log]:
        """All episodes that have rows, in the order of the table."""
        logs = [log for log in (*self.done, *self.logs) if log.rows]
        return sorted(logs, key=lambda log: (log.env, log.number))


def poison(block: Block) -> None:
    for array in (*block.arrays.values(), *block.tail.values(), *block.ends.final.values()):
        array[...] = 1
    for array in (block.step, block.first_episode, block.first_step, block.total, block.recorded):
        array[...] = -9
    for name in ("env_index", "row", "episode", "at", "length", "total", "rows", "recorded"):
        getattr(block.ends, name)[...] = -9


def check(reader, logs: list[Log], info: RunInfo) -> None:
    table = reader.episodes.to_dicts()
    assert [(e["env"], e["number"]) for e in table] == [(log.env, log.number) for log in logs]
    names = [spec.name for spec in info.channels]
    for index, (row, log) in enumerate(zip(table, logs, strict=True)):
        assert row["rows"] == len(log.rows)
        assert row["start"] == log.began + log.rows[0][0]
        assert (row["terminated"], row["truncated"]) == log.end[:2]
        assert row["cut"] == (not any(log.end[:2]))
        assert row["success"] is log.end[2]
        assert row["return"] == pytest.approx(log.total)
        assert row["recorded_return"] == pytest.approx(log.recorded)
        if log.ended or info.every == 1:
            assert row["length"] == log.steps
            assert row["partial"] is log.partial
        arrays = reader.read(index, ["step", *names])
        assert arrays["step"].tolist() == [step for step, _ in log.rows]
        for name in names:
            expected = np.stack([values[name] for _, values in log.rows])
            assert arrays[name].dtype == expected.dtype
            np.testing.assert_array_equal(arrays[name], expected, err_msg=name)


def writer_and_reader(kind, tmp_path: Path, info, rows, **options):
    if kind == "memory":
        writer = MemoryWriter(info, WriterOptions(block_rows=rows))
        return writer, lambda: MemoryReader(writer)
    path = tmp_path / "runs" / "rollout.h5"
    writer = Hdf5Writer(info, WriterOptions(path=str(path), block_rows=rows, **options))
    return writer, lambda: Hdf5Reader(path)


KINDS = pytest.mark.parametrize(
    "kind, options",
    [
        ("memory", {}),
        ("hdf5", {}),
        ("hdf5", {"compression": "gzip"}),
        ("hdf5", {"compression": "lzf"}),
        ("hdf5", {"roll_over_bytes": 100_000}),
    ],
)


@KINDS
@pytest.mark.parametrize(
    "chained, every, p_end",
    [(True, 1, 0.03), (False, 3, 0.6), some_long(True, 1, 0.6), some_long(False, 3, 0.03)],
)
def test_every_step_is_read_back(kind, options, chained, every, p_end, tmp_path):
    info = make_info(chained, every)
    world = World(info, rows=8)
    writer, reader = writer_and_reader(kind, tmp_path, info, 8, **options)
    for number in range(40):
        block = world.block(rows=3 if number % 7 == 2 else None, p_end=p_end)
        writer.write(block)
        poison(block)
    check(reader(), world.episodes(), info)  # while it is being written
    writer.close()
    again = reader()
    check(again, world.episodes(), info)
    assert again.info.to_json() == info.to_json()
    assert again.info.attachments == info.attachments
    assert again.gaps == 0
    again.close()
    again.close()
    if "roll_over_bytes" in options:
        assert all(file.exists() for file in writer.files)
        sizes = sum(file.stat().st_size for file in writer.files)
        assert writer.nbytes == pytest.approx(sizes, rel=0.1)


@KINDS
def test_rows_around_dropped_blocks_keep_their_steps(kind, options, tmp_path):
    info = make_info()
    world = World(info, rows=8)
    writer, reader = writer_and_reader(kind, tmp_path, info, 8, **options)
    writer.write(world.block(p_end=0))
    world.block(p_end=0, lose=True)
    after = world.block(p_end=0)
    after.gap = 8
    writer.write(after)
    writer.close()
    check(reader(), world.episodes(), info)
    assert reader().gaps == 8
    assert reader().read(0, ["step"])["step"].tolist() == [*range(8), *range(16, 24)]


@KINDS
def test_an_episode_cut_between_blocks_ends_with_the_rows_it_had(kind, options, tmp_path):
    info = make_info()
    world = World(info, rows=4)
    writer, reader = writer_and_reader(kind, tmp_path, info, 4, **options)
    writer.write(world.block(p_end=0))
    log, final = world.cut(2)
    block = world.block(p_end=0)
    one = {"env_index": [2], "row": [-1], "episode": [0], "at": [104], "length": [4]}
    one |= {"rows": [4], "recorded": [log.recorded]}
    one |= {"total": [log.total], "terminated": [False], "truncated": [False], "success": [-1]}
    block.ends = Ends(
        **{name: np.array(value) for name, value in one.items()},
        final={"obs/actor": final[None]},
    )
    writer.write(block)
    writer.close()
    check(reader(), world.episodes(), info)


@KINDS
def test_model_fields_are_valid_from_their_episode_on(kind, options, tmp_path):
    info = make_info()
    world = World(info, rows=4)
    writer, reader = writer_and_reader(kind, tmp_path, info, 4, **options)
    for number in range(6):
        block = world.block(p_end=0.5)
        if number == 0:
            env_indices, episodes = np.arange(NUM_ENVS), np.zeros(NUM_ENVS, int)
        else:
            mine = block.ends.episode % 2 == 1  # every second episode keeps its predecessor's
            env_indices, episodes = block.ends.env_index[mine], block.ends.episode[mine] + 1
        friction = (100 * env_indices + episodes).astype(np.float32)[:, None] * np.ones(
            3, np.float32
        )
        if number == 0:
            begun = block.ends.episode % 2 == 1
            env_indices = np.append(env_indices, block.ends.env_index[begun]).astype(np.int32)
            episodes = np.append(episodes, block.ends.episode[begun] + 1).astype(np.int32)
            friction = (100 * env_indices + episodes).astype(np.float32)[:, None] * np.ones(
                3, np.float32
            )
        block.model = ModelRows(
            env_index=env_indices.astype(np.int32),
            episode=episodes.astype(np.int32),
            fields={"geom_friction": friction},
        )
        writer.write(block)
    writer.close()
    opened = reader()
    for index, row in enumerate(opened.episodes.to_dicts()):
        expected = 100 * (row["env"] // 10) + row["number"] // 2 * 2
        assert opened.model(index)["geom_friction"].tolist() == [expected] * 3


@KINDS
def test_values_that_recorders_add_to_an_end_are_a_column(kind, options, tmp_path):
    info = make_info()
    world = World(info, rows=4)
    writer, reader = writer_and_reader(kind, tmp_path, info, 4, **options)
    expected = {}
    for number in range(4):
        block = world.block(p_end=0.3)
        if number:  # it comes late
            peak = np.arange(len(block.ends)) + 10.0 * number
            block.ends.values["peak"] = peak
            ends = zip(block.ends.env_index, block.ends.episode, peak, strict=True)
            expected |= {(10 * env_index, episode): value for env_index, episode, value in ends}
        writer.write(block)
    writer.close()
    check(reader(), world.episodes(), info)
    for row in reader().episodes.to_dicts():
        value = row["peak"]
        assert (None if value is None or np.isnan(value) else value) == expected.get(
            (row["env"], row["number"])
        )


def as_episode(log: Log) -> Episode:
    arrays = {name: np.stack([values[name] for _, values in log.rows]) for name in log.rows[0][1]}
    arrays["step"] = np.array([step for step, _ in log.rows], np.int32)
    return Episode(
        env=log.env, number=log.number, start=log.began + log.rows[0][0], length=log.steps,
        total=log.total, recorded=log.recorded, terminated=log.end[0], truncated=log.end[1],
        success=log.end[2], partial=log.partial, arrays=arrays,
        model={"body_mass": np.array([log.env, log.number], np.float64)},
    )  # fmt: skip


@KINDS
def test_chosen_episodes_are_read_back(kind, options, tmp_path):
    info = make_info()
    world = World(info, rows=8, seed=3)
    for _ in range(60):
        world.block(p_end=0.05)
    logs = world.episodes()[::4]
    for log in logs:
        log.rows = [row for row in log.rows if row[0] % 5 < 3] or log.rows[:1]  # as triggers do
    writer, reader = writer_and_reader(kind, tmp_path, info, 8, **options)
    for log in reversed(logs):
        writer.write_episode(as_episode(log))
    check(reader(), logs, info)
    writer.close()
    check(reader(), logs, info)
    opened = reader()
    for index, log in enumerate(logs):
        assert opened.model(index)["body_mass"].tolist() == [log.env, log.number]


@KINDS
def test_a_run_without_rows_has_no_episodes(kind, options, tmp_path):
    info = make_info()
    writer, reader = writer_and_reader(kind, tmp_path, info, 8, **options)
    assert reader().episodes.height == 0
    writer.close()
    assert reader().episodes.height == 0
    assert reader().info.to_json() == info.to_json()


def test_blocks_and_episodes_do_not_mix(tmp_path):
    info = make_info()
    world = World(info, rows=8)
    writer, _ = writer_and_reader("hdf5", tmp_path, info, 8)
    writer.write(world.block())
    with pytest.raises(DataError, match="but this one was given both"):
        writer.write_episode(as_episode(world.episodes()[0]))
    writer.close()


def test_appended_runs_are_separate(tmp_path):
    info = make_info()
    worlds = [World(info, rows=8, seed=seed) for seed in range(3)]
    for world in worlds:
        writer, reader = writer_and_reader("hdf5", tmp_path, info, 8, if_exists="append")
        for _ in range(3):
            writer.write(world.block(p_end=0))  # every episode stays open
        writer.close()
    names = [file.name for file in sorted((tmp_path / "runs").iterdir())]
    assert names == ["rollout.h5", "rollout.part001.h5", "rollout.part002.h5"]
    for run, world in enumerate(worlds):  # Numbers continue.
        for log in world.logs:
            log.number += run
    logs = sorted((log for w in worlds for log in w.episodes()), key=lambda x: (x.env, x.number))
    check(reader(), logs, info)


def test_a_damaged_part_does_not_affect_the_others(tmp_path, caplog):
    info = make_info()
    world = World(info, rows=8)
    writer, reader = writer_and_reader("hdf5", tmp_path, info, 8, if_exists="append")
    writer.write(world.block(p_end=0))
    writer.close()
    (tmp_path / "runs" / "rollout.part001.h5").write_bytes(b"torn")
    check(reader(), world.episodes(), info)
    assert "skipped" in caplog.text


def test_plain_h5py_reads_the_file_while_it_is_written(tmp_path):
    info = make_info(about={"cfg": "x" * 100_000})
    world = World(info, rows=8)
    writer, _ = writer_and_reader("hdf5", tmp_path, info, 8)
    block = world.block()
    writer.write(block)
    code = (
        "import h5py, numpy as np, sys\n"
        "with h5py.File(sys.argv[1], 'r') as file:\n"
        "    assert file['blocks/terminated'].dtype == bool\n"
        "    np.save(sys.argv[2], file['blocks/obs/actor'][...])\n"
    )
    read = tmp_path / "read.npy"
    subprocess.run([sys.executable, "-c", code, writer.files[0], read], check=True)
    expected = block.arrays["obs/actor"].swapaxes(0, 1)[None]
    np.testing.assert_array_equal(np.load(read), expected)
    writer.close()


def test_a_block_larger_than_block_rows_is_refused(tmp_path):
    info = make_info()
    writer, _ = writer_and_reader("hdf5", tmp_path, info, 8)
    with pytest.raises(DataError, match="9 rows.*block_rows is 8"):
        writer.write(World(info, rows=9).block())
    writer.close()


def test_unknown_channels_and_files_are_named(tmp_path):
    info = make_info()
    writer, reader = writer_and_reader("hdf5", tmp_path, info, 8)
    writer.write(World(info, rows=8).block())
    writer.close()
    with pytest.raises(DataError, match="'acton'. Did you mean 'action'"):
        reader().read(0, ["acton"])
    with pytest.raises(DataError, match="no recording at"):
        Hdf5Reader(tmp_path / "nothing.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(DataError, match="was not recorded by mjlab_rec"):
        Hdf5Reader(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="compression 'zip' for Hdf5Writer. Possible: gzip, lzf"):
        Hdf5Writer(info, WriterOptions(path=str(tmp_path / "a.h5"), compression="zip"))


NESTED = ("a", "a/b", "a/b/c", "a.b", "a.b/c", "b/a", "b")


def nested_block() -> Block:
    """Channels whose names are prefixes of others, for two environments and three rows."""
    specs = [channel(name, np.float32, (2,), when="before") for name in NESTED]
    specs += [channel(f"next_{name}", np.float32, (2,), next_of=name) for name in ("a", "a/b")]
    info = RunInfo(channels=tuple(specs), envs=(4, 7), step_dt=0.1)
    rng = np.random.default_rng(0)

    def some(*shape):
        return rng.normal(size=(*shape, 2)).astype(np.float32)

    one = {"env_index": [1], "row": [1], "episode": [0], "at": [2], "length": [2], "total": [0.5]}
    one |= {"rows": [2], "recorded": [0.5]}
    one |= {"terminated": [True], "truncated": [False], "success": [-1]}
    ends = Ends(
        **{name: np.array(value) for name, value in one.items()},
        final={name: some(1) for name in info.chained},
        values={name: np.ones(1) for name in ("sum", "sum/x", "sum.x")},
    )
    return Block(
        info=info,
        rows=3,
        arrays={name: some(3, 2) for name in NESTED},
        tail={name: some(2) for name in info.chained},
        step=np.arange(3),
        first_episode=np.zeros(2, np.int32),
        first_step=np.zeros(2, np.int32),
        total=np.zeros(2),
        recorded=np.zeros(2),
        ends=ends,
    )


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("by_episode", [False, True])
def test_channel_names_may_be_prefixes_of_others(by_episode, compression, tmp_path):
    block = nested_block()
    names = [spec.name for spec in block.info.channels]
    memory = MemoryWriter(block.info, WriterOptions(block_rows=3))
    memory.write(block)
    known = MemoryReader(memory)
    expected = [known.read(i, ["step", *names]) for i in range(3)]
    options = {"compression": compression}
    writer, reader = writer_and_reader("hdf5", tmp_path, block.info, 3, **options)
    if not by_episode:
        writer.write(block)
    for row, arrays in zip(known.episodes.to_dicts(), expected, strict=True):
        if by_episode:
            kept = {name: row[name] for name in ("env", "number", "start", "length", "success")}
            kept |= {name: row[name] for name in ("terminated", "truncated", "partial")}
            kept |= {"total": row["return"], "recorded": row["recorded_return"]}
            writer.write_episode(Episode(**kept, arrays=arrays))
    writer.close()
    opened = reader()
    for index, arrays in enumerate(expected):
        found = opened.read(index, names)
        for name in names:
            np.testing.assert_array_equal(found[name], arrays[name], err_msg=name)
    if not by_episode:
        assert {"sum", "sum/x", "sum.x"} <= set(opened.episodes.columns)


def test_no_path_is_below_another():
    paths = dataset_paths(["reward", "obs/actor/joints", "obs/actor", "obs/critic"])
    assert paths == {
        "reward": "reward",
        "obs/actor": "obs/actor",
        "obs/critic": "obs/critic",
        "obs/actor/joints": "obs/actor.joints",
    }
    keys = ["a", "b", "a.", "a.b"]
    names = ["/".join(path) for n in (1, 2, 3) for path in itertools.product(keys, repeat=n)]
    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 20) * 100:
        chosen = [str(name) for name in rng.choice(names, count, replace=False)]
        paths = dataset_paths(chosen)
        assert paths == dataset_paths(reversed(chosen))
        taken = set(paths.values())
        assert len(taken) == count
        for path in taken:
            parts = path.split("/")
            assert not taken & {"/".join(parts[:n]) for n in range(1, len(parts))}
        if not any(name.startswith(f"{other}/") for name in chosen for other in chosen):
            assert all(name == path for name, path in paths.items())


def test_writing_a_block_needs_little_memory(tmp_path):
    info = RunInfo(channels=(channel("x", np.float64, (50,)),), envs=tuple(range(600)), step_dt=0.1)
    world = World(make_info(chained=False), rows=40)
    block = world.block(p_end=0)
    block.info, block.arrays, block.tail = info, {}, {}
    block.arrays["x"] = np.random.default_rng(0).normal(size=(40, 600, 50))
    block.first_episode = block.first_step = np.zeros(600, np.int32)
    block.total = block.recorded = np.zeros(600)
    for compression in (None, "lzf"):
        path = tmp_path / f"{compression}.h5"
        writer = Hdf5Writer(
            info, WriterOptions(path=str(path), block_rows=40, compression=compression)
        )
        writer.write(block)
        assert writer._scratch.nbytes <= 4 << 20 < block.arrays["x"].nbytes
        writer.close()
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["blocks/x"][0], block.arrays["x"].swapaxes(0, 1))


@pytest.mark.parametrize("by_episode", [False, True])
@pytest.mark.parametrize("method, after", [("reserve", 0), ("write", 0), ("write", 7)])
def test_a_full_disk_loses_only_the_running_block(method, after, by_episode, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_layout, "_SMALL", 1)  # Every block needs room.
    info = make_info()
    world = World(info, rows=70)
    path = tmp_path / "a.h5"
    writer = Hdf5Writer(info, WriterOptions(path=str(path), block_rows=70))
    blocks = [world.block(p_end=0.02) for _ in range(4)]
    logs = [log for log in world.episodes() if log.ended]

    def write(number):
        if by_episode:
            writer.write_episode(as_episode(logs[number]))
        else:
            writer.write(blocks[number])

    for number in range(3):
        write(number)
    rows = sum(len(log.rows) for log in logs[:3]) if by_episode else 3 * 70 * NUM_ENVS
    size = path.stat().st_size
    usual, calls = RawFile.write, iter(range(100))

    def full(*args):
        if next(calls) >= after:
            raise OSError(28, "No space left on device")
        usual(*args)

    def half(descriptor, start, count):
        os.truncate(descriptor, start + count // 2)
        raise OSError(28, "No space left on device")

    if method == "reserve":
        monkeypatch.setattr(os, "posix_fallocate", half)
    else:
        monkeypatch.setattr(RawFile, "write", full)
    with pytest.raises(DataError) as caught:
        write(3)
    assert str(caught.value) == (
        f"Cannot write to '{path}': No space left on device. Data written before can be read."
    )
    monkeypatch.undo()
    assert method != "reserve" or path.stat().st_size == size
    with h5py.File(path, locking=False) as file:
        counted = int(file["index/blocks"]["done"].sum())
        stored = file["blocks/action"][:counted]
    reader = Hdf5Reader(path)
    assert reader.episodes["rows"].sum() == rows and not reader.finished
    reader.close()
    write(3)  # There is room again.
    writer.close()
    assert len(writer.files) == 1 + (method == "write")
    reader = Hdf5Reader(path)
    assert reader.finished and not reader.gaps
    if by_episode:
        assert len(reader.episodes) == 4
    else:
        check(reader, world.episodes(), info)
    if not by_episode:
        assert counted == 3
        expected = np.stack([block.arrays["action"].swapaxes(0, 1) for block in blocks[:3]])
        np.testing.assert_array_equal(stored, expected)


def test_writing_works_without_reserving_room(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    info = make_info()
    world = World(info, rows=8)
    writer, reader = writer_and_reader("hdf5", tmp_path, info, 8)
    writer.write(world.block())
    writer.close()
    check(reader(), world.episodes(), info)


def test_unused_rows_of_a_block_are_nan_or_zero(tmp_path):
    info = make_info()
    world = World(info, rows=8)
    writer, _ = writer_and_reader("hdf5", tmp_path, info, 8)
    writer.write(world.block())
    writer.write(world.block(rows=3))
    writer.close()
    with h5py.File(writer.files[0]) as file:
        for name in ("action", "reward"):
            assert np.isnan(file[f"blocks/{name}"][1][:, 3:]).all()
        assert not file["blocks/terminated"][1][:, 3:].any()
        assert (file["index/step"][1, 3:] == -1).all()


@pytest.mark.parametrize("limit", [1 << 14, 1 << 16, 1 << 18, 1 << 20])
def test_a_limit_on_file_sizes_does_no_harm(limit, tmp_path):
    """The process must exit normally: HDF5 is fragile after a failed write."""
    script = f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        sys.dont_write_bytecode = True  # Python would leave cut files in __pycache__.
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        from test_data_hdf5 import *
        world = World(make_info(), rows=8)
        try:
            options = WriterOptions(path={str(tmp_path / "a.h5")!r}, block_rows=8)
            writer = Hdf5Writer(world.info, options)
            for number in range(10_000):
                writer.write(world.block())
        except DataError as error:
            print(number if "number" in dir() else -1, error)
        if "writer" in dir():
            writer.close()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    count, message = ran.stdout.split(" ", 1)
    assert "a.h5': File too large. Data written" in message or "Cannot record to" in message
    assert len(message) < 250
    if int(count) > 0:
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["index/blocks"]["done"].sum() == int(count)
            assert np.isfinite(file["blocks/action"][: int(count)]).all()
        assert Hdf5Reader(tmp_path / "a.h5").episodes["rows"].sum() == 8 * NUM_ENVS * int(count)
    assert (int(count) > 0) == (limit > 1 << 16)


def test_a_short_recording_is_small(tmp_path):
    info = make_info()
    world = World(info, rows=10)
    writer, _ = writer_and_reader("hdf5", tmp_path, info, 10)
    writer.write(world.block())
    writer.close()
    assert writer.nbytes < 200_000
