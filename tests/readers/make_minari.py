"""Write the same episodes with Minari in each of its formats, and what they are."""

import os
import sys
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
os.environ["MINARI_DATASETS_PATH"] = str(folder)

import gymnasium  # noqa: E402
import minari  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

rng, box = np.random.default_rng(0), gymnasium.spaces.Box
buffers = []
(folder / "made").mkdir()
for number, steps in enumerate((3, 1, 12)):
    arrays = {
        "obs/joints": rng.normal(size=(steps + 1, 2, 3)).astype(np.float32),
        "obs/goal": rng.normal(size=(steps + 1, 4)),
        "action": rng.normal(size=(steps, 2)).astype(np.float32),
        "reward": rng.normal(size=steps),
        "terminated": np.arange(steps) == steps - 1,
        "truncated": np.zeros(steps, bool),
        "infos/height": rng.normal(size=steps + 1),
    }
    np.savez(folder / "made" / f"{number:04d}.npz", **{f"_{k}": v for k, v in arrays.items()})
    buffers.append(
        EpisodeBuffer(
            observations={"joints": arrays["obs/joints"], "goal": arrays["obs/goal"]},
            actions=arrays["action"],
            rewards=arrays["reward"],
            terminations=arrays["terminated"],
            truncations=arrays["truncated"],
            infos={"height": arrays["infos/height"]},
        )
    )
for kind in ("hdf5", "arrow", "parquet"):
    minari.create_dataset_from_buffers(
        f"{kind}-v0",
        buffers,
        data_format=kind,
        observation_space=gymnasium.spaces.Dict(
            joints=box(-9, 9, (2, 3), np.float32), goal=box(-9, 9, (4,), np.float64)
        ),
        action_space=box(-9, 9, (2,), np.float32),
    )
