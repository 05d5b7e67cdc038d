"""The benchmark of pictures runs; what it measures is for people to judge."""

from __future__ import annotations


def test_pictures_reports_what_they_cost(run_script, tmp_path):
    command = ["pictures", "--num-envs", "2", "--size", "16", "--steps", "2", "--rounds", "1"]
    ran = run_script("bench.py", *command, "--codecs", "raw", "png", "--path", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    for quantity in ("recording adds", "times smaller", "a random batch (ms)"):
        assert quantity in ran.stdout
    assert (tmp_path / "png_0.h5").exists()
    assert "bench.py pictures --num-envs 2 --size 16" in ran.stdout
