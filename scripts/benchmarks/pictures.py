"""What recording pictures costs a step, and how small and fast to read they are afterwards."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import tyro
from rich.console import Console

from benchmarks.tables import sideways
from mjlab_rec import cli

CHANNELS = ("sensor/wrist/rgb", "action")
_PEER = "robomimic"
_BATCH = 256


@dataclass(kw_only=True)
class PicturesArgs:
    """Options of `bench.py pictures`."""

    num_envs: int = 64
    """Number of environments, each with a picture per step."""
    size: int = 84
    """Width and height of the pictures."""
    steps: int = 40
    """Steps per round and codec."""
    rounds: int = 3
    """Rounds in which all codecs take turns with steps that are not recorded."""
    codecs: tuple[str, ...] = ("raw", "png", "jpeg", "h264")
    """Codecs to compare."""
    path: Path | None = None
    """Folder for the recordings, which are kept; None: a temporary one."""


def main(args: Annotated[PicturesArgs, tyro.conf.arg(name="")]) -> None:
    """Measure recording and reading the pictures of a robot's camera."""
    console = Console()
    if min(args.num_envs, args.size, args.steps, args.rounds) < 1:
        cli.fail("--num-envs, --size, --steps and --rounds must be at least 1.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.path or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        recorded = _record(args, folder)
        names = [*args.codecs, _PEER]
        columns = {name: recorded[name] | _read(folder, name) for name in names}
        mp4 = _mp4(folder)
    title = (
        f"{args.num_envs} pictures of {args.size} x {args.size} a step, of the wrist camera of"
        f" lift-arm-rgb; batches of {_BATCH} random pictures"
    )
    console.print(sideways(title, "", columns))
    console.print(f"The same pictures as an mp4 per episode, as LeRobot has them: {mp4}")
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def _make(args: PicturesArgs) -> Any:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.registry import load_env_cfg
    from mjlab_rec.sensor import CameraSensorCfg

    cfg: Any = load_env_cfg("lift-arm-rgb")
    cfg.scene.num_envs, cfg.seed = args.num_envs, 0
    cfg.scene.sensors = tuple(
        replace(sensor, width=args.size, height=args.size)
        if isinstance(sensor, CameraSensorCfg)
        else sensor
        for sensor in cfg.scene.sensors
    )
    return ManagerBasedRlEnv(cfg)


def _recorder(folder: Path, name: str, number: int) -> Any:
    from mjlab_rec.recorders import Hdf5RecorderCfg

    layout: Any = "episodes" if name == _PEER else "blocks"
    path = folder / f"{_file(name)}_{number}.h5"
    return Hdf5RecorderCfg(
        path=str(path),
        channels=CHANNELS,
        pictures=None if name == _PEER else name,
        layout=layout,
        if_exists="overwrite",
    )


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _record(args: PicturesArgs, folder: Path) -> dict[str, dict[str, str]]:
    """Take steps with each codec and without recording in turns; returns lines of the table."""
    import torch

    env = _make(args)
    env.reset()
    shape = env.action_manager.action.shape
    actions = torch.rand((args.steps, *shape)) * 2 - 1
    names = [*args.codecs, _PEER]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ["", *names]}

    def take(name: str, number: int, count: int) -> None:
        handle = env.start_recording(_recorder(folder, name, number)) if name else None
        for action in actions[:count]:
            env.step(action)
        if handle is not None:
            # What the last block costs belongs to the steps, too.
            env.stop_recording(handle)

    for name in times:
        take(name, 0, 2)  # The first ones load modules.
    for number in range(args.rounds):
        for name in times:
            # Every round sees the same pictures, and episodes end.
            env.reset(seed=0)
            torch.manual_seed(0)
            began, processor = time.perf_counter(), _processor_s()
            take(name, number, args.steps)
            took = time.perf_counter() - began, _processor_s() - processor
            times[name].append((took[0] / args.steps, took[1] / args.steps))
    env.close()
    plain = np.array(times[""])
    found = {}
    for name in names:
        wall, cpu = np.median(np.array(times[name]) / plain, axis=0) - 1
        found[name] = {
            "step without recording (ms)": f"{1e3 * np.median(plain[:, 0]):.1f}",
            "recording adds": f"{wall:+.1%}",
            "  to the processor's time": f"{cpu:+.1%}",
        }
    return found


def _processor_s() -> float:
    """Processor time of this process, and of encoders that have ended."""
    return sum(os.times()[:4])


