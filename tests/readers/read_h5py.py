"""Read an export to HDF5 with h5py alone, as its text says, and NPZ files with NumPy alone."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
from truth import check, done, rows_of, stretches

folder = Path(sys.argv[1])
truth, count = stretches(folder), 0
episodes: dict = {}  # The stretches of an episode are one episode here.
for rows in truth:
    episodes.setdefault((int(rows["env"]), int(rows["number"])), []).append(rows)
together = [rows_of(parts) for parts in episodes.values()]
NAMES = [name for name in together[0] if not name.startswith("next_")]
with h5py.File(folder / "hdf5.h5") as file:
    assert "With h5py alone" in file.attrs["how_to_read"]
    index = file["index/blocks"][:]
    of = file["index/envs"]["first_episode"][: index["done"].sum(), 0]
    for number, rows in enumerate(together):
        blocks = np.flatnonzero(of == file["ends"][number]["key"])
        for name in NAMES:
            if name == "step":
                continue
            data = file[f"blocks/{name}"]
            found = np.concatenate([data[b, 0, : index["rows"][b]] for b in blocks])
            check(found, rows[name], name)
            count += 1
listed = [json.loads(line) for line in (folder / "npz/episodes.jsonl").read_text().splitlines()]
for number, rows in enumerate(together):
    with np.load(folder / f"npz/episode_{number:06d}.npz") as episode:
        for name in rows:
            check(episode[name], rows[name], name)
            count += 1
done(count, "h5py", "numpy")
