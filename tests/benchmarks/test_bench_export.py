"""The benchmark of exports runs; what it measures is for people to judge."""

from __future__ import annotations


def test_export_reports_both_sides(run_script):
    command = ["--episodes", "1", "--steps", "3", "--peer-episodes", "2", "--rounds", "1"]
    ran = run_script("bench.py", "export", *command)
    assert ran.returncode == 0, ran.stderr
    for what in ("reading the", "export to minari", "own writer:", "500 episodes of 3 steps"):
        assert what in ran.stdout, ran.stdout
