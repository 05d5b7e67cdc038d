"""A picture of what Rerun's viewer makes of a recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from waiting import PATIENCE_S, patiently
from worlds import actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders.rerun import RerunRecorderCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def screenshot(monkeypatch):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import rerun_screenshot

    if lacking := rerun_screenshot.missing():
        pytest.skip(f"a picture of Rerun needs {lacking}")
    return rerun_screenshot


def test_the_viewer_shows_the_robots(screenshot, tmp_path):
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    bright: dict[str, float] = {}
    for name, groups in (("nothing", (5,)), ("robots", (0, 1, 2))):
        recording = tmp_path / f"{name}.rrd"
        rec = RerunRecorderCfg(path=str(recording), spacing_m=2.0, geom_groups=groups)
        sim = SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine="mjbatch")
        with ManagerBasedRlEnv(cart_cfg(4, sim=sim, recorders={"rerun": rec})) as env:
            env.reset()
            for action in actions(20):
                env.step(action)
        path = tmp_path / f"{name}.png"
        for _ in patiently():
            # On a busy machine the viewer takes its picture before it has read the recording.
            screenshot.take(recording, path, (800, 600), limit_s=PATIENCE_S)
            picture = np.asarray(pil.open(path).convert("L"), float)
            height, width = picture.shape
            # The scene is on the left, below the bars at the top and above those at the bottom.
            scene = picture[height // 8 : -height // 8, : width // 2]
            bright[name] = (scene > 70.0).mean()
            if name == "nothing" or bright["robots"] > 0.01 + bright["nothing"]:
                break


def test_the_script_says_what_it_can_do():
    done = subprocess.run(
        [sys.executable, "rerun_screenshot.py", "--help"],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0 and "--recording" in done.stdout
