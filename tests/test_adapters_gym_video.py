"""Videos of Gymnasium's environments, from their own render()."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import Any

import numpy as np
import pytest
from gym_worlds import Maze, lives
from gymnasium.vector import AutoresetMode, SyncVectorEnv

pytest.importorskip("imageio_ffmpeg")

from mjlab_rec.adapters.gym_env import RecordEnv
from mjlab_rec.adapters.gym_vector import RecordVector
from mjlab_rec.data.mp4 import find_ffmpeg
from mjlab_rec.recorders import VideoRecorderCfg, at_episodes


def frames_of(path: Any) -> list[int]:
    """What each frame shows, as the mazes draw it: the steps of the episode so far."""
    command = [find_ffmpeg("test"), "-v", "error", "-i", str(path), "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(-1, 16, 16, 3)
    return [round(float(frame[4:12, 4:12].mean()) / 10) for frame in shown]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_clip_of_an_episode_has_a_frame_for_each_of_its_steps(mode, tmp_path):
    make = partial(Maze, "rgb_array")
    actions = [np.zeros((3, 2), np.float32)] * 25
    name = mode.name.lower()
    video = VideoRecorderCfg(path=str(tmp_path), envs=(0, 2), trigger=at_episodes(0, 2), name="m")
    inner = SyncVectorEnv([make] * 3, autoreset_mode=mode)
    with RecordVector(inner, {"video": video}) as envs:
        envs.reset(seed=3)
        for action in actions:
            _, _, terminated, truncated, _ = envs.step(action)
            over = terminated | truncated
            if mode is AutoresetMode.DISABLED and over.any():
                envs.reset(options={"reset_mask": over})
    expected = lives(make, 3, actions, name)
    for env in (0, 2):
        for number in (0, 2):
            got = frames_of(tmp_path / f"m-episode-{number}-env-{env}.mp4")
            count = len(expected[env][number])
            want = list(range(1, count + 1))
            if mode is AutoresetMode.SAME_STEP and count > 1:
                want[-1] = want[-2]  # Its last state is gone when step() returns.
            if count > 1 or mode is not AutoresetMode.SAME_STEP:
                assert got == want


def test_a_file_of_everything_and_only_frames_that_are_due(tmp_path):
    class Counts(Maze):
        drawn = 0

        def render(self) -> Any:
            type(self).drawn += 1
            return super().render()

    path = tmp_path / "all.mp4"
    with RecordEnv(Counts("rgb_array", most=100), {}) as env:
        env.reset(seed=5)
        env.step(np.zeros(2, np.float32))
        assert Counts.drawn == 0
        env.start_recording(VideoRecorderCfg(path=str(path), max_pending=4))
        for _ in range(5):
            env.step(np.zeros(2, np.float32))
        env.stop_recording()
        drawn = Counts.drawn
        env.step(np.zeros(2, np.float32))
        assert Counts.drawn == drawn == 6  # One to see that it can be drawn at all.
    assert frames_of(path) == [2, 3, 4, 5, 6]


def test_without_pictures_it_is_said(tmp_path):
    class Blind(Maze):
        def render(self) -> Any:
            return None

    with RecordEnv(Blind(), {"video": VideoRecorderCfg(path=str(tmp_path))}) as env:
        with pytest.raises(ValueError, match='render_mode="rgb_array"'):
            env.reset(seed=1)
    with pytest.raises(ValueError, match="width has no effect here"):
        RecordEnv(Maze(), {"video": VideoRecorderCfg(path=str(tmp_path), width=64)})
