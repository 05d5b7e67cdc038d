"""Read random batches of a LeRobot dataset with LeRobot's own class; print the times.

It runs in an interpreter that has lerobot and its video decoder, and may not have mjlab_rec.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
import time
import warnings
from typing import Any

import numpy as np


def main(folder: str, size: int, count: int) -> dict[str, Any]:
    """Milliseconds of a batch of `size`, and those of the processor: the median of `count`."""
    from lerobot.datasets import lerobot_dataset  # type: ignore[import-not-found]

    dataset = lerobot_dataset.LeRobotDataset("peer/pictures", root=folder)
    rng, times = np.random.default_rng(0), []
    for _ in range(count + 1):  # The first one opens the files.
        chosen = rng.integers(0, len(dataset), size).tolist()
        began = time.perf_counter(), time.process_time()
        items = [dataset[at] for at in chosen]
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        assert len(items) == size
    wall, processor = 1e3 * np.median(times[1:], axis=0)
    return {
        "decoder": dataset.video_backend,
        "version": importlib.metadata.version("lerobot"),
        "wall": wall,
        "processor": processor,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
