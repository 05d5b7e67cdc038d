"""The measurement of videos runs; what it measures is for people to judge."""

from __future__ import annotations

import mujoco
import pytest
from test_bench_record import line

from mjlab_rec.sim import gl


@pytest.mark.long
def test_video_tells_stalls_and_memory(run_script):
    pytest.importorskip("imageio_ffmpeg")
    try:
        gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
    except RuntimeError as error:
        pytest.skip(str(error))
    words = (
        "video --num-envs 2 --clips 2 --length 3 --gap 6 --memory-frames 130 --memory-envs 1"
        " --width 32 --height 24 --engine mjbatch --renderer gl"
    )
    ran = run_script("bench.py", *words.split())
    assert ran.returncode == 0, ran.stderr
    assert line(ran.stdout, "pictures") == ["0", "6"]
    stall = line(ran.stdout, "stall: longest less median, in steps")
    assert all(float(value) >= 0 for value in stall)
    (growth,) = line(ran.stdout, "growth")
    assert growth.endswith("%")
