"""Pictures in HDF5 files: what was recorded is read back, and damage is noticed."""

from __future__ import annotations

import io
import textwrap
import zlib
from typing import Any

import h5py
import numpy as np
import pytest
from damaged_files import files_of
from picture_worlds import PictureWorld
from test_data_crash import RecordedWriter, prefixes
from test_data_formats import KINDS, check, make, pieces, read, record
from test_hdf5_damage import check as check_damaged
from test_hdf5_damage import read as read_all
from test_hdf5_damage import read_undamaged

from mjlab_rec.data.checking import check as check_recording
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader
from mjlab_rec.data.pictures import floats, png
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError

BOTH = pytest.mark.parametrize(
    "kind", [KINDS["hdf5"], KINDS["hdf5 by episodes"]], ids=["blocks", "episodes"]
)
EYE = {"obs/eye": ("uint8", (9, 8, 3))}


@BOTH
@pytest.mark.parametrize("seed", [0, 1])
def test_png_pictures_read_back_bit_for_bit(kind, seed, tmp_path):
    world = PictureWorld(partial=True, seed=seed, steps=20)
    with read(record(kind, tmp_path, world)) as rollouts:
        check(kind, rollouts, world.episodes, world.info)
        assert rollouts.verify() == []
        assert rollouts.channels["obs/eye"].codec == "png"


@BOTH
@pytest.mark.parametrize(
    "world",
    [{"ends": False}, {"every": 3, "steps": 60}, {"gaps": (1, 2)}, {"model": True}],
    ids=str,
)
def test_pictures_belong_to_their_rows(kind, world, tmp_path):
    world = PictureWorld(kinds=EYE, **world)
    with read(record(kind, tmp_path, world)) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


@BOTH
def test_pictures_in_several_parts_read_back(kind, tmp_path):
    world = PictureWorld(steps=40, kinds={"obs/eye": ("uint8", (64, 40, 3))})
    writer = record(kind, tmp_path, world, roll_over_bytes=1_200_000)
    assert len(writer.files) > 1
    with read(writer) as rollouts:
        check(kind, rollouts, world.episodes, world.info)


def test_the_next_pictures_of_whole_episodes_are_not_stored_again(tmp_path):
    kind = KINDS["hdf5 by episodes"]
    shape = {"obs/eye": ("uint8", (64, 64, 3))}
    world = PictureWorld(kinds=shape)
    record(kind, tmp_path, world)
    with h5py.File(tmp_path / kind.path) as file:
        entries = file["blocks/obs/eye"][:].ravel()
        after = file["blocks/next_obs/eye"][:].ravel()
        entries, after = entries[entries["size"] > 0], after[after["size"] > 0]
        assert len(np.unique(entries["at"])) == len(entries) == len(world.rows)
        own = np.setdiff1d(after["at"], entries["at"])
        assert len(own) == len({(row.env, row.number) for row in world.rows})


def test_h5py_and_any_reader_of_png_can_read_the_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    kind, world = KINDS["hdf5"], PictureWorld(steps=7)
    record(kind, tmp_path, world)
    row = next(row for row in world.rows if row.at == 5)
    with h5py.File(tmp_path / kind.path) as file:
        env_index = world.info.envs.index(row.env)
        for name in ("obs/eye", "obs/grey", "obs/alpha", "obs/first", "obs/far", "obs/scaled"):
            entry = file[f"blocks/{name}"][0, env_index, 5]
            content = file[f"encoded/{name}"][entry["at"] : entry["at"] + entry["size"]]
            found = np.asarray(image.open(io.BytesIO(content.tobytes())))
            truth = row.values[name]
            if truth.dtype == np.float32:
                assert entry["kind"] in (1, 2)
                truth = np.rint(truth * 255).astype(np.uint8)
            truth = np.moveaxis(truth, 0, -1) if truth.shape[0] == 3 else truth
            np.testing.assert_array_equal(found, truth)


