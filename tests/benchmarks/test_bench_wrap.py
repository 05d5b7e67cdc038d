"""The benchmark of wrappers runs; what it measures is for people to judge."""

from __future__ import annotations


def test_wrap_reports_each_way(run_script):
    command = ["--tasks", "CartPole-v1", "--num-envs", "2", "--env-steps", "40", "--rounds", "1"]
    ran = run_script("bench.py", "wrap", *command)
    assert ran.returncode == 0, ran.stderr
    for what in ("CartPole-v1", "RecordVector", "statistics"):
        assert what in ran.stdout, ran.stdout
