"""Write a recording in the format of a learning library or of a data tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mjlab_rec import cli
from mjlab_rec.commands.data.options import DataArgs, RecordingAndNew, say_result
from mjlab_rec.commands.data.progress import progress_bar

Target = Literal[
    "robomimic", "isaaclab", "minari", "lerobot", "torchrl", "webdataset", "hdf5", "npz", "csv",
    "parquet",
]  # fmt: skip


@dataclass(kw_only=True)
class ExportArgs(DataArgs):
    """Options of ``data export``."""

    paths: RecordingAndNew = ()
    """The recording, or several that are exported as one, then the file or folder to write."""
    to: Target
    """Format to write."""
    channels: tuple[str, ...] | None = None
    """Channels to export. None: all."""
    if_exists: Literal["error", "overwrite", "number"] = "error"
    """What to do if the output exists: end with an error, replace it, or write to the next free
    name."""
    observation: tuple[str, ...] | None = None
    """minari, lerobot, torchrl: groups of observations that are the observation. None: that of the
    policy."""
    dataset_id: str | None = None
    """minari: id of the dataset. None: the name of the folder."""
    author: str | None = None
    """minari: who recorded it."""
    author_email: str | None = None
    """minari: how to reach them."""
    algorithm_name: str | None = None
    """minari: what chose the actions."""
    description: str | None = None
    """minari: what the dataset is."""
    code_permalink: str | None = None
    """minari: where the code is."""
    quaternion: Literal["wxyz", "xyzw"] | None = None
    """isaaclab: order of the numbers of quaternions. None: wxyz, up to Isaac Lab 2; later: xyzw."""
    joints: tuple[str, ...] | None = None
    """isaaclab: joints in the order of Isaac Lab. None: in that of the model."""
    valid: float | None = None
    """robomimic: fraction of the episodes in the mask valid. None: 0.1."""
    seed: int | None = None
    """robomimic: chooses which episodes that is. None: 0."""
    task: str | None = None
    """lerobot: the task in words. None: that of the recording."""
    robot_type: str | None = None
    """lerobot: the robot."""
    pictures: Literal["mp4", "numbers"] | None = None
    """lerobot: whether pictures become mp4 files, with a small loss, or numbers. None: mp4."""
    crf: int | None = None
    """lerobot: quality of mp4 files, from 0 (lossless) to 51 (worst). None: 18."""
    shard_bytes: int | None = None
    """webdataset: size at which the next file begins."""
    compression: str | None = None
    """hdf5, npz, parquet: one of the format's compressions."""


def main(args: ExportArgs) -> None:
    """Write the export, and print what the format cannot hold."""
    from mjlab_rec.data.export import export_rollouts
    from mjlab_rec.data.rollouts import open_rollouts

    if len(args.paths) < 2:
        cli.fail("Give a recording, and the file or folder to write.")
    *sources, out = args.paths
    names = set(vars(args)) - {"paths", "to", "channels", "if_exists", "verbose"}
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    source = sources[0] if len(sources) == 1 else sources
    with progress_bar("Exporting") as progress, open_rollouts(source) as rollouts:
        done = export_rollouts(
            *(rollouts, out, args.to),
            channels=args.channels,
            if_exists=args.if_exists,
            progress=progress,
            **options,
        )
    say_result(done, target=f" ({args.to})")