def test_pictures_can_be_read_while_they_are_being_written(tmp_path):
    kind, world = KINDS["hdf5"], PictureWorld(kinds=EYE, block_rows=5)
    writer = make(kind, tmp_path, world.info, block_rows=5)
    for _ in pieces(kind, writer, world):
        with open_rollouts(writer.files[0]) as rollouts:
            assert rollouts.rows == len(world.rows) == len(rollouts.arrays("next_obs/eye"))
    writer.close()


def test_encoded_blocks_survive_a_kill_at_any_write(tmp_path):
    world = PictureWorld(kinds=EYE, steps=21)
    writer = RecordedWriter(world.info, WriterOptions(path=str(tmp_path / "a.h5"), block_rows=7))
    marks, rows = [], []
    for block in world.blocks():
        writer.write(block)
        marks.append(len(writer.target.log))
        rows.append(len(world.rows))
    writer.close()
    truth = {(row.env, row.number, row.step): row.values for row in world.rows}
    path = tmp_path / "killed.h5"
    log = writer.target.log
    for number, content in prefixes(log, marks[0], set(range(marks[-2], marks[-1] + 1)), 29):
        path.write_bytes(content)
        with open_rollouts(path) as rollouts:
            promised = sum(mark <= number for mark in marks)
            assert rollouts.rows in rows[promised - 1 : promised + 1]
            # The writer's first file is not on the disk.
            assert all(sentence.startswith("Part 0 is missing") for sentence in rollouts.verify())
            for index, episode in enumerate(rollouts.episodes.iter_rows(named=True)):
                found = rollouts.read(index, ["step", "obs/eye", "next_obs/eye"])
                for at, step in enumerate(found["step"].tolist()):
                    values = truth[episode["env"], episode["number"], step]
                    np.testing.assert_array_equal(found["obs/eye"][at], values["obs/eye"])
                    np.testing.assert_array_equal(found["next_obs/eye"][at], values["next_obs/eye"])


@BOTH
def test_a_flipped_bit_never_changes_a_picture(kind, tmp_path, watch):
    record(kind, tmp_path, PictureWorld(kinds={"obs/eye": ("uint8", (16, 24, 3))}, steps=12))
    path = tmp_path / kind.path
    truth = read_undamaged(path, watch)
    noticed = 0
    for _ in watch.flips(files_of(path), 12):
        reader = Hdf5Reader(path)
        found, reported = read_all(reader), reader.verify()
        reader.close()
        check_damaged(found, truth, reported)
        noticed += bool(reported)
    assert noticed > watch.tries // 5


def test_a_damaged_picture_is_named_and_everything_else_can_be_read(tmp_path):
    kind, world = KINDS["hdf5"], PictureWorld(kinds=EYE, ends=False)
    record(kind, tmp_path, world)
    path = tmp_path / kind.path
    with h5py.File(path, "r+") as file:
        entry = file["blocks/obs/eye"][2, 1, 3]
        file["encoded/obs/eye"][int(entry["at"]) + 60] ^= 4
    with open_rollouts(path) as rollouts:
        why = r"rollout.h5', block 2 \(7 rows, control steps 14 to 20\): a picture of 'obs/eye'"
        with pytest.raises(DataError, match=why + ".* wrong checksum"):
            rollouts.read(1, ["obs/eye"])
        for index in (0, 2):
            rollouts.read(index, ["obs/eye", "next_obs/eye"])
        rollouts.read(1, ["action"])
        assert len(rollouts.verify()) == 1
    with open_rollouts(path, check=False) as rollouts:
        with pytest.raises(DataError, match="a picture of 'obs/eye' .* is damaged: it cannot be"):
            rollouts.read(1, ["obs/eye"])


def forge(path, change) -> None:
    """Change the entry of environment 1 in row 3 of block 2, and what else `change` wants to."""
    with h5py.File(path, "r+") as file:
        entries = file["blocks/obs/eye"]
        some = entries[2, 1]
        change(some[3:4], file)
        entries[2, 1] = some


