"""The contract of all formats: everything reads back, and other files are not changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_worlds import LoggedEpisode, World, same

from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.formats import formats, writer_class
from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Writer, WriterOptions
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import Block, ChannelSpec, DataError, Episode, RunInfo


@dataclass(kw_only=True)
class Kind:
    """A format and its features."""

    format: str
    path: str = ""
    by_episode: bool = False
    flushes: bool = True  # whether data can be read before it is closed
    appends: bool = True
    rolls_over: bool = False  # to numbered parts
    renumbers: bool = False  # whether appended episodes are renumbered
    models: bool = True


KINDS = {
    "memory": Kind(format="memory", appends=False),
    "csv": Kind(
        format="csv", path="rollout.csv", rolls_over=True, renumbers=True, models=False
    ),
    "npz folder": Kind(format="npz", path="rollout", by_episode=True, renumbers=True),
    "npz file": Kind(
        format="npz", path="rollout.npz", by_episode=True, flushes=False, appends=False,
        rolls_over=True,
    ),
    "parquet": Kind(
        format="parquet", path="rollout.parquet", by_episode=True, flushes=False, renumbers=True
    ),
    "hdf5": Kind(format="hdf5", path="rollout.h5", rolls_over=True, renumbers=True),
    "hdf5 by episodes": Kind(
        format="hdf5", path="rollout.h5", by_episode=True, rolls_over=True, renumbers=True
    ),
    "robomimic": Kind(format="robomimic", path="demos.h5", by_episode=True, renumbers=True),
}  # fmt: skip
FILES = {name: kind for name, kind in KINDS.items() if kind.path}

WORLDS = {
    "plain": {},
    "blocks of one row": {"block_rows": 1, "steps": 15},
    "partial blocks": {"partial": True},
    "no ends": {"ends": False},
    "every third step": {"every": 3, "steps": 90},
    "blocks without rows": {"every": 2, "steps": 60, "partial": True},
    "gaps": {"gaps": (1, 2, 5), "steps": 60},
    "model": {"model": True},
}


def of(kinds: dict[str, Kind]) -> Any:
    return pytest.mark.parametrize("kind", kinds.values(), ids=kinds)


def options(kind: Kind, folder: Path, **more: Any) -> WriterOptions:
    path = str(folder / kind.path) if kind.path else ""
    return WriterOptions(**{"path": path, "block_rows": 7, **more})


def make(kind: Kind, folder: Path, info: RunInfo, **more: Any) -> Writer:
    return writer_class(kind.format)(info, options(kind, folder, **more))


def fill(kind: Kind, writer: Writer, world: World) -> None:
    """Write a world, and leave the writer open."""
    for _ in pieces(kind, writer, world):
        pass


def pieces(kind: Kind, writer: Writer, world: World) -> Iterator[None]:
    assembler = EpisodeAssembler(world.info)
    for block in world.blocks():
        if kind.by_episode:
            for episode in assembler.add(block):
                writer.write_episode(episode)
        else:
            writer.write(block)
        yield
    for episode in assembler.finish() if kind.by_episode else ():
        writer.write_episode(episode)


def record(kind: Kind, folder: Path, world: World, **more: Any) -> Writer:
    writer = make(kind, folder, world.info, **more)
    fill(kind, writer, world)
    writer.close()
    return writer


def read(writer: Writer) -> Rollouts:
    if writer.options.path:
        return open_rollouts(writer.files[0])
    from mjlab_rec.data.formats.memory import MemoryReader

    return Rollouts(MemoryReader(writer))  # type: ignore[arg-type]


def check(
    kind: Kind,
    rollouts: Rollouts,
    episodes: list[LoggedEpisode],
    info: RunInfo,
) -> None:
    """Compare everything that can be read with the world."""
    assert rollouts.info.channels == info.channels
    assert (rollouts.info.envs, rollouts.info.step_dt) == (info.envs, info.step_dt)
    assert rollouts.info.every == info.every
    assert rollouts.info.about == info.about
    assert rollouts.attachments == info.attachments
    table = rollouts.episodes
    assert dict(table.schema) == {n: getattr(pl, t) for n, t in EPISODE_COLUMNS.items()}
    assert len(rollouts) == len(episodes)
    assert rollouts.rows == sum(len(episode.rows) for episode in episodes)
    episodes = sorted(episodes, key=lambda e: (e.env, e.number))
    for index, logged in enumerate(episodes):
        row = table.row(index, named=True)
        check_row(row, logged, 0, info.every)
        arrays = rollouts[index]
        assert set(arrays) == {*(spec.name for spec in info.channels), "step"}
        assert same(arrays["step"], np.array([row.step for row in logged.rows], np.int32))
        for spec in info.channels:
            values = np.stack([row.values[spec.name] for row in logged.rows])
            assert same(arrays[spec.name], values), (index, spec.name)
        model = rollouts.model(index)
        if kind.models:
            assert set(model) == set(logged.model)
            assert all(same(model[name], logged.model[name]) for name in model)


def check_row(row: dict[str, Any], logged: LoggedEpisode, offset: int, every: int) -> None:
    assert (row["env"], row["number"]) == (logged.env, logged.number + offset)
    assert row["rows"] == len(logged.rows)
    assert row["start"] == logged.rows[0].at
    assert row["length"] == logged.length
    assert row["return"] == pytest.approx(logged.total, rel=1e-9)
    assert row["recorded_return"] == pytest.approx(logged.recorded, rel=1e-9, abs=1e-12)
    ended = logged.terminated, logged.truncated
    assert (row["terminated"], row["truncated"]) == ended
    assert row["cut"] is not any(ended)
    assert row["success"] is logged.success
    assert row["partial"] is logged.partial(every)


# -- reading back ---------------------------------------------------------------------------------


@of(KINDS)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_everything_reads_back(kind, world, tmp_path):
    world = World(**world)
    with read(record(kind, tmp_path, world)) as rollouts:
        check(kind, rollouts, world.episodes, world.info)
        if not kind.by_episode:
            assert rollouts.gaps == world.lost


@of({n: k for n, k in KINDS.items() if k.by_episode or n == "csv"})
@pytest.mark.parametrize("activity", ["rows", "episodes"])
def test_only_active_rows_are_written(kind, activity, tmp_path):
    world = World(activity=activity, partial=True)
    with read(record(kind, tmp_path, world)) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of(KINDS)
def test_an_empty_recording_can_be_opened(kind, tmp_path):
    world = World(steps=0)
    with read(record(kind, tmp_path, world)) as rollouts:
        check(kind, rollouts, [], world.info)
        assert rollouts.arrays("action").shape == (0, 2)
        assert "Channels" in rollouts.summary()


@of({n: k for n, k in FILES.items()})
def test_a_recording_can_be_read_while_it_is_being_written(kind, tmp_path):
    world = World(ends=True, steps=30, block_rows=5)
    writer = make(kind, tmp_path, world.info, block_rows=5)
    seen = 0
    for _ in pieces(kind, writer, world):
        if kind.flushes:
            with open_rollouts(writer.files[0]) as rollouts:
                if kind.by_episode:
                    known = [e for e in world.episodes if e.rows]
                    assert len(rollouts) == len(known)
                else:
                    assert rollouts.rows == len(world.rows)
                seen = rollouts.rows
    writer.close()
    assert seen > 0 or not kind.flushes
    with read(writer) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of({n: k for n, k in FILES.items() if not k.by_episode})
def test_formats_of_blocks_also_write_whole_episodes(kind, tmp_path):
    check_by_episode(replace(kind, by_episode=True, renumbers=False), tmp_path)


def check_by_episode(kind: Kind, folder: Path) -> None:
    world = World()
    with read(record(kind, folder, world)) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of({n: k for n, k in KINDS.items() if k.by_episode and n != "hdf5 by episodes"})
def test_formats_of_episodes_refuse_blocks(kind, tmp_path):
    world = World()
    writer = make(kind, tmp_path, world.info)
    with pytest.raises(DataError, match="writes whole episodes only"):
        writer.write(next(world.blocks()))
    writer.close()


@of(FILES)
def test_files_and_their_size_are_known(kind, tmp_path):
    world = World()
    writer = record(kind, tmp_path, world)
    assert writer.files == [tmp_path / kind.path]
    found = [f for f in tmp_path.rglob("*") if f.is_file()]
    on_disk = sum(f.stat().st_size for f in found)
    assert 0.5 * on_disk <= writer.nbytes <= 1.1 * on_disk
    assert not [f for f in found if f.name.startswith(".")], "temporary files are left"


@of(FILES)
def test_nothing_is_pickled(kind, tmp_path):
    record(kind, tmp_path, World())
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"numpy.core" not in file.read_bytes()
            assert b"numpy._core" not in file.read_bytes()


# -- options ---------------------------------------------------------------------------------------


@of(FILES)
def test_every_compression_reads_back(kind, tmp_path):
    for compression in writer_class(kind.format).compressions:
        world = World()
        folder = tmp_path / compression
        with read(record(kind, folder, world, compression=compression)) as rollouts:
            check(kind, rollouts, world.episodes, world.info)


@of(KINDS)
def test_an_unknown_compression_is_refused_before_anything_is_written(kind, tmp_path):
    with pytest.raises(ValueError, match="Unknown compression 'rar' for .*. Possible: "):
        make(kind, tmp_path, World().info, compression="rar")
    assert list(tmp_path.iterdir()) == []


@of(FILES)
def test_existing_files_are_kept_and_the_error_says_what_to_do(kind, tmp_path):
    world = World()
    record(kind, tmp_path, world)
    with pytest.raises(DataError, match="already exists.*overwrite.*number") as caught:
        make(kind, tmp_path, World().info)
    assert ("'append'" in str(caught.value)) == kind.appends
    with open_rollouts(tmp_path / kind.path) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of(FILES)
def test_overwriting_replaces_all_parts(kind, tmp_path):
    record(kind, tmp_path, World(steps=100), roll_over_bytes=2000)
    world = World(seed=1)
    with read(record(kind, tmp_path, world, if_exists="overwrite")) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of(FILES)
def test_numbering_takes_the_next_free_name(kind, tmp_path):
    worlds = [World(seed=seed) for seed in range(3)]
    writers = [record(kind, tmp_path, world, if_exists="number") for world in worlds]
    assert len({writer.files[0] for writer in writers}) == 3
    for world, writer in zip(worlds, writers, strict=True):
        with read(writer) as rollouts:
            check(kind, rollouts, world.episodes, world.info)


@of({n: k for n, k in FILES.items() if k.appends})
def test_appended_episodes_come_after_the_old_ones(kind, tmp_path):
    old, new = World(), World(seed=1, model=kind.models)
    record(kind, tmp_path, old)
    record(kind, tmp_path, new, if_exists="append")
    with open_rollouts(tmp_path / kind.path) as rollouts:
        assert len(rollouts) == len(old.episodes) + len(new.episodes)
        assert rollouts.rows == len(old.rows) + len(new.rows)
        offset = 1 + max(e.number for e in old.episodes) if kind.renumbers else 0
        wanted = [(0, e) for e in old.episodes] + [(offset, e) for e in new.episodes]
        found = {rollouts.read(i, ["state"])["state"].tobytes(): i for i in range(len(rollouts))}
        for shift, logged in wanted:
            values = np.stack([row.values["state"] for row in logged.rows])
            row = rollouts.episodes.row(found.pop(values.tobytes()), named=True)
            check_row(row, logged, shift, 1)
        assert not found


@of({n: k for n, k in FILES.items() if k.appends})
def test_appending_to_nothing_creates_a_recording(kind, tmp_path):
    world = World()
    with read(record(kind, tmp_path, world, if_exists="append")) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of({n: k for n, k in FILES.items() if k.renumbers})
def test_appending_other_channels_is_refused_and_changes_nothing(kind, tmp_path):
    world = World()
    record(kind, tmp_path, world)
    specs = world.info.channels
    torque = ChannelSpec(name="torque", dtype=np.dtype("float32"))
    double = replace(specs[4], dtype=np.dtype("float64"))
    for channels, reported in {
        (*specs, torque): "new: torque",
        (*specs[:6], *specs[7:]): "missing now: timestamp",
        tuple(double if spec is specs[4] else spec for spec in specs): "changed: action",
    }.items():
        with pytest.raises(DataError, match=f"Cannot append to .*{reported}"):
            make(kind, tmp_path, replace(world.info, channels=channels), if_exists="append")
    with pytest.raises(DataError, match="its step_dt is 0.02, not 0.01"):
        make(kind, tmp_path, replace(world.info, step_dt=0.01), if_exists="append")
    with open_rollouts(tmp_path / kind.path) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of({n: k for n, k in FILES.items() if k.rolls_over})
def test_a_run_rolls_over_to_numbered_parts(kind, tmp_path):
    world = World(steps=120)
    writer = record(kind, tmp_path, world, roll_over_bytes=4000)
    path = Path(kind.path)
    assert len(writer.files) > 2
    assert writer.files[1] == tmp_path / f"{path.stem}.part001{path.suffix}"
    with open_rollouts(tmp_path / kind.path) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@of(FILES)
def test_two_writers_cannot_share_a_path(kind, tmp_path):
    info = World().info
    first = make(kind, tmp_path, info)
    with pytest.raises(DataError, match="being written by another recorder"):
        make(kind, tmp_path, info, if_exists="overwrite")
    first.close()


# -- csv -------------------------------------------------------------------------------------------

CSV = KINDS["csv"]


def episode(info: RunInfo, **arrays: Any) -> Episode:
    """An episode of a few rows."""
    values = {name: np.asarray(array) for name, array in arrays.items()}
    rows = len(next(iter(values.values())))
    return Episode(
        env=info.envs[0], number=0, start=0, length=rows, total=1.0, recorded=1.0,
        terminated=False, truncated=True, success=None, partial=False,
        arrays={**values, "step": np.arange(rows, dtype=np.int32)},
    )  # fmt: skip


def small(*channels: ChannelSpec) -> RunInfo:
    return RunInfo(channels=channels, envs=(4,), step_dt=0.1)


def test_csv_is_a_readable_table(tmp_path):
    info = small(
        ChannelSpec(name="obs", dtype=np.dtype("float32"), shape=(2,), elements=("x", "a,b")),
        ChannelSpec(name="grid", dtype=np.dtype("uint8"), shape=(1, 2)),
        ChannelSpec(name="truncated", dtype=np.dtype("bool")),
    )
    writer = make(CSV, tmp_path, info)
    obs = np.array([[0.1, -0.0], [np.nan, np.inf], [1e-45, -np.inf], [1, 2]], np.float32)
    grid = np.arange(8, dtype=np.uint8).reshape(4, 1, 2)
    writer.write_episode(
        episode(info, obs=obs, grid=grid, truncated=np.array([False, False, False, True]))
    )
    writer.close()
    assert (tmp_path / "rollout.csv").read_text().splitlines() == [
        'time,env,episode,step,obs[x],"obs[a,b]","grid[0,0]","grid[0,1]",truncated',
        "0.0,4,0,0,0.1,-0.0,0,1,false",
        "0.1,4,0,1,NaN,inf,2,3,false",
        "0.2,4,0,2,1e-45,-inf,4,5,false",
        "0.3,4,0,3,1.0,2.0,6,7,true",
    ]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_csv_numbers_read_back_bit_for_bit(dtype, tmp_path):
    info = small(ChannelSpec(name="x", dtype=np.dtype(dtype)))
    raw = np.random.default_rng(0).bytes(20_000 * np.dtype(dtype).itemsize)
    values = np.frombuffer(raw, dtype)
    writer = make(CSV, tmp_path, info)
    writer.write_episode(episode(info, x=values))
    writer.close()
    with read(writer) as rollouts:
        assert same(rollouts[0]["x"], values)


def test_csv_rows_are_in_the_order_of_time_then_environment(tmp_path):
    world = World()
    writer = record(CSV, tmp_path, world)
    table = pl.read_csv(writer.files[0])
    logged = [(row.env, row.number, row.step) for row in world.rows]
    assert table.select("env", "episode", "step").rows() == logged
    assert table["time"].to_list() == pytest.approx([row.step * 0.02 for row in world.rows])


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_csv_an_incomplete_last_line_is_skipped_and_removed_by_appending(kept, tmp_path):
    world = World()
    (file,) = record(CSV, tmp_path, world).files
    whole = file.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    file.write_bytes(whole[: last + kept])
    with open_rollouts(file) as rollouts:
        assert rollouts.rows == len(world.rows) - 1
    new = World(seed=1)
    record(CSV, tmp_path, new, if_exists="append")
    with open_rollouts(file) as rollouts:
        assert rollouts.rows == len(world.rows) - 1 + len(new.rows)


@pytest.mark.parametrize("kept", [0, 10])
def test_csv_with_an_incomplete_header_is_empty_and_can_be_appended_to(kept, tmp_path):
    world = World()
    (file,) = record(CSV, tmp_path, World(steps=0)).files
    file.write_bytes(file.read_bytes()[:kept])
    with open_rollouts(file) as rollouts:
        assert len(rollouts) == 0
    with read(record(CSV, tmp_path, world, if_exists="append")) as rollouts:
        check(CSV, rollouts, world.episodes, world.info)


def test_csv_without_its_description_opens_with_guessed_types(tmp_path):
    world = World(special=False)
    (file,) = record(CSV, tmp_path, world).files
    file.with_name("rollout.csv.json").unlink()
    with open_rollouts(file) as rollouts:
        channels = rollouts.channels
        assert channels["obs/actor"].elements == channels["next_obs/actor"].elements
        assert channels["obs/actor"].elements == ("slider, x", "hinge[0]", 'say "hi"')
        assert channels["file"].dtype == np.int64
        assert channels["terminated"].dtype == bool
        assert channels["camera"].shape == (4,)
        assert rollouts.info.step_dt == pytest.approx(0.02)
        episodes = sorted(world.episodes, key=lambda e: (e.env, e.number))
        for arrays, logged in zip(rollouts, episodes, strict=True):
            values = np.stack([row.values["obs/actor"] for row in logged.rows])
            assert same(arrays["obs/actor"].astype(np.float32), values)


def test_csv_without_rewards_and_flags_has_null_in_the_table(tmp_path):
    info = small(ChannelSpec(name="x", dtype=np.dtype("int32")))
    writer = make(CSV, tmp_path, info)
    writer.write_episode(episode(info, x=np.arange(3, dtype=np.int32)))
    writer.close()
    (tmp_path / "rollout.episodes.csv").unlink()
    with read(writer) as rollouts:
        row = rollouts.episodes.row(0, named=True)
        assert row == dict.fromkeys(EPISODE_COLUMNS) | {
            "env": 4, "number": 0, "rows": 3, "length": 3,
        }  # fmt: skip


@pytest.mark.parametrize("activity", ["rows", "all"])
@pytest.mark.parametrize("by_episode", [False, True])
def test_csv_without_its_table_of_episodes_computes_it_from_the_rows(
    by_episode, activity, tmp_path
):
    world = World(activity=activity)
    writer = record(replace(CSV, by_episode=by_episode), tmp_path, world)
    (tmp_path / "rollout.episodes.csv").unlink()
    complete = activity == "all"
    with read(writer) as rollouts:
        episodes = sorted(world.episodes, key=lambda e: (e.env, e.number))
        for row, logged in zip(rollouts.episodes.to_dicts(), episodes, strict=True):
            assert row["start"] is row["success"] is row["partial"] is None
            last = logged.rows[-1].values
            over = last["terminated"] or last["truncated"]
            known = over or complete
            whole = known and len(logged.rows) == logged.rows[-1].step + 1
            assert row["length"] == (logged.rows[-1].step + 1 if known else None)
            assert row["return"] == (pytest.approx(logged.total, abs=1e-5) if whole else None)
            assert row["recorded_return"] == pytest.approx(logged.recorded, abs=1e-5)
            for flag in ("terminated", "truncated"):
                assert row[flag] == (bool(last[flag]) or (False if complete else None))
            assert row["cut"] == (not over if known else None)


def test_csv_that_is_not_a_recording_is_refused(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("day,price\n1,2\n")
    with pytest.raises(DataError, match="no column time, env, episode, step. Its columns are: day"):
        open_rollouts(file)
    file.write_text("time,env,episode,step,name\n0.0,0,0,0,bob\n")
    with pytest.raises(DataError, match="not all values of 'name' are numbers"):
        open_rollouts(file)


def test_csv_that_was_edited_says_which_description_to_remove(tmp_path):
    (file,) = record(CSV, tmp_path, World()).files
    file.write_text(file.read_text().replace("action[left]", "push"))
    with pytest.raises(DataError, match="remove 'rollout.csv.json'"):
        open_rollouts(file)


def test_csv_does_not_replace_another_file_with_the_name_of_its_description(tmp_path):
    other = tmp_path / "rollout.csv.json"
    other.write_text('{"mine": 1}')
    with pytest.raises(DataError, match="rollout.csv.json' exists and is not part of a recording"):
        make(CSV, tmp_path, World().info)
    assert json.loads(other.read_text()) == {"mine": 1}


@pytest.mark.parametrize("name", ["time", "env", "episode", "step"])
def test_csv_channels_cannot_take_the_names_of_its_own_columns(name, tmp_path):
    info = small(ChannelSpec(name=name, dtype=np.dtype("float32")))
    with pytest.raises(DataError, match=f"cannot be called '{name}'.*Rename"):
        make(CSV, tmp_path, info)
    assert list(tmp_path.iterdir()) == []


# -- npz and parquet -------------------------------------------------------------------------------


def test_npz_of_an_episode_opens_with_numpy_alone(tmp_path):
    world = World(model=True)
    (folder,) = record(KINDS["npz folder"], tmp_path, world).files
    with np.load(folder / "episode_000000.npz", allow_pickle=False) as arrays:
        rows = world.episodes[0].rows
        assert same(arrays["file"], np.stack([row.values["file"] for row in rows]))
        assert arrays["step"].tolist() == [row.step for row in rows]
        assert same(arrays["model_fields/gravity"], world.episodes[0].model["gravity"])
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [e.number for e in world.episodes]
    assert (folder / "attachments" / "notes.txt").read_bytes() == b"hello"


def test_npz_single_file_opens_with_numpy_alone(tmp_path):
    world = World()
    (file,) = record(KINDS["npz file"], tmp_path, world).files
    with np.load(file, allow_pickle=False) as arrays:
        assert len(arrays["action"]) == len(world.rows) == arrays["episodes/rows"].sum()
        assert arrays["episodes/length"].tolist() == [e.length for e in world.episodes]


def test_npz_removed_episodes_are_skipped(tmp_path):
    world = World()
    (folder,) = record(KINDS["npz folder"], tmp_path, world).files
    (folder / "episode_000001.npz").unlink()
    with open_rollouts(folder) as rollouts:
        check(KINDS["npz folder"], rollouts, world.episodes[:1] + world.episodes[2:], world.info)


def test_npz_killed_in_the_middle_of_an_episode_loses_only_that(tmp_path):
    world, kind = World(), KINDS["npz folder"]
    (folder,) = record(kind, tmp_path, world).files
    last = max(folder.glob("*.npz"))
    last.unlink()
    (folder / f".{last.name}.tmp").write_bytes(b"half")
    with open(folder / "episodes.jsonl", "a") as stream:
        stream.write('{"file": "episo')
    with open_rollouts(folder) as rollouts:
        check(kind, rollouts, world.episodes[:-1], world.info)
    new = World(seed=1)
    record(kind, tmp_path, new, if_exists="append")
    with open_rollouts(folder) as rollouts:
        assert rollouts.rows == sum(len(e.rows) for e in world.episodes[:-1] + new.episodes)


def test_npz_single_file_cannot_be_appended_to(tmp_path):
    with pytest.raises(DataError, match="cannot be appended to. Omit .npz"):
        make(KINDS["npz file"], tmp_path, World().info, if_exists="append")


@pytest.mark.parametrize("name", ["step", "model_fields/mass", "episodes/rows"])
def test_npz_reserved_names_are_refused(name, tmp_path):
    info = small(ChannelSpec(name=name, dtype=np.dtype("float32")))
    with pytest.raises(DataError, match=f"cannot be called '{name}'"):
        make(KINDS["npz folder"], tmp_path, info)


def test_npz_attachments_cannot_leave_the_folder(tmp_path):
    info = replace(World().info, attachments={"../evil": b"x"})
    with pytest.raises(DataError, match="cannot be called '../evil'"):
        make(KINDS["npz folder"], tmp_path, info)


@pytest.mark.parametrize("kind", ["npz folder", "parquet"])
def test_a_folder_that_is_not_a_recording_is_left_alone(kind, tmp_path):
    folder = tmp_path / KINDS[kind].path
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is not a recording.*not changed"):
        make(KINDS[kind], tmp_path, World().info, if_exists="overwrite")
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_parquet_folder_reads_as_one_table_of_contiguous_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.parquet.PART_ROWS", 20)
    world = World(steps=80)
    world.info.step_dt = 0.1  # three times this is a little more than 0.3
    (folder,) = record(KINDS["parquet"], tmp_path, world).files
    assert len(list(folder.glob("part-*.parquet"))) > 3
    table = pl.read_parquet(folder)
    logged = [(e.env, e.number, row.step) for e in world.episodes for row in e.rows]
    assert table.select("env", "episode", "step").rows() == logged
    assert table["time"].to_list() == [round(step * 0.1, 9) for _, _, step in logged]
    camera = np.stack([row.values["camera"] for e in world.episodes for row in e.rows])
    assert same(table["camera"].to_numpy(), camera)
    with open_rollouts(folder) as rollouts:
        check(KINDS["parquet"], rollouts, world.episodes, world.info)


def test_parquet_reads_uncached_columns_from_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("mjlab_rec.data.formats.parquet_reader.CACHE_BYTES", 0)
    world = World(steps=40)
    with read(record(KINDS["parquet"], tmp_path, world)) as rollouts:
        check(KINDS["parquet"], rollouts, world.episodes, world.info)


def test_parquet_parts_are_written_when_they_are_full(tmp_path):
    world = World(steps=80)
    writer = make(KINDS["parquet"], tmp_path, world.info, roll_over_bytes=3000)
    seen = set()
    for _ in pieces(KINDS["parquet"], writer, world):
        with open_rollouts(writer.files[0]) as rollouts:
            seen.add(len(rollouts))
    writer.close()
    assert len(seen) > 3


@pytest.mark.parametrize("name", ["npz folder", "npz file", "parquet"])
def test_gaps_are_stored(name, tmp_path):
    kind = KINDS[name]
    for session in range(1 + kind.appends):
        writer = make(kind, tmp_path, World().info, if_exists="append" if session else "error")
        writer.gaps = 5  # type: ignore[attr-defined]
        writer.close()
        with open_rollouts(tmp_path / kind.path) as rollouts:
            assert rollouts.gaps == 5 * (session + 1)


def test_writers_are_found_by_name_and_an_unknown_one_gets_a_suggestion():
    assert {f.name for f in formats()} >= {"csv", "npz", "parquet"}
    with pytest.raises(ValueError, match="Unknown format 'parket'. Did you mean 'parquet'"):
        writer_class("parket")


def test_a_block_without_rows_changes_nothing(tmp_path):
    world = World(steps=0)
    (block,) = world.blocks()
    assert isinstance(block, Block) and block.rows == 0
    writer = make(CSV, tmp_path, world.info)
    before = writer.files[0].read_bytes()
    writer.write(block)
    assert writer.files[0].read_bytes() == before
    writer.close()
