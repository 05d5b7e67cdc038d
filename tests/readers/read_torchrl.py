"""Read an export with TorchRL, and compare it with what was recorded."""

import sys
from pathlib import Path

import numpy as np
from tensordict import TensorDict
from torchrl.data import ReplayBuffer, SliceSampler, TensorStorage
from truth import check, done, rows_of, stretches

folder = Path(sys.argv[1])
truth = stretches(folder)
together = rows_of(truth)
rows = TensorDict.load_memmap(folder / "torchrl")
PLACES = {
    "observation": "obs/actor",
    ("next", "observation"): "next_obs/actor",
    ("obs", "critic"): "obs/critic",
    ("next", "obs", "critic"): "next_obs/critic",
    "action": "action",
    ("next", "reward"): "reward",
    ("next", "terminated"): "terminated",
    ("next", "truncated"): "truncated",
    "state": "state",
    "camera": "camera",
}
for key, name in PLACES.items():
    check(rows[key].numpy(), together[name], str(key))
assert rows["step_count"].flatten().tolist() == together["step"].tolist()
ended = together["terminated"] | together["truncated"]
check(rows["next", "done"].numpy(), ended, "done")
count = len(PLACES) + 2
buffer = ReplayBuffer(
    storage=TensorStorage(rows),
    sampler=SliceSampler(slice_len=3, traj_key="episode", strict_length=True),
    batch_size=60,
)
batch = buffer.sample().reshape(-1, 3)
assert (batch["episode"] == batch["episode"][:, :1]).all()
assert np.all(np.diff(batch["step_count"][..., 0].numpy(), axis=1) == 1)
check(batch["next", "observation"][:, :-1].numpy(), batch["observation"][:, 1:].numpy(), "slices")
done(count + 1, "torchrl", "tensordict", "torch")
