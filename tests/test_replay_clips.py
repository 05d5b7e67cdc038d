"""Reports show clips of episodes, drawn from their states."""

from __future__ import annotations

import base64
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from test_data_command import run
from test_data_report import Page

from mjlab_rec.data import open_rollouts
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import Hdf5RecorderCfg
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.replay.clips import StateClips, _pace

pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "run.h5"
    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs, cfg.episode_length_s, cfg.seed = 4, 0.4, 0
    channels = ("action", "reward", "state")
    cfg.recorders = {"log": Hdf5RecorderCfg(path=str(path), channels=channels)}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for _ in range(16):
            env.step(torch.zeros(4, 1))
    return path


def videos(page: Path) -> list[bytes]:
    found = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page.read_text())
    return [base64.b64decode(text) for text in found]


def test_the_worst_and_the_best_episode_have_a_clip(recording, tmp_path, capsys):
    out = tmp_path / "r.html"
    assert run("report", recording, "--out", out) == 0
    made = videos(out)
    if not made:
        pytest.skip(f"Nothing draws here: {capsys.readouterr().err}")
    assert len(made) == 2 and all(b"ftyp" in data[:16] for data in made)
    assert "video" in [tag for tag, _ in Page(out).tags]


def test_without_clips_on_request(recording, tmp_path, capsys):
    out = tmp_path / "r.html"
    assert run("report", recording, "--out", out, "--no-clips") == 0
    assert not videos(out) and not capsys.readouterr().err


def test_what_a_clip_needs_is_said(recording, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    out = tmp_path / "r.html"
    assert run("report", recording, "--out", out) == 0
    assert not videos(out)
    assert "There are no clips: " in capsys.readouterr().err


def test_a_clip_ends_in_time(recording, monkeypatch):
    frames = []

    class Renderer:
        def render(self, env_idx: int):
            frames.append(env_idx)
            import numpy as np

            return np.zeros((240, 320, 3), np.uint8)

        def close(self) -> None:
            frames.append("closed")

    monkeypatch.setattr("mjlab_rec.replay.clips.make_renderer", lambda *args: Renderer())
    with open_rollouts(recording) as rollouts:
        assert StateClips(seconds=-1.0)(rollouts, 0) is not None
        assert frames == [0, "closed"]
        frames.clear()
        assert StateClips()(rollouts, 0) is not None
        assert frames == [0] * 8 + ["closed"]


@pytest.mark.parametrize(
    ("states", "step_s", "stride", "rate"),
    [
        (100, 0.05, 1, Fraction(20)),  # Every state, at its pace.
        (100, 0.02, 2, Fraction(25)),
        (1000, 0.02, 4, Fraction(25)),  # Twice as fast.
        (1000, 0.1, 4, Fraction(10)),
        (1000, 0.0, 4, Fraction(25)),
        (1, 0.02, 2, Fraction(25)),
    ],
)
def test_long_episodes_are_shown_faster(states, step_s, stride, rate):
    assert _pace(states, step_s) == (stride, rate)
