"""The benchmark runs; what it measures is for people to judge."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "scripts" / "bench.py"


def test_step_reports_times_and_how_to_repeat_them():
    command = [str(BENCH), "step", "--num-envs", "1", "--steps", "3", "--rounds", "1"]
    command += ["--engine", "mjbatch", "--threads", "1"]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"│ 1 +│ [0-9.]+% +│ 0 +│", ran.stdout), "an engine array was made"
    assert "engine mjbatch on cpu, torch threads 1" in ran.stdout
    assert f"python {' '.join(command)}" in ran.stdout


def test_step_explains_a_peer_that_does_not_start(tmp_path):
    command = [str(BENCH), "step", "--num-envs", "1", "--steps", "1", "--rounds", "1"]
    command += ["--peer-python", str(tmp_path / "python")]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "--peer-python" in ran.stderr
