"""The benchmark of reading runs; what it measures is for people to judge."""

from __future__ import annotations

import re


def test_read_compares_with_mapped_arrays(run_script, tmp_path):
    command = ["read", "--rows", "300", "--num-envs", "8", "--batch-size", "32", "--length", "4"]
    command += ["--seconds", "0.01", "--rounds", "1", "--memory-mb", "0"]
    ran = run_script("bench.py", *command, "--out", str(tmp_path / "disk"))
    assert ran.returncode == 0, ran.stderr
    assert "304 rows of 8 channels" in ran.stdout
    assert re.search(r"0 MB . memmap", ran.stdout), ran.stdout
    for quantity in ("rows (million/s)", "windows of 4 (million/s)", "first batch (s)"):
        assert quantity in ran.stdout
    assert not list((tmp_path / "disk").iterdir())


def test_open_measures_folders_of_workers(run_script, tmp_path):
    command = ["open", "--workers", "2", "3", "--parts", "3", "--num-envs", "2"]
    ran = run_script("bench.py", *command, "--block-steps", "4", "--out", str(tmp_path / "disk"))
    assert ran.returncode == 0, ran.stderr
    assert "2 workers" in ran.stdout and "3 workers" in ran.stdout
    for quantity in ("listing (s)", "opening (s)", "memory (MB)", "first batch (s)"):
        assert quantity in ran.stdout
    assert not list((tmp_path / "disk").iterdir())
