"""The benchmark of checking runs; what it measures is for people to judge."""

from __future__ import annotations


def test_check_is_compared_with_reading_the_bytes(run_script, tmp_path):
    command = ["check", "--envs", "3", "--steps", "600", "--obs", "2", "--rounds", "1"]
    ran = run_script("bench.py", *command, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "check / cat" in ran.stdout and "3 environments, 600 steps" in ran.stdout
    assert not list(tmp_path.iterdir())
