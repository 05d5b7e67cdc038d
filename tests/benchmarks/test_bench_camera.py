"""The measurement of camera sensors runs; what it measures is for people to judge."""

from __future__ import annotations

import pytest
from test_bench_record import line


@pytest.mark.long
def test_camera_tells_pictures_per_second(run_script):
    words = "camera --num-envs 2 --width 8 --height 6 --mesh-faces 3000 --engine mjbatch"
    ran = run_script("bench.py", *words.split())
    assert ran.returncode == 0, ran.stderr
    assert all(float(value) > 0 for value in line(ran.stdout, "pictures per second"))
    assert len(line(ran.stdout, "time of all pictures (ms)")) == 3
