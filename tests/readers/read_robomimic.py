"""Read an export with robomimic's SequenceDataset, and compare it with what was recorded."""

import sys
from pathlib import Path

import numpy as np
import robomimic.utils.file_utils as file_utils
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset
from truth import check, done, stretches

folder = Path(sys.argv[1])
path = str(folder / "demos.hdf5")
truth, count = stretches(folder), 0
names = ("actor", "critic")
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(names)}})
meta = file_utils.get_env_metadata_from_dataset(path)
assert meta["env_name"] == "made-up" and meta["type"] == 2
shapes = file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=list(names))
assert shapes["ac_dim"] == 2 and list(shapes["all_shapes"]["actor"]) == [3]


def read(split, cache, length):
    """Compare all items of a dataset; returns the demos that it has."""
    global count
    dataset = SequenceDataset(
        hdf5_path=path,
        obs_keys=names,
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=1,
        seq_length=length,
        pad_frame_stack=True,
        pad_seq_length=True,
        get_pad_mask=True,
        goal_mode=None,
        hdf5_cache_mode=cache,
        hdf5_use_swmr=True,
        hdf5_normalize_obs=False,
        filter_by_attribute=split,
        load_next_obs=True,
    )
    assert len(dataset) == sum(len(truth[int(demo[5:])]["step"]) for demo in dataset.demos)
    for index in range(len(dataset)):
        item, demo = dataset[index], dataset._index_to_demo_id[index]
        start = index - dataset._demo_id_to_start_indices[demo]
        rows = truth[int(demo[5:])]
        at = np.minimum(np.arange(start, start + length), len(rows["step"]) - 1)
        ended = (rows["terminated"] | rows["truncated"]).astype(np.uint8)
        found = {"actions": rows["action"], "rewards": rows["reward"], "dones": ended}
        found = {name: (item[name], values) for name, values in found.items()}
        for group in ("obs", "next_obs"):
            for name in names:
                found[f"{group}/{name}"] = item[group][name], rows[f"{group}/{name}"]
        for name, (values, expected) in found.items():
            # Some of what robomimic keeps in memory becomes float32.
            kind = np.dtype(np.float32) if cache else expected.dtype
            check(
                np.asarray(values).astype(kind if cache else values.dtype),
                expected[at].astype(kind),
                name,
            )
        count += 7
    found = set(dataset.demos)
    dataset.close_and_delete_hdf5_handle()
    return found


everything = {f"demo_{number}" for number in range(len(truth))}
for cache in (None, "low_dim", "all"):
    assert read(None, cache, 3) == everything
train, valid = read("train", None, 1), read("valid", None, 1)
assert train | valid == everything and not train & valid and train and valid
done(count, "robomimic", "h5py", "torch")
