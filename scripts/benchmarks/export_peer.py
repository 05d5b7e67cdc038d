"""Write episodes as robomimic, Isaac Lab and Minari do; print the seconds per episode.

It runs in an interpreter that may not have mjlab_rec.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def main(count: int, steps: int, size: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds, and seconds of processor time, per episode of each writer."""
    rng = np.random.default_rng(0)
    obs = rng.standard_normal((count, steps + 1, size)).astype(np.float32)
    actions = rng.standard_normal((count, steps, 1)).astype(np.float32)
    rewards = rng.standard_normal((count, steps)).astype(np.float32)
    dones = np.zeros((count, steps), bool)

    def layout(path: Path, **settings: Any) -> None:
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            for i in range(count):
                demo = data.create_group(f"demo_{i}")
                demo.create_dataset("actions", data=actions[i], **settings)
                demo.create_dataset("rewards", data=rewards[i], **settings)
                demo.create_dataset("dones", data=dones[i], **settings)
                demo.create_dataset("obs/actor", data=obs[i, :-1], **settings)
                demo.create_dataset("next_obs/actor", data=obs[i, 1:], **settings)
                demo.attrs["num_samples"] = steps

    writers: dict[str, Callable[[], Any]] = {
        "h5py, as robomimic": lambda: layout(folder / "plain.hdf5"),
        "h5py with gzip, as Isaac Lab": lambda: layout(folder / "gzip.hdf5", compression="gzip"),
    }
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
    try:
        import gymnasium
        import minari  # type: ignore[import-not-found]
        from minari.data_collector import EpisodeBuffer  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        buffers = [
            EpisodeBuffer(
                observations=obs[i],
                actions=actions[i],
                rewards=rewards[i],
                terminations=dones[i],
                truncations=dones[i],
                infos={},
            )
            for i in range(count)
        ]
        box = gymnasium.spaces.Box
        writers["minari.create_dataset_from_buffers"] = lambda: minari.create_dataset_from_buffers(
            "peer/test-v0",
            buffers,
            observation_space=box(-np.inf, np.inf, (size,), np.float32),
            action_space=box(-1, 1, (1,), np.float32),
        )
    found = {}
    for name, write in writers.items():
        start = time.perf_counter(), time.process_time()
        write()
        found[name] = (
            (time.perf_counter() - start[0]) / count,
            (time.process_time() - start[1]) / count,
        )
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    count, steps, size = map(int, sys.argv[1:4])
    print(json.dumps(main(count, steps, size, Path(sys.argv[4]))))