LIES = {
    "far away": lambda entry, file: entry.__setitem__("at", 1 << 60),
    "huge": lambda entry, file: entry.__setitem__("size", (1 << 32) - 1),
    "empty": lambda entry, file: entry.__setitem__("size", 0),
    "another frame": lambda entry, file: entry.__setitem__("kind", 9),
    "another picture": lambda entry, file: entry.__setitem__("at", int(entry["at"][0]) + 5),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_manipulated_entry_is_an_error(lie, tmp_path):
    kind, world = KINDS["hdf5"], PictureWorld(kinds=EYE, ends=False)
    record(kind, tmp_path, world)
    path = tmp_path / kind.path
    forge(path, lie)
    with open_rollouts(path, check=False) as rollouts:
        with pytest.raises(DataError, match="block 2 .*a picture of 'obs/eye' .* is damaged"):
            rollouts.read(1, ["obs/eye"])
        rollouts.read(0, ["obs/eye"])


def test_a_crew_does_all_the_work_and_raises_its_first_error():
    crew, done = Crew("test", threads=4), []
    crew.each(done.append, 100)
    assert sorted(done) == list(range(100))
    with pytest.raises(ZeroDivisionError):
        crew.each(lambda number: 1 // (number - 50), 100)
    crew.close()
    crew.each(done.append, 3)
    assert len(done) == 103
    crew.close()


def test_a_crew_works_alone_where_threads_cannot_start(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr("threading.Thread.start", refuse)
    done: list[int] = []
    Crew("test", threads=4).each(done.append, 10)
    assert done == list(range(10))


@BOTH
@pytest.mark.parametrize("shape", [(9, 8, 3), (3, 9, 8), (9, 8, 1)], ids=str)
def test_how_to_read_works_for_pictures(kind, shape, tmp_path):
    pytest.importorskip("PIL.Image")
    dtype = "float32" if shape[-1] < 3 else "uint8"
    world = PictureWorld(kinds={"obs/eye": (dtype, shape)}, steps=20, ends=False)
    record(kind, tmp_path, world)
    with h5py.File(tmp_path / kind.path) as file:
        text = str(file.attrs["how_to_read"])
        code = textwrap.dedent(text[text.index("    entry = ") :])
        block, env_index, row = (0, 0, 3)
        scope = dict(file=file, block=block, env_index=env_index, row=row, height=9, width=8)
        exec(f"import io, zlib, PIL.Image, numpy as np\n{code}", scope)
    first = next(row for row in world.rows if row.env == world.info.envs[0] and row.step == 3)
    picture: Any = scope["picture"]
    found = np.moveaxis(picture, 2, 0) if shape[0] == 3 else picture
    assert found.tobytes() == first.values["obs/eye"].tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_png_files_with_different_filters_are_read_together(dtype):
    rng = np.random.default_rng(0)
    for shape in [(5, 7), (5, 7, 3), (4, 5, 7), (1, 5, 7)]:
        values = rng.integers(0, 1 << 16, (6, *shape)).astype(dtype)
        files = [png.encode(values[at : at + 1], at % 3)[0] for at in range(6)]
        for order in (np.arange(6), np.array([1, 4]), np.array([5, 2, 2]), np.array([3])):
            found = np.empty((len(order), *shape), dtype)
            png.decode([files[at] for at in order], found)
            np.testing.assert_array_equal(found, values[order])


def test_the_filter_is_the_one_that_makes_pictures_smallest():
    rows = np.random.default_rng(0).integers(0, 256, (40, 3)).astype(np.uint8)
    down = np.broadcast_to(rows.reshape(1, 40, 3), (40, 40, 3))  # Every row is the same.
    for picture in (down, down.swapaxes(0, 1), np.zeros((40, 40, 3), np.uint8)):
        sizes = [len(png.encode(picture[None], kind)[0]) for kind in range(3)]
        assert sizes[png.best_filter([picture, picture])] <= 1.06 * min(sizes)
    assert png.best_filter([]) == 0


def test_smooth_floats_are_small_and_odd_ones_are_exact():
    heights = np.linspace(0.3, 4, 60, dtype=np.float32)
    smooth = np.sqrt(heights[:, None] * heights[None, ::-1])[None, ..., None]
    assert len(floats.encode(smooth)[0]) < 0.6 * len(zlib.compress(smooth.tobytes()))
    rng = np.random.default_rng(0)
    for shape in [(5, 7), (5, 7, 3), (1, 5, 7), (2, 3, 5, 7)]:
        values = rng.integers(0, 1 << 32, (4, *shape), np.uint32).view(np.float32)
        values[0].flat[:4] = np.nan, -np.inf, -0.0, 1e-45
        found = np.empty_like(values)
        floats.decode(floats.encode(values), found)
        assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize("content", [b"", b"x" * 40, zlib.compress(bytes(1 << 20))])
def test_floats_that_are_no_picture_are_refused(content):
    with pytest.raises(ValueError, match="it (cannot be decompressed|has)"):
        floats.decode([content], np.empty((1, 9, 8), np.float32))


@pytest.mark.parametrize("name", ["npz folder", "csv", "parquet", "robomimic", "memory"])
def test_formats_without_codecs_store_arrays(name, tmp_path):
    world = PictureWorld(kinds={"obs/eye": ("uint8", (2, 3, 3))}, steps=15)
    with read(record(KINDS[name], tmp_path, world)) as rollouts:
        check(KINDS[name], rollouts, world.episodes, world.info)


@BOTH
def test_check_names_damaged_pictures_and_floats_that_are_not_finite(kind, tmp_path):
    kinds = EYE | {"obs/noisy": ("float32", (8, 9, 1))}
    world = PictureWorld(kinds=kinds, ends=False, special=False, steps=20)
    record(kind, tmp_path, world)
    path = tmp_path / kind.path
    assert check_recording(path).ok
    with h5py.File(path, "r+") as file:
        entries = file["blocks/obs/eye"]
        entry = entries[tuple(size // 2 for size in entries.shape)]
        file["encoded/obs/eye"][int(entry["at"]) + 60] ^= 4
    result = check_recording(path)
    assert not result.ok
    text = " ".join(finding.text for finding in result.findings)
    assert "a picture of 'obs/eye'" in text and "wrong checksum" in text
    assert result.good.sum() == len(result.good) - 1
    nan = PictureWorld(kinds=kinds, ends=False, special=True, steps=20)
    record(kind, tmp_path / "nan", nan)
    result = check_recording(tmp_path / "nan" / kind.path)
    assert any("obs/noisy" in str(finding) for finding in result.findings)


@BOTH
def test_batches_of_pictures_are_their_rows(kind, tmp_path):
    world = PictureWorld(kinds=EYE, special=False)
    record(kind, tmp_path, world)
    names = ["obs/eye", "next_obs/eye", "action"]
    truth = {
        row.values["action"].tobytes(): [row.values[name].tobytes() for name in names[:2]]
        for row in world.rows
    }
    with open_rollouts(tmp_path / kind.path) as rollouts:
        for memory in (1 << 30, 1 << 12):
            seen = 0
            for batch in rollouts.transitions(16, names, seed=0, memory_bytes=memory):
                for eye, after, action in zip(*(batch[name] for name in names), strict=True):
                    found = [eye.numpy().tobytes(), after.numpy().tobytes()]
                    assert truth[action.numpy().tobytes()] == found
                    seen += 1
            assert seen == len(truth)
        rows = rollouts.dataset(channels=names, memory_bytes=1)
        order = np.random.default_rng(0).permutation(len(rows))
        batch = rows.batch(order)
        for at in range(len(order)):
            found = [batch[name][at].numpy().tobytes() for name in names[:2]]
            assert truth[batch["action"][at].numpy().tobytes()] == found
        for batch in rollouts.windows(3, 8, ["obs/eye"], memory_bytes=1 << 12):
            assert batch["obs/eye"].shape[1:] == (3, 9, 8, 3)