def _read(folder: Path, name: str) -> dict[str, str]:
    from mjlab_rec.data import open_rollouts

    path = folder / f"{_file(name)}_0.h5"
    channel = CHANNELS[0]
    with open_rollouts(path) as rollouts:
        rows, spec = rollouts.rows, rollouts.channels[channel]
        size = _stored(path, channel) or spec.nbytes * rows
        episodes = list(range(len(rollouts)))
        began, processor = time.perf_counter(), _processor_s()
        for first in range(0, len(episodes), 16):
            rollouts.read_many(episodes[first : first + 16], [channel])
        all_s, all_cpu = time.perf_counter() - began, _processor_s() - processor
        data = rollouts.dataset(channels=[channel], memory_bytes=1)
        if name == _PEER:
            batch = _raw_batches(path, channel)
        else:
            rng = np.random.default_rng(0)
            batch = _timed(lambda: data.batch(rng.integers(0, len(data), _BATCH)))
    return {
        "pictures": f"{rows}",
        "bytes of a picture": f"{size / rows:.0f}",
        "times smaller": f"{spec.nbytes * rows / size:.1f}",
        "read all (pictures/s)": f"{rows / all_s:.0f}",
        "  processor (us/picture)": f"{1e6 * all_cpu / rows:.0f}",
        "a random batch (ms)": batch,
    }


def _stored(path: Path, channel: str) -> int:
    """Bytes of encoded pictures and of what refers to them; 0 if they are arrays.

    The size of a file says less, because its room grows in steps.
    """
    with h5py.File(path, "r", locking=False) as file:
        if "encoded" not in file:
            return 0
        entries: Any = file[f"blocks/{channel}"]
        found = entries[:]
        found = found[found["size"] > 0]
        _, first = np.unique(found["at"], return_index=True)  # Pictures of a video share bytes.
        return int(found["size"][first].sum()) + found.nbytes


def _raw_batches(path: Path, channel: str) -> str:
    """As robomimic's dataset does: a read of one row of the demonstration for each item."""
    with h5py.File(path, "r", locking=False) as file:
        demos: Any = file["data"]
        found: dict[str, Any] = {name: _pictures(demos[name]) for name in demos}
        places = [(name, at) for name, values in found.items() for at in range(len(values))]
        rng = np.random.default_rng(0)

        def read() -> None:
            chosen = [places[at] for at in rng.integers(0, len(places), _BATCH)]
            np.stack([found[name][at] for name, at in chosen])

        return _timed(read)


def _pictures(demo: Any) -> Any:
    """The dataset of a demonstration that has pictures."""
    found: list[Any] = []
    demo.visititems(lambda _, item: found.append(item) if getattr(item, "ndim", 0) == 4 else None)
    return found[0]


def _timed(work: Any, count: int = 5) -> str:
    """Median milliseconds, and those of the processor."""
    times = []
    for _ in range(count):
        began, processor = time.perf_counter(), _processor_s()
        work()
        times.append((time.perf_counter() - began, _processor_s() - processor))
    wall, cpu = np.median(times[1:] or times, axis=0) * 1e3
    return f"{wall:.0f} (processor {cpu:.0f})"


def _mp4(folder: Path) -> str:
    """A random batch from mp4 files, decoded as LeRobot does: seek, then decode up to the picture.

    The text for the table.
    """
    try:
        import av  # type: ignore[import-not-found]
    except ImportError:
        return "not measured, because the package av is not installed."
    from mjlab_rec.data import open_rollouts

    channel, counts, size = CHANNELS[0], [], 0
    with open_rollouts(next(folder.glob("*_0.h5"))) as rollouts:
        for index in range(len(rollouts)):
            pictures = rollouts.read(index, [channel])[channel]
            path = folder / f"episode_{index}.mp4"
            # LeRobot's settings, with the codec that everything decodes fast.
            with av.open(str(path), "w") as file:
                stream: Any = file.add_stream("libx264", rate=50)
                stream.width, stream.height = pictures.shape[2], pictures.shape[1]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "30", "g": "2"}
                for picture in pictures:
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                file.mux(stream.encode())
            counts.append(len(pictures))
            size += path.stat().st_size
    rng = np.random.default_rng(0)
    files = [av.open(str(folder / f"episode_{index}.mp4")) for index in range(len(counts))]

    def one(index: int, at: int) -> np.ndarray:
        stream: Any = files[index].streams.video[0]
        wanted = round(at / 50 / stream.time_base)
        files[index].seek(wanted, stream=stream)
        for frame in files[index].decode(stream):
            if frame.pts >= wanted:
                return frame.to_ndarray(format="rgb24")
        raise ValueError(f"Episode {index} has no picture {at}.")

    def read() -> None:
        chosen = rng.integers(0, len(counts), _BATCH)
        np.stack([one(int(index), int(rng.integers(counts[index]))) for index in chosen])

    text = _timed(read)
    for file in files:
        file.close()
    return f"{size / sum(counts):.0f} bytes a picture, {text} ms a batch."
