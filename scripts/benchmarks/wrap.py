"""What recording Gymnasium's vector environments costs, with RecordVector and other wrappers."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import gymnasium
import tyro
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from rich.console import Console
from rich.table import Table

from mjlab_rec import cli
from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.recorders import EpisodeLogRecorderCfg, Hdf5RecorderCfg, VideoRecorderCfg

BARE, OURS, STATISTICS = "bare", "RecordVector", "statistics"
MINARI, VIDEO, OUR_VIDEO = "statistics, Minari", "... and RecordVideo", "RecordVector, video"


@dataclass(kw_only=True)
class WrapArgs:
    """Options of `bench.py wrap`."""

    tasks: tuple[str, ...] = ("CartPole-v1", "Ant-v5")
    """Ids of Gymnasium."""
    num_envs: tuple[int, ...] = (1, 16, 64)
    """Numbers of environments to measure."""
    env_steps: int = 12_000
    """Steps of a round, of all environments together."""
    rounds: int = 3
    """Rounds of each way in turn; the result is their median."""
    video: bool = False
    """Whether videos are recorded, too, of the first environment's episodes 0, 1, 8, 27, ..."""


def main(args: Annotated[WrapArgs, tyro.conf.arg(name="")]) -> None:
    """Compare the time of a step without recording, with RecordVector and with other wrappers."""
    if min(*args.num_envs, args.rounds, args.env_steps) < 1:
        cli.fail("--num-envs, --env-steps and --rounds must be above 0.")
    console, ways = Console(), [BARE, OURS, STATISTICS]
    if importlib.util.find_spec("minari"):
        ways.append(MINARI)
    else:
        console.print("Minari is left out, because this Python does not have it.")
    if args.video:
        ways += [OUR_VIDEO, VIDEO] if MINARI in ways else [OUR_VIDEO]
    for task in args.tasks:
        table = Table("envs", title=f"{task}: CPU ms of a step, and times that of the bare one")
        for way in ways:
            table.add_column(way, justify="right")
        for count in args.num_envs:
            found = measure(args, task, count, ways)
            table.add_row(str(count), *(cell(found, way) for way in ways))
        console.print(table)
    console.print(f"{args.rounds} rounds of {args.env_steps} env-steps in turn, SyncVectorEnv")
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def measure(args: WrapArgs, task: str, count: int, ways: list[str]) -> dict[str, list[float]]:
    """Milliseconds of processor time per step of each round, closing the recording included."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    steps = max(1, args.env_steps // count)
    for _ in range(args.rounds):
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                envs = make(way, task, count, Path(folder))
                envs.reset(seed=0)
                envs.action_space.seed(0)
                actions = [envs.action_space.sample() for _ in range(steps)]
                began = time.process_time()
                for action in actions:
                    envs.step(action)
                envs.close()
                found[way].append((time.process_time() - began) / steps * 1e3)
    return found


def make(way: str, task: str, count: int, folder: Path) -> Any:
    """The environments, wrapped in one way."""
    films = way in (VIDEO, OUR_VIDEO)
    one: Callable[[], Any] = partial(
        gymnasium.make, task, render_mode="rgb_array" if films else None
    )
    if way in (MINARI, VIDEO):
        plain, numbers = one, iter(range(count))
        one = lambda: collected(plain(), folder, next(numbers))  # noqa: E731
    envs: Any = SyncVectorEnv([one] * count)
    if way == VIDEO:
        from gymnasium.wrappers.vector import RecordVideo

        envs = RecordVideo(envs, str(folder / "videos"))
    if way in (STATISTICS, MINARI, VIDEO):
        return RecordEpisodeStatistics(envs)
    if way == BARE:
        return envs
    recorders: dict[str, Any] = {
        "rows": Hdf5RecorderCfg(path=str(folder / "run.h5")),
        "episodes": EpisodeLogRecorderCfg(path=str(folder / "log.jsonl")),
    }
    if films:
        recorders["video"] = VideoRecorderCfg(path=str(folder / "videos"))
    return RecordVector(envs, recorders)


def collected(env: Any, folder: Path, number: int) -> Any:
    """An environment that Minari collects; it knows no vector environments."""
    import os

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    from minari import DataCollector  # pyright: ignore[reportMissingImports]

    class Collector(DataCollector):
        """Writes its data when it is closed, as a user does in the end."""

        def close(self) -> None:
            self.create_dataset(f"bench/run{number}-v0")
            super().close()

    return Collector(env, record_infos=False)


def cell(found: dict[str, list[float]], way: str) -> str:
    """Milliseconds, and times those of the bare environments in the same round."""
    text = f"{median(found[way]):.3f}"
    if way == BARE:
        return text
    times = [mine / bare for mine, bare in zip(found[way], found[BARE], strict=True)]
    return f"{text} ({median(times):.2f}x)"
