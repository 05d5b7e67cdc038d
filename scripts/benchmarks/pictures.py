"""What recording pictures costs a step, and how small and fast to read they are afterwards."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
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

CHANNELS = ("sensor/wrist/rgb", "obs/actor", "action")
_PEER = "robomimic"
_BATCH = 256


@dataclass(kw_only=True)
class PicturesArgs:
    """Options of `bench.py pictures`."""

    num_envs: int = 64
    """Number of environments, each with a picture per step."""
    size: int = 84
    """Width and height of the pictures."""
    steps: int = 60
    """Steps per round and codec."""
    rounds: int = 3
    """Rounds in which all codecs take turns with steps that are not recorded."""
    codecs: tuple[str, ...] = ("raw", "png", "jpeg", "h264")
    """Codecs to compare."""
    peer_python: str | None = None
    """Interpreter that has lerobot and torchcodec, to read the same pictures with its dataset."""
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
        plain, recorded = _record(args, folder)
        columns = {name: found | _read(folder, name) for name, found in recorded.items()}
        if args.peer_python is not None:
            name, column = _lerobot(folder, args)
            columns[name] = column
    quantities = dict.fromkeys(name for column in columns.values() for name in column)
    columns = {
        name: {quantity: column.get(quantity, "") for quantity in quantities}
        for name, column in columns.items()
    }
    title = (
        f"{args.num_envs} pictures of {args.size} x {args.size} a step, of the wrist camera of"
        f" lift-arm-rgb; batches of {_BATCH} random pictures"
    )
    console.print(sideways(title, "", columns))
    console.print(plain)
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


def _record(args: PicturesArgs, folder: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Take steps with each codec and without recording in turns.

    Returns a sentence about the latter, and lines of the table for each codec.
    """
    import torch

    env = _make(args)
    env.reset()
    shape = env.action_manager.action.shape
    actions = torch.rand((args.steps, *shape)) * 2 - 1
    names = [*args.codecs, _PEER]
    plain: list[np.ndarray] = []
    more: dict[str, list[np.ndarray]] = {name: [] for name in names}
    opening: dict[str, list[float]] = {name: [] for name in names}

    def take(name: str, number: int, count: int) -> tuple[np.ndarray, float]:
        """The time of a step, and that of opening a recording."""
        began = _now()
        handle = env.start_recording(_recorder(folder, name, number)) if name else None
        opened = _now()
        for action in actions[:count]:
            env.step(action)
        if handle is not None:
            # What the last rows cost belongs to the steps, too.
            env.stop_recording(handle)
        return (_now() - opened) / count, float(opened[0] - began[0])

    for name in ["", *names]:
        take(name, 0, 2)  # The first ones load modules.
    for number in range(args.rounds):
        for name in names:
            # Steps that are not recorded come right before, as other programs may slow down both.
            # All see the same pictures, and episodes end.
            for each in ("", name):
                env.reset(seed=0)
                torch.manual_seed(0)
                step, open_s = take(each, number, args.steps)
                if not each:
                    plain.append(step)
                    continue
                more[name].append(step / plain[-1] - 1)
                opening[name].append(open_s)
    env.close()
    wall, cpu = 1e3 * np.median(plain, axis=0)
    text = f"A step without recording takes {wall:.0f} ms, {cpu:.0f} ms of the processor."
    found = {}
    for name in names:
        wall, cpu = np.median(more[name], axis=0)
        found[name] = {
            "recording adds": f"{wall:+.1%}",
            "  to the processor's time": f"{cpu:+.1%}",
            "opening a file (ms)": f"{1e3 * np.median(opening[name]):.0f}",
        }
    return text, found


def _now() -> np.ndarray:
    """Seconds, and those of the processor."""
    return np.array([time.perf_counter(), _processor_s()])


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
        encoding = _encoding(spec, rollouts.read(0, [channel])[channel])
        data = rollouts.dataset(channels=[channel], memory_bytes=1)
        if name == _PEER:
            batch = _raw_batches(path, channel)
        else:
            rng = np.random.default_rng(0)
            batch = _timed(lambda: data.batch(rng.integers(0, len(data), _BATCH)))
    return {
        "encoding alone, processor (us/picture)": encoding,
        "pictures": f"{rows}",
        "bytes of a picture": f"{size / rows:.0f}",
        "times smaller": f"{spec.nbytes * rows / size:.1f}",
        "read all (pictures/s)": f"{rows / all_s:.0f}",
        "  processor (us/picture)": f"{1e6 * all_cpu / rows:.0f}",
        "a random batch (ms)": batch,
    }


def _encoding(spec: Any, pictures: np.ndarray) -> str:
    """Microseconds of the processor for each picture, without a simulation next to it."""
    from mjlab_rec.data.pictures.crew import Crew
    from mjlab_rec.data.pictures.encoding import PictureCoder

    if not spec.codec:
        return "0"
    clips = [pictures[:31]] * 64  # About a block.
    coder, crew = PictureCoder(spec, "The benchmark"), Crew("benchmark")
    times = []
    for _ in range(3):
        began = _processor_s()
        coder.encode(clips, crew)
        times.append(_processor_s() - began)
    crew.close()
    return f"{1e6 * min(times) / sum(map(len, clips)):.0f}"


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


def _lerobot(folder: Path, args: PicturesArgs) -> tuple[str, dict[str, str]]:
    """The same pictures as a LeRobot dataset, read by LeRobot: its column and its title."""
    from mjlab_rec.data.export import export_rollouts

    source, out = folder / f"{_file(args.codecs[0])}_0.h5", folder / "lerobot"
    export_rollouts(source, out, "lerobot", observation=["actor"], if_exists="overwrite")
    peer = Path(__file__).with_name("pictures_peer.py")
    command = [str(args.peer_python), str(peer), str(out), str(_BATCH), "5"]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        cli.fail(f"--peer-python cannot read the dataset with lerobot:\n{ran.stderr[-2000:]}")
    found = json.loads(ran.stdout.splitlines()[-1])
    with h5py.File(folder / f"{_file(_PEER)}_0.h5", "r", locking=False) as file:
        rows = int(file["data"].attrs["total"])  # type: ignore[arg-type]
    size = sum(path.stat().st_size for path in out.rglob("*.mp4"))
    return f"lerobot {found['version']}, {found['decoder']}", {
        "pictures": f"{rows}",
        "bytes of a picture": f"{size / rows:.0f}",
        "times smaller": f"{3 * args.size**2 * rows / size:.1f}",
        "a random batch (ms)": f"{found['wall']:.0f} (processor {found['processor']:.0f})",
    }
