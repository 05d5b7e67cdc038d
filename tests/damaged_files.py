"""Recordings that are damaged byte by byte, and what must still be true of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_worlds import World, same

from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.formats.base import Reader, WriterOptions
from mjlab_rec.data.schema import DataError, RunInfo

FLIPS = 1000 if os.environ.get("MJLAB_REC_LONG") else 200


def record(format: str, path: Path, world: World, **options: Any) -> Path:
    """Write a world's episodes, and close."""
    writer = writer_class(format)(world.info, WriterOptions(path=str(path), **options))
    assembler = EpisodeAssembler(world.info)
    for block in world.blocks():
        for episode in assembler.add(block):
            writer.write_episode(episode)
    for episode in assembler.finish():
        writer.write_episode(episode)
    writer.close()
    return path


@dataclass
class Whole:
    """All that a reader says of a recording that is not damaged."""

    info: RunInfo
    rows: dict[tuple[int, int], dict[str, Any]]
    arrays: dict[tuple[int, int], dict[str, np.ndarray]]
    models: dict[tuple[int, int], dict[str, np.ndarray]]


def read_whole(reader: Reader) -> Whole:
    names = ["step", *(spec.name for spec in reader.info.channels)]
    rows = {(row["env"], row["number"]): row for row in reader.episodes.to_dicts()}
    return Whole(
        reader.info,
        rows,
        {key: reader.read(index, names) for index, key in enumerate(rows)},
        {key: reader.model(index) for index, key in enumerate(rows)},
    )


def lost(reader: Reader, whole: Whole) -> set[tuple[int, int]]:
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
            assert f"pisode {row['number']} of environment {row['env']}" in str(error)
            arrays, model = _readable(reader, index, list(whole.arrays[key])), {}
        for name, values in arrays.items():
            assert same(values, whole.arrays[key][name]), name
        assert set(model) == (set(whole.models[key]) if key in found else set())
        assert all(same(model[name], whole.models[key][name]) for name in model)
    gone = set(whole.rows) - found
    if gone or reader.info.attachments != known.attachments:
        assert reader.verify()
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


def flips(path: Path, count: int, seed: int = 0) -> Iterator[tuple[Path, int, int]]:
    """Places in a recording, chosen at random: file, byte and bit."""
    rng = np.random.default_rng(seed)
    files = files_of(path)
    ends = np.cumsum([file.stat().st_size for file in files])
    for at in rng.integers(ends[-1], size=count):
        number = int(np.searchsorted(ends, at, side="right"))
        start = ends[number] - files[number].stat().st_size
        yield files[number], int(at - start), int(rng.integers(8))


def flip(at: int, bit: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[at] ^= 1 << bit

    return change


def cut(size: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        del content[size:]

    return change
