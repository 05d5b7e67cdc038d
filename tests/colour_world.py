"""Environments whose pictures say which environment, episode and step they show; and a decoder."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from worlds import GoalCfg, lengths

from mjlab_rec.data import DataError
from mjlab_rec.data.mp4 import find_ffmpeg
from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.recorders.video import VideoRecorder, VideoRecorderCfg
from mjlab_rec.recorders.video import recorder as video_module
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.sim.viewer_config import ViewerConfig
from mjlab_rec.utils.extras import MissingExtraError

WIDTH, HEIGHT = 64, 48
# A picture is a table of 4 x 4 bright or dark cells, a bit each: 8 bits of the step in the
# episode, 4 of the episode, 4 of the environment.
_BITS = 16
_EPISODE, _ENV = 8, 12

Seen = tuple[int, int, int]
"""Environment, episode, and steps taken in it."""


def _xml() -> str:
    cells = "".join(
        f'<body name="b{i}" pos="{i % 4 - 1.5} {0.75 * (1.5 - i // 4)} -1">'
        f'<joint name="j{i}" type="slide" axis="0 0 1"/>'
        '<geom type="box" size="0.5 0.375 0.05" mass="1" material="bright" contype="0"/></body>'
        for i in range(_BITS)
    )
    return f"""
<mujoco>
  <asset>
    <material name="bright" rgba="1 1 1 1" emission="1"/>
    <material name="dark" rgba="0 0 0 1"/>
  </asset>
  <worldbody>
    <body name="base">
      <camera name="above" pos="0 0 20" fovy="8.58"/>
      <geom type="box" size="3 3 0.1" material="dark" contype="0"/>
      {cells}
    </body>
  </worldbody>
</mujoco>
"""


def show(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """Move the cells of set bits before the dark board, the others behind it."""
    ids = torch.arange(env.num_envs) if env_ids is None else env_ids
    code = env.episode_length_buf[ids] + (env.shown_episode[ids] << _EPISODE) + (ids << _ENV)
    bits = (code[:, None] >> torch.arange(_BITS)) & 1
    env.scene["board"].write_joint_position_to_sim(bits.float() * 2.0, env_ids=env_ids)


def show_next(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """An episode begins: the board says so from its first step on."""
    if not hasattr(env, "shown_episode"):
        env.shown_episode = torch.full((env.num_envs,), -1)
    # A reset without a step in between begins no other episode.
    known = env.shown_episode[env_ids]
    env.shown_episode[env_ids] = known + ((env.episode_length_buf[env_ids] > 0) | (known < 0))


def one(env: ManagerBasedRlEnv) -> torch.Tensor:
    """A reward of one a step."""
    return torch.ones(env.num_envs)


def nothing(env: ManagerBasedRlEnv) -> torch.Tensor:
    """An observation."""
    return torch.zeros(env.num_envs, 1)


def random(env: ManagerBasedRlEnv) -> torch.Tensor:
    """An observation that draws from the environment's and torch's streams."""
    return env.rng.uniform(0.0, 1.0, (env.num_envs, 1)) + torch.rand(env.num_envs, 1)


def board_cfg(
    num_envs: int = 1,
    steps: tuple[int, ...] = (1000,),
    step_dt: float = 0.02,
    recorders: dict[str, Any] | None = None,
    **overrides: Any,
) -> ManagerBasedRlEnvCfg:
    """An environment whose episodes end after `steps`, seen by a camera above the board."""
    return ManagerBasedRlEnvCfg(
        **{
            **dict(
                decimation=1,
                seed=3,
                episode_length_s=1000.0,
                scene=SceneCfg(
                    num_envs=num_envs,
                    entities={"board": EntityCfg(spec_fn=_spec)},
                ),
                sim=SimulationCfg(engine="mjbatch", mujoco=MujocoCfg(timestep=step_dt)),
                observations={
                    "actor": ObservationGroupCfg(
                        {"n": ObservationTermCfg(nothing), "r": ObservationTermCfg(random)}
                    )
                },
                commands={"goal": GoalCfg(resampling_time_range=(0.08, 0.3))},
                rewards={"one": RewardTermCfg(func=one, weight=1.0 / step_dt)},
                terminations={
                    "end": TerminationTermCfg(func=lengths, params={"steps": steps}),
                    "never": TerminationTermCfg(func=lengths, params={"steps": (10**6,)}),
                },
                events={
                    "next": EventTermCfg(func=show_next, mode="reset"),
                    "show": EventTermCfg(func=show, mode="step"),
                },
                viewer=ViewerConfig(
                    width=WIDTH,
                    height=HEIGHT,
                    camera="board/above",
                    max_extra_envs=0,
                    enable_shadows=False,
                ),
                recorders=recorders or {},
                task="board",
            ),
            **overrides,
        }
    )


def _spec() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(_xml())


class Painter:
    """A renderer that paints the board without any graphics, and counts what it does."""

    made: list[Painter] = []

    def __init__(self, sim: Any, cfg: ViewerConfig, scene: Any, name: Any = None) -> None:
        self.sim, self.cfg = sim, cfg
        self.captured: list[tuple[int, ...]] = []
        self.drawn = 0
        self.closed = 0
        Painter.made.append(self)

    def capture(self, env_ids: Any) -> np.ndarray:
        """Copy the joints' positions."""
        self.captured.append(tuple(env_ids))
        return self.sim.data.qpos[list(env_ids)].numpy().copy()

    def draw(self, shot: np.ndarray) -> np.ndarray:
        """Paint the cells."""
        self.drawn += len(shot)
        cells = (shot > 1.0).reshape(-1, 4, 4)
        high, wide = self.cfg.height // 4, self.cfg.width // 4
        bright = np.repeat(np.repeat(cells, high, axis=1), wide, axis=2)
        return np.repeat((bright * 255).astype(np.uint8)[..., None], 3, axis=3)

    def close(self) -> None:
        """Count."""
        self.closed += 1


