"""Helpers that damage recordings byte by byte, and check what a reader still returns."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_worlds import World, episodes_of, same
from long_runs import LONG

from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import Reader, WriterOptions
from mjlab_rec.data.schema import DataError, RunInfo

_SPARE = {"python": 1 << 18, "process": 16 << 20}  # bytes, for texts of errors, for pages
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def record(format: str, path: Path, world: World, **options: Any) -> Path:
    """Write the episodes of a world, and close the writer."""
    writer = writer_class(format)(world.info, WriterOptions(path=str(path), **options))
    for episode in episodes_of(world):
        writer.write_episode(episode)
    writer.close()
    return path


@dataclass
class Undamaged:
    """Everything that a reader returns for an undamaged recording."""

    info: RunInfo
    rows: dict[tuple[int, int], dict[str, Any]]
    arrays: dict[tuple[int, int], dict[str, np.ndarray]]
    models: dict[tuple[int, int], dict[str, np.ndarray]]


def read_all(reader: Reader) -> Undamaged:
    names = ["step", *(spec.name for spec in reader.info.channels)]
    rows = {(row["env"], row["number"]): row for row in reader.episodes.to_dicts()}
    return Undamaged(
        reader.info,
        rows,
        {key: reader.read(index, names) for index, key in enumerate(rows)},
        {key: reader.model(index) for index, key in enumerate(rows)},
    )


def lost(reader: Reader, whole: Undamaged) -> set[tuple[int, int]]:
    """Compare a damaged recording with the whole one; returns the episodes that are not there.

    What can be read is what was written, and where something cannot be read ``verify`` says so.
    """
    known = whole.info
    assert reader.info.channels == known.channels
    assert (reader.info.envs, reader.info.every) == (known.envs, known.every)
    assert (reader.info.step_dt, reader.info.about) == (known.step_dt, known.about)
    assert reader.info.attachments.items() <= known.attachments.items()
    assert reader.gaps == 0
    found = set()
    for index, row in enumerate(reader.episodes.to_dicts()):
        key = row["env"], row["number"]
        assert row == whole.rows[key]
        try:
            arrays = reader.read(index, list(whole.arrays[key]))
            model = reader.model(index)
            found.add(key)
        except DataError as error:
            named = f"pisode {row['number']} of environment {row['env']}" in str(error)
            assert named or re.search(r"rows \d+ to \d+", str(error))
            arrays, model = _readable(reader, index, list(whole.arrays[key])), {}
        for name, values in arrays.items():
            assert same(values, whole.arrays[key][name]), name
        assert set(model) == (set(whole.models[key]) if key in found else set())
        assert all(same(model[name], whole.models[key][name]) for name in model)
    gone = set(whole.rows) - found
    missing = gone or reader.info.attachments != known.attachments or not reader.finished
    if LONG or missing:
        assert reader.verify() or not missing
    return gone


def _readable(reader: Reader, index: int, names: list[str]) -> dict[str, np.ndarray]:
    arrays = {}
    for name in names:
        try:
            arrays |= reader.read(index, [name])
        except DataError:
            pass
    return arrays


def files_of(path: Path) -> list[Path]:
    """The files of a recording that is the only one in its folder."""
    folder = path if path.is_dir() else path.parent
    return sorted(f for f in folder.rglob("*") if f.is_file())


@contextlib.contextmanager
def damaged(victim: Path, change: Callable[[bytearray], None]) -> Iterator[None]:
    """Change a file for a while."""
    whole = victim.read_bytes()
    content = bytearray(whole)
    change(content)
    victim.write_bytes(content)
    os.utime(victim, (0, 0))  # or it would look as if it still grew
    try:
        yield
    finally:
        victim.write_bytes(whole)


def flip(at: int, bit: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[at] ^= 1 << bit

    return change


def cut(size: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        del content[size:]

    return change


class Watch:
    """Damages files, one after the other; in long runs it also compares the memory that reading
    needs.

    A loop over ``flips`` or ``cuts`` gets the file that is damaged in this iteration.
    """

    def __init__(self) -> None:
        self.tries = 0
        self.spare = dict(_SPARE)
        self.undamaged = dict.fromkeys(_SPARE, 0)
        self.most = dict.fromkeys(_SPARE, 0)

    @contextlib.contextmanager
    def measure_undamaged(self) -> Iterator[None]:
        """Measure the memory for an undamaged recording, after a first read."""
        used: dict[str, int] = {}
        with _measured(used, trace=True):
            yield
        self.undamaged |= used

    def flips(self, files: list[Path], few: int) -> Iterator[Path]:
        """Flip random bits: a thousand in long runs, otherwise a few.

        Three of four are in nonzero bytes, because most of a short HDF5 file is empty.
        """
        rng = np.random.default_rng(0)
        content = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        ends = np.cumsum([file.stat().st_size for file in files])
        used = np.flatnonzero(content)
        for turn in range(1000 if LONG else few):
            at = int(rng.choice(used) if turn % 4 else rng.integers(len(content)))
            number = int(np.searchsorted(ends, at, side="right"))
            start = int(ends[number]) - files[number].stat().st_size
            yield from self._try(files[number], flip(at - start, int(rng.integers(8))))

    def cuts(self, files: list[Path], few: int) -> Iterator[Path]:
        """Truncate files: at each 4 KB in long runs, otherwise at a few of these."""
        for file in files:
            size = file.stat().st_size
            step = 4096 if LONG else max(4096, size // few // 4096 * 4096)
            for at in sorted({0, 1, 30, *range(step, size, step), size - 1} & set(range(size))):
                yield from self._try(file, cut(at))

    def _try(self, file: Path, change: Callable[[bytearray], None]) -> Iterator[Path]:
        used: dict[str, int] = {}
        with damaged(file, change):
            with _measured(used, trace=self.tries % 4 == 0):  # doubles the time
                yield file
        self.tries += 1
        for name, most in used.items():
            self.most[name] = max(most, self.most[name])
            assert most <= 2 * self.undamaged[name] + self.spare[name]


def read_undamaged(kind: Callable[[Path], Reader], path: Path, watch: Watch) -> Undamaged:
    """Read an undamaged recording, and measure the memory for it."""
    reader = kind(path)
    whole = read_all(reader)
    assert reader.verify() == [] and reader.finished
    reader.close()
    with watch.measure_undamaged():
        reader = kind(path)
        assert not lost(reader, whole)
        reader.close()
    return whole


@pytest.fixture
def watch(record_property: Callable[[str, object], None]) -> Iterator[Watch]:
    """A ``Watch`` whose figures are added to the properties of the test in a report."""
    watch = Watch()
    if LONG:
        gc.collect()
        gc.freeze()  # or collecting would take longer than a try
    yield watch
    gc.unfreeze()
    record_property("tries", watch.tries)
    for name, most in watch.most.items():
        record_property(name, f"{most} bytes at most, undamaged {watch.undamaged[name]}")


@contextlib.contextmanager
def _measured(used: dict[str, int], trace: bool) -> Iterator[None]:
    """Measure the peak memory of the process, and that of Python and NumPy."""
    if not LONG:
        yield
        return
    gc.collect()  # Errors hold references until then.
    before = _resident()[0]
    if trace:
        tracemalloc.start()
    try:
        yield
        if trace:
            used["python"] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    used["process"] = _resident()[1] - before


def _resident() -> tuple[int, int]:
    """Memory of the process, and its peak since the last call."""
    if not _CLEAR.exists():
        return 0, 0
    most, now = re.findall(r"Vm(?:HWM|RSS):\s+(\d+)", _STATUS.read_text())
    _CLEAR.write_text("5")
    return int(now) << 10, int(most) << 10
