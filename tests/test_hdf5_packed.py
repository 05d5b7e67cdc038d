"""Episodes that are written to HDF5 together are read as if they had been written one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import read_all
from data_worlds import World, episodes_of, same

from mjlab_rec.data.checking import check
from mjlab_rec.data.copying import options_for
from mjlab_rec.data.formats import hdf5_packed
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.hdf5 import Hdf5Reader, Hdf5Writer


class SmallFiles(Hdf5Writer):
    most_chunks = 4


def written(path: Path, kind: Any, together: bool, world: World, options: WriterOptions) -> Any:
    options.path = str(path)
    writer = kind(world.info, options)
    if together:
        writer.write_episodes(episodes_of(world))
    else:
        for episode in episodes_of(world):
            writer.write_episode(episode)
    writer.close()
    assert check(path, allow_nan=["*"]).ok
    reader = Hdf5Reader(path)
    try:
        assert reader.verify() == []
        return read_all(reader), writer.files
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Hdf5Writer, {}),
        (Hdf5Writer, {"block_rows": 3, "blocks": 100}),
        (Hdf5Writer, {"compression": "gzip", "block_rows": 5, "blocks": 100}),
        (SmallFiles, {"compression": "gzip", "block_rows": 3, "blocks": 100}),
        (SmallFiles, {"block_rows": 256}),
    ],
)
@pytest.mark.parametrize("most", [1000, 1 << 30])
def test_together_or_one_by_one(kind, options, most, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_packed, "_TOGETHER", most)

    def world() -> World:
        return World(num_envs=3, steps=14, seed=4, model=True)

    alone, _ = written(tmp_path / "a.h5", kind, False, world(), WriterOptions(**options))
    both, files = written(tmp_path / "b.h5", kind, True, world(), WriterOptions(**options))
    assert len(files) > 1 if kind is SmallFiles else len(files) == 1
    assert len(alone.rows) > 3 and repr(both.rows) == repr(alone.rows)
    for key, arrays in alone.arrays.items():
        assert arrays.keys() == both.arrays[key].keys()
        assert all(same(arrays[name], both.arrays[key][name]) for name in arrays)
        assert all(same(alone.models[key][n], both.models[key][n]) for n in alone.models[key])
        assert alone.models[key].keys() == both.models[key].keys()


def test_a_copy_of_short_episodes_is_one_file_hardly_larger_than_its_rows(tmp_path):
    world, again = (World(num_envs=8, steps=60, special=False) for _ in range(2))
    sizes = np.array([episode.rows for episode in episodes_of(again)])
    read, files = written(
        tmp_path / "a.h5", Hdf5Writer, True, world, options_for(sizes, world.info)
    )
    nbytes = sum(array.nbytes for each in read.arrays.values() for array in each.values())
    assert len(files) == 1 and len(read.rows) > 50
    assert files[0].stat().st_size < 2 * nbytes + (512 << 10)
