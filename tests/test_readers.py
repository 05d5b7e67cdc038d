"""Exports, read by the libraries that they are for; each value is compared.

The libraries may be in other environments: ``MJLAB_REC_READERS`` lists Python programs to look in,
separated as in PATH. ``make test-readers`` installs the libraries and sets it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_worlds import World
from test_data_export import record_world, same
from test_data_export_more import record_pictures

from mjlab_rec.data import export_rollouts, import_rollouts, open_rollouts

HERE = Path(__file__).parent / "readers"
# What each program in tests/readers imports.
NEEDED = {
    "h5py": ["h5py"],
    "minari": ["minari"],
    "robomimic": ["robomimic"],
    "lerobot": ["lerobot"],
    "torchrl": ["torchrl", "tensordict"],
    "webdataset": ["webdataset"],
    "tables": ["pandas", "polars", "duckdb", "pyarrow"],
}
HAVE = """
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)))
"""


@functools.cache
def installed(python: str) -> set[str]:
    """Which of the libraries an environment has."""
    names = sorted({name for each in NEEDED.values() for name in each})
    run = subprocess.run([python, "-c", HAVE, *names], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def python_for(reader: str) -> str:
    """A Python that has what a reader needs; skips if there is none."""
    others = os.environ.get("MJLAB_REC_READERS", "").split(os.pathsep)
    for python in (sys.executable, *filter(None, others)):
        if set(NEEDED[reader]) <= installed(python):
            return python
    pytest.skip(f"{' and '.join(NEEDED[reader])} not installed: make test-readers")


def write_truth(folder: Path, parts: list[dict[str, Any]]) -> None:
    folder.mkdir()
    for number, rows in enumerate(parts):
        # Not as they are: "file" is a name of an argument.
        np.savez(folder / f"{number:04d}.npz", **{f"_{name}": v for name, v in rows.items()})


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    """A folder with a recording in every format, and the log of what was recorded."""
    folder = tmp_path_factory.mktemp("exports")
    world = World(num_envs=4, steps=60, seed=3, activity="rows", special=False)
    path = folder / "run.h5"
    record_world(path, world)
    parts = []
    for episode in sorted(world.episodes, key=lambda each: (each.env, each.number)):
        steps = np.array([row.step for row in episode.rows], np.int32)
        for rows in np.split(np.arange(len(steps)), np.flatnonzero(np.diff(steps) != 1) + 1):
            values = [episode.rows[row].values for row in rows]
            arrays = {name: np.stack([each[name] for each in values]) for name in values[0]}
            arrays |= {"step": steps[rows], "env": np.array(episode.env)}
            parts.append(arrays | {"number": np.array(episode.number)})
    write_truth(folder / "truth", parts)
    for target, name, options in (
        ("minari", "minari/made-up/test-v0", {"dataset_id": "made-up/test-v0"}),
        (
            *("minari", "minari/made-up/several-v0"),
            {"dataset_id": "made-up/several-v0", "observation": ["actor", "critic"]},
        ),
        ("robomimic", "demos.hdf5", {"valid": 0.3}),
        ("lerobot", "lerobot", {}),
        ("webdataset", "webdataset", {"shard_bytes": 100_000}),
        *((name, name, {}) for name in ("hdf5", "npz", "csv", "parquet")),
    ):
        export_rollouts(path, folder / name, target, **options)
    if find_spec("tensordict"):
        export_rollouts(path, folder / "torchrl", "torchrl")
    if find_spec("imageio_ffmpeg"):
        pictures = record_pictures(folder / "pictures.h5")
        export_rollouts(pictures, folder / "lerobot-pictures", "lerobot")
        with open_rollouts(pictures) as rollouts:
            write_truth(folder / "pictures", [dict(rows) for rows in rollouts])
    return folder


@pytest.mark.parametrize("reader", NEEDED)
def test_a_library_reads_what_was_recorded(reader, exports, request):
    python = python_for(reader)
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    run = subprocess.run(
        [python, HERE / f"read_{reader}.py", exports],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{run.stdout.strip()}")


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_what_minari_wrote_is_imported(kind, minari_written, tmp_path):
    done = import_rollouts(minari_written / f"{kind}-v0", tmp_path / "run.h5")
    assert not done.notes
    made = sorted((minari_written / "made").glob("*.npz"))
    with open_rollouts(done.path) as rollouts:
        assert rollouts.episodes["terminated"].all() and len(rollouts) == len(made)
        for episode, file in zip(rollouts, made, strict=True):
            for key, values in np.load(file).items():
                name = key[1:]
                after = values.shape[0] == len(episode["step"]) + 1
                assert same(episode[name], values[:-1] if after else values)
                assert not after or same(episode[f"next_{name}"], values[1:])


@pytest.fixture(scope="module")
def minari_written(tmp_path_factory) -> Path:
    """A folder with the same episodes in all formats of Minari."""
    python, folder = python_for("minari"), tmp_path_factory.mktemp("minari")
    subprocess.run([python, HERE / "make_minari.py", folder], check=True, capture_output=True)
    return folder
