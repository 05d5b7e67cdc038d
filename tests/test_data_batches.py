"""Batches from files equal a slow and simple model of them, for all ways to read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from data_worlds import World, episodes_of, same
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_worlds import PictureWorld
from torch.utils.data import DataLoader
from waiting import PATIENCE_S

from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.items import find_items
from mjlab_rec.data.pool import Pool
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.data.schema import DataError

EYE = {"obs/eye": ("uint8", (4, 5, 3))}
# Worlds, whether they are written as blocks, and options of the writer.
RECORDED: dict[str, tuple[str, list[dict], bool | None, dict]] = {
    "blocks": ("hdf5", [{"steps": 75}], True, {}),
    "short episodes": ("hdf5", [{"num_envs": 9, "block_rows": 20}], True, {}),
    "lost blocks": ("hdf5", [{"steps": 60, "gaps": (1, 3, 4)}], True, {}),
    "blocks cut short": ("hdf5", [{"partial": True}], True, {}),
    "every third": ("hdf5", [{"every": 3}], True, {}),
    "compressed": ("hdf5", [{}], True, {"compression": "gzip"}),
    "parts": ("hdf5", [{"seed": 4}], True, {"roll_over_bytes": 1}),
    "episodes": ("hdf5", [{"activity": "rows"}], False, {}),
    "blocks and episodes": ("hdf5", [{"steps": 30}, {"steps": 30, "seed": 1}], None, {}),
    "pictures": ("hdf5", [{"steps": 40, "kinds": EYE, "partial": True}], True, {}),
    "in memory": ("memory", [{"steps": 60}], True, {}),
    "npz": ("npz", [{"activity": "rows"}], False, {}),
    "several": ("union", [{"steps": 33}, {"num_envs": 5}, {"every": 1, "gaps": (1,)}], True, {}),
    "several in pieces": ("union", [{"block_rows": 9}, {"steps": 20}, {}], None, {}),
    "several compressed": ("union", [{}, {"partial": True}], True, {"compression": "lzf"}),
    "pictures of several": ("union", [{"steps": 40, "kinds": EYE}] * 2, True, {}),
}


def write(path: Path, name: str) -> Rollouts:
    format, kinds, blocks, more = RECORDED[name]
    worlds = [PictureWorld(**k) if "kinds" in k else World(**k) for k in kinds]
    if format == "memory":
        memory = MemoryWriter(worlds[0].info, WriterOptions())
        for block in worlds[0].blocks():
            memory.write(block)
        return Rollouts(MemoryReader(memory))
    for number, world in enumerate(worlds):
        options = {"if_exists": "append" if number else "error", "block_rows": world.block_rows}
        if format == "union":
            options["if_exists"], place = "error", path / f"{number}.h5"
        else:
            place = path
        writer = writer_class("hdf5" if format == "union" else format)(
            world.info, WriterOptions(path=str(place), **options, **more)
        )
        if blocks or (blocks is None and not number):
            for block in world.blocks():
                writer.write(block)
        else:
            for episode in episodes_of(world):
                writer.write_episode(episode)
        writer.close()
    return open_rollouts(path)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Iterator[dict[str, tuple[Rollouts, list]]]:
    folder = tmp_path_factory.mktemp("batches")
    suffix = {"hdf5": ".h5"}
    found = {}
    for number, (name, (format, *_)) in enumerate(RECORDED.items()):
        rollouts = write(folder / f"run{number}{suffix.get(format, '')}", name)
        found[name] = rollouts, [rollouts[i] for i in range(len(rollouts))]
    yield found
    for rollouts, _ in found.values():
        rollouts.close()


def model(
    episodes: list[dict[str, np.ndarray]],
    every: int,
    channels: Sequence[str],
    length: int | None,
    stride: int,
    chosen: Sequence[int],
) -> list[bytes]:
    """All items as bytes, one after another."""
    found = []
    for index in chosen:
        arrays = {name: episodes[index][name] for name in (*channels, "step")}
        step, start = arrays["step"], 0
        rows: list[np.ndarray] = []
        while start + (length or 1) <= len(step):
            window = np.arange(start, start + (length or 1))
            gaps = np.flatnonzero(np.diff(step[window]) != every)
            if len(gaps):
                # Windows begin again with the first row after the gap.
                start += int(gaps[0]) + 1
                continue
            rows.append(window)
            start += stride
        if rows:
            found += as_bytes({name: arrays[name][np.stack(rows)] for name in channels})
    return found


def as_bytes(batch: Mapping[str, np.ndarray]) -> list[bytes]:
    flat = [np.ascontiguousarray(v).reshape(len(v), -1).view(np.uint8) for v in batch.values()]
    return [row.tobytes() for row in np.concatenate(flat, 1)]


def arrays_of(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in batch.items()}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_batches_are_the_rows_and_windows_of_a_simple_model(recordings, data):
    draw = data.draw
    rollouts, episodes = recordings[draw(st.sampled_from(list(RECORDED)))]
    names = list(rollouts.info.kinds)
    channels = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5, unique=True))
    if draw(st.booleans()):
        channels = names
    length = draw(st.one_of(st.none(), st.integers(1, 12)))
    stride = 1 if length is None else draw(st.integers(1, 5))
    batch_size = draw(st.integers(1, 40))
    shuffle, drop_last = draw(st.booleans()), draw(st.booleans())
    chosen = None
    if draw(st.booleans()):
        chosen = draw(st.lists(st.integers(0, len(episodes) - 1), max_size=8, unique=True))
    options = {
        "shuffle": shuffle,
        "seed": 3,
        "drop_last": drop_last,
        "memory_bytes": draw(st.sampled_from([1, 300, 3000, 20_000, 1 << 20])),
        "workers": draw(st.sampled_from([0, 2, None])),
        "episodes": chosen,
    }
    which = range(len(episodes)) if chosen is None else chosen
    wanted = model(episodes, rollouts.info.every, channels, length, stride, which)
    if not wanted and any(len(episodes[index]["step"]) for index in which):
        with pytest.raises(ValueError, match="There is no window of"):
            rollouts.windows(length, batch_size, channels, stride=stride, **options)
        return
    if length is None:
        batches = rollouts.transitions(batch_size, channels, **options)
    else:
        batches = rollouts.windows(length, batch_size, channels, stride=stride, **options)
    kinds = rollouts.info.kinds
    for _ in range(2):
        found, sizes = [], []
        for batch in batches:
            assert list(batch) == channels
            for name, values in batch.items():
                dtype, shape = kinds[name]
                assert values.numpy().dtype == dtype
                assert values.shape[1:] == (shape if length is None else (length, *shape))
                assert values.is_contiguous()
            found += as_bytes(arrays_of(batch))
            sizes.append(len(next(iter(batch.values()))))
        assert len(sizes) == len(batches)
        assert all(size == batch_size for size in sizes[: None if drop_last else -1])
        left_out = len(wanted) % batch_size if drop_last else 0
        assert len(found) == len(wanted) - left_out
        if not shuffle:
            assert found == wanted[: len(found)]
        elif not left_out:
            assert sorted(found) == sorted(wanted)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_data_set_has_the_items_of_the_simple_model(recordings, data):
    draw = data.draw
    rollouts, episodes = recordings[draw(st.sampled_from(list(RECORDED)))]
    channels = list(rollouts.info.kinds)
    length = draw(st.one_of(st.none(), st.integers(1, 9)))
    wanted = model(episodes, rollouts.info.every, channels, length, 1, range(len(episodes)))
    if not wanted:
        with pytest.raises(ValueError, match="There is no window of"):
            rollouts.dataset(length)
        return
    rows = rollouts.dataset(length, memory_bytes=draw(st.sampled_from([1, 1 << 20])))
    assert len(rows) == len(wanted)
    numbers = draw(st.lists(st.integers(-len(wanted), len(wanted) - 1), max_size=9))
    if numbers:
        assert as_bytes(arrays_of(rows.batch(numbers))) == [wanted[i] for i in numbers]
    one = draw(st.integers(-len(wanted), len(wanted) - 1))
    single = {name: value.numpy()[None] for name, value in rows[one].items()}
    assert as_bytes(single) == [wanted[one]]


def test_closing_a_stream_early_ends_its_threads(recordings):
    before = set(threading.enumerate())
    stream = iter(recordings["blocks"][0].transitions(2, memory_bytes=500, workers=2))
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    assert not set(threading.enumerate()) - before


def test_damage_is_raised_by_the_batch_that_would_contain_it(tmp_path):
    write(tmp_path / "run.h5", "blocks").close()
    with open_rollouts(tmp_path / "run.h5") as rollouts:
        column = rollouts.reader._parts[0].columns["blocks/action"]  # pyright: ignore
        at = int(column._at[0])
    with open(tmp_path / "run.h5", "r+b") as file:
        file.seek(at + 3)
        byte = file.read(1)[0]
        file.seek(at + 3)
        file.write(bytes([byte ^ 1]))
    for memory_bytes in (1 << 20, 600):
        with open_rollouts(tmp_path / "run.h5") as rollouts:
            batches = rollouts.transitions(5, ["action"], memory_bytes=memory_bytes)
            with pytest.raises(DataError, match="'blocks/action'.*is damaged: wrong checksum"):
                list(batches)
    with open_rollouts(tmp_path / "run.h5", check=False) as rollouts:
        assert sum(len(b["action"]) for b in rollouts.transitions(5, ["action"])) == rollouts.rows


def test_bad_numbers_of_workers_and_items_are_refused(recordings):
    rollouts = recordings["blocks"][0]
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        rollouts.transitions(2, workers=-1)
    with pytest.raises(IndexError, match=f"Items are numbered from 0 to {rollouts.rows - 1}, got"):
        rollouts.dataset().batch([0, rollouts.rows])


@pytest.mark.parametrize("memory_bytes", [1, 1 << 20])
def test_a_data_loader_gets_whole_batches(recordings, memory_bytes):
    rollouts, _ = recordings["blocks"]
    rows = rollouts.dataset(4, ["step", "obs/actor"], memory_bytes=memory_bytes)
    wanted = list(DataLoader(rows, batch_size=16))
    found = list(DataLoader(rows, batch_size=16, collate_fn=rows.collate))
    assert len(found) == len(wanted) > 3
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one["step"], other["step"])
        assert torch.equal(one["obs/actor"].nan_to_num(), other["obs/actor"].nan_to_num())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_of_a_data_loader_read_hdf5(recordings, how):
    rollouts, _ = recordings["blocks"]
    rows = rollouts.dataset(channels=["step", "state"])
    rows.load()
    loader = DataLoader(
        rows,
        64,
        num_workers=1,
        multiprocessing_context=how,
        collate_fn=rows.collate,
        timeout=PATIENCE_S,
    )
    steps = torch.cat([batch["step"] for batch in loader])
    assert same(steps.numpy(), rollouts.arrays("step"))


@pytest.mark.parametrize("length", [None, 1, 4])
def test_a_device_gathers_the_same(recordings, length):
    rollouts, _ = recordings["blocks"]
    items = find_items(rollouts, length, 1, None)
    names = list(rollouts.info.kinds)
    pool = Pool(rollouts.reader, items, names, windows=length is not None)
    at = items.positions(pool.starts)[::3]
    wanted = arrays_of(pool.gather(at))
    pool._arrays = {name: torch.from_numpy(values) for name, values in pool._arrays.items()}
    pool._following = torch.from_numpy(pool._following)
    found = arrays_of(pool._gather_on_device(torch.from_numpy(at)))
    assert all(same(found[name], wanted[name]) for name in names)