def recorder_of(env: ManagerBasedRlEnv, name: str = "video") -> VideoRecorder:
    """The environment's video recorder."""
    return env.recorder_manager.get_term(name)


def film(cfg: VideoRecorderCfg, count: int, **world: Any) -> list[Path]:
    """Record some steps of a board and give the files."""
    with ManagerBasedRlEnv(board_cfg(recorders={"video": cfg}, **world)) as env:
        env.reset()
        steps(env, count)
        recorder = recorder_of(env)
    return recorder.files


def steps(env: ManagerBasedRlEnv, count: int) -> None:
    """Take steps."""
    for _ in range(count):
        env.step(torch.zeros(env.num_envs, 0))


@dataclass
class Video:
    """A decoded video."""

    images: np.ndarray
    """(pictures, height, width, 3)."""
    rate: Fraction
    """Pictures per second, as the file says."""
    seconds: float
    """How long it says that it is."""

    def seen(self, cell: int = 0, columns: int = 1) -> list[Seen]:
        """What each picture shows: in a grid, that of a cell."""
        top, left = cell // columns * HEIGHT, cell % columns * WIDTH
        return [read(image[top : top + HEIGHT, left : left + WIDTH]) for image in self.images]


def read(image: np.ndarray) -> Seen:
    """What a picture of the board shows."""
    cells = image.reshape(4, HEIGHT // 4, 4, WIDTH // 4, 3)[:, 3:-3, :, 4:-4].mean(axis=(1, 3, 4))
    assert ((cells < 70) | (cells > 185)).all(), f"not a board: {cells}"
    code = int(((cells.flatten() > 128) << np.arange(_BITS)).sum())
    return code >> _ENV & 15, code >> _EPISODE & 15, code & 255


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The program that makes and decodes videos."""
    try:
        return find_ffmpeg("This test")
    except (MissingExtraError, DataError) as error:
        pytest.skip(str(error))


def decode(path: Path, ffmpeg: str) -> Video:
    """Decode every picture of a file, as it is stored, none repeated and none left out."""
    command = [ffmpeg, "-hide_banner", "-nostdin", "-i", f"file:{path}", "-fps_mode", "passthrough"]
    ran = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    said = ran.stderr.decode()
    width, height = map(int, re.search(r"Video: h264.* (\d+)x(\d+)[ ,]", said).groups())
    minutes = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said)
    assert minutes, said
    hours, mins, secs = minutes.groups()
    images = np.frombuffer(ran.stdout, np.uint8).reshape(-1, height, width, 3)
    return Video(images, _rate(path), int(hours) * 3600 + int(mins) * 60 + float(secs))


def _rate(path: Path) -> Fraction:
    """Pictures per second from the file itself: its ticks per second, by ticks per picture."""
    data = path.read_bytes()
    header, table = data.rindex(b"mdhd"), data.rindex(b"stts")
    scale = int.from_bytes(data[header + 16 : header + 20], "big")
    kinds = int.from_bytes(data[table + 8 : table + 12], "big")
    assert kinds == 1, "the pictures are not evenly spaced"
    return Fraction(scale, int.from_bytes(data[table + 16 : table + 20], "big"))


@pytest.fixture
def painter(monkeypatch) -> Iterator[type[Painter]]:
    """Pictures are painted without graphics."""
    monkeypatch.setattr(video_module, "make_renderer", Painter)
    Painter.made.clear()
    yield Painter
    Painter.made.clear()


@pytest.fixture
def studio(tmp_path, ffmpeg, painter):
    """Makes environments that are filmed, and reads their videos."""
    envs = []

    class Helper:
        folder = tmp_path

        def env(self, num_envs: int = 1, lengths=(1000,), world=None, **fields: Any) -> Any:
            # From the beginning, unless a test says when.
            when = {} if {"trigger", "last_clip"} & set(fields) else {"trigger": None}
            fields = {"path": str(tmp_path), **when, **fields}
            cfg = board_cfg(
                num_envs, lengths, recorders={"video": VideoRecorderCfg(**fields)}, **(world or {})
            )
            envs.append(ManagerBasedRlEnv(cfg))
            return envs[-1]

        def film(self, count: int, num_envs: int = 1, lengths=(1000,), **fields: Any) -> None:
            env = self.env(num_envs, lengths, **fields)
            env.reset()
            steps(env, count)
            env.close()

        def names(self) -> list[str]:
            return sorted(path.stem for path in tmp_path.glob("*.mp4"))

        def video(self, name: str) -> Video:
            return decode(tmp_path / f"{name}.mp4", ffmpeg)

        def seen(self, name: str) -> list[Seen]:
            return self.video(name).seen()

        def all_seen(self) -> dict[str, list[Seen]]:
            return {name: self.seen(name) for name in self.names()}

    yield Helper()
    for env in envs:
        env.close()


def episode(number: int, first: int, last: int, env: int = 0) -> list[Seen]:
    """What pictures of these steps of an episode show, with first and last."""
    return [(env, number, step) for step in range(first, last + 1)]
