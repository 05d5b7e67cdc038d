"""Read an export with LeRobot, and compare it with what was recorded and with its own files."""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
folder = Path(sys.argv[1])
os.environ["HF_HOME"] = str(folder / "home")

import av  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from truth import check, done, rows_of, stretches  # noqa: E402

truth, count = stretches(folder), 0
dataset = LeRobotDataset("me/made-up", root=folder / "lerobot")
together = rows_of(truth)
assert dataset.num_frames == len(together["step"]) and dataset.num_episodes == len(truth)
assert dataset.fps == 50 and dataset.meta.tasks.loc["made-up", "task_index"] == 0
PLACES = {"observation.state": "obs/actor", "action": "action", "next.reward": "reward"}
PLACES |= {"next.terminated": "terminated", "next.truncated": "truncated", "state": "state"}
index = 0
for number, rows in enumerate(truth):
    about = dataset.meta.episodes[number]
    assert about["length"] == len(rows["step"]) and about["tasks"] == ["made-up"]
    for row in range(len(rows["step"])):
        item = dataset[index]
        for feature, name in PLACES.items():
            expected = rows[name][row]  # LeRobot makes tensors of float32 of all floats.
            check(
                item[feature],
                expected.astype("f4") if expected.dtype == "f8" else expected,
                feature,
            )
        assert (int(item["episode_index"]), int(item["frame_index"])) == (number, row)
        assert (int(item["index"]), item["task"]) == (index, "made-up")
        assert abs(float(item["timestamp"]) - row / 50) < 1e-6
        count, index = count + len(PLACES), index + 1
stats = dataset.meta.stats["action"]
for key in ("mean", "std", "min", "max"):
    expected = getattr(together["action"].astype(np.float64), key)(axis=0)
    assert np.allclose(stats[key], expected, atol=1e-6), key
some = LeRobotDataset("me/made-up", root=folder / "lerobot", episodes=[1, 3])
assert some.num_episodes == 2
windows = LeRobotDataset(
    "me/made-up", root=folder / "lerobot", delta_timestamps={"action": [0.0, 0.02]}
)
last = len(truth[0]["step"]) - 1
check(windows[0]["action"][0], together["action"][0], "a window")
assert windows[last]["action_is_pad"].tolist() == [False, True]

# The same fields and types as in a dataset that LeRobot writes itself.
own = LeRobotDataset.create(
    "me/own",
    fps=50,
    root=folder / "lerobot-own",
    use_videos=False,
    features={
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    },
)
for rows in truth[:2]:
    for row in range(len(rows["step"])):
        own.add_frame(
            {
                "observation.state": rows["obs/actor"][row],
                "action": rows["action"][row],
                "task": "made-up",
            }
        )
    own.save_episode()
own.finalize()


def info(name):
    return json.loads((folder / name / "meta" / "info.json").read_text())


def files(name, pattern):
    return sorted(p.relative_to(folder / name).as_posix() for p in (folder / name).glob(pattern))


def schema(name, path):
    return {field.name: field.type for field in pq.read_schema(folder / name / path)}


ours, theirs = info("lerobot"), info("lerobot-own")
assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
for key in ("codebase_version", "chunks_size", "data_path", "data_files_size_in_mb", "robot_type"):
    assert ours[key] == theirs[key], key
assert ours["video_files_size_in_mb"] == theirs["video_files_size_in_mb"]
for name, feature in theirs["features"].items():
    mine = ours["features"][name]
    assert (mine["dtype"], mine["shape"]) == (feature["dtype"], feature["shape"]), name
assert files("lerobot", "meta/*") == files("lerobot-own", "meta/*")
for path in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"):
    mine, wanted = schema("lerobot", path), schema("lerobot-own", path)
    missing = set(wanted) - set(mine)
    assert not missing, missing
    for name, kind in wanted.items():
        # A list of fixed size is read as one without.
        texts = [
            str(k).replace("element", "item").replace("large_", "") for k in (mine[name], kind)
        ]
        texts = [t.replace("[3]", "").replace("[2]", "").replace("fixed_size_", "") for t in texts]
        assert texts[0] == texts[1], (path, name, *texts)
frame = pq.read_table(folder / "lerobot" / "meta" / "tasks.parquet").to_pandas()
wanted = pq.read_table(folder / "lerobot-own" / "meta" / "tasks.parquet").to_pandas()
assert frame.equals(wanted) and frame.index.equals(wanted.index)
mine = json.loads((folder / "lerobot/meta/stats.json").read_text())
wanted = json.loads((folder / "lerobot-own/meta/stats.json").read_text())
for name, values in wanted.items():
    assert values.keys() == mine[name].keys(), name
    assert {k: np.shape(v) for k, v in values.items()} == {
        k: np.shape(mine[name][k]) for k in values
    }


class VideoReader:
    """What LeRobot uses of torchvision's class, which newer versions of torchvision do not have."""

    def __init__(self, path, stream):
        self.container = av.open(path)

    def seek(self, seconds, keyframes_only):
        self.container.seek(int(seconds * av.time_base), backward=True)

    def __iter__(self):
        for frame in self.container.decode(video=0):
            picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            yield {"data": picture, "pts": frame.time}


if not hasattr(torchvision.io, "VideoReader"):
    torchvision.io.VideoReader = VideoReader
    torchvision.set_video_backend = lambda name: None

# Pictures, which are a video. Consecutive ones differ by more than its loss.
if (folder / "lerobot-pictures").is_dir():
    seen = LeRobotDataset(
        "me/pictures", root=folder / "lerobot-pictures", video_backend="pyav", tolerance_s=0.01
    )
    index = 0
    for rows in stretches(folder, "pictures"):
        for picture in rows["obs/front"]:
            found = seen[index]["observation.images.front"].numpy() * 255
            assert found.shape == picture.shape
            assert np.abs(found[0] - picture[0]).max() < 8  # Red, in steps of 20.
            count, index = count + 1, index + 1
    assert index == len(seen)
done(count, "lerobot", "datasets", "torch")
