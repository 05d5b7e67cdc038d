"""The benchmark runs; what it measures is for people to judge."""

from __future__ import annotations

import re
from pathlib import Path

BENCH = Path(__file__).parents[2] / "scripts" / "bench.py"


def test_step_reports_times_and_how_to_repeat_them(run_script):
    command = ["step", "--num-envs", "1", "--steps", "3", "--rounds", "1"]
    command += ["--engine", "mjbatch", "--threads", "1"]
    ran = run_script("bench.py", *command)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"│ 1 +│ [0-9.]+% +│ 0 +│", ran.stdout), "an engine array was made"
    assert "torch calls per step" in ran.stdout
    assert "engine mjbatch on cpu, torch threads 1" in ran.stdout
    assert f"python {BENCH} {' '.join(command)}" in ran.stdout


def test_calls_are_counted_for_the_part_that_makes_them(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH.parent))
    from benchmarks import calls, side

    env = side.make_env("mjlab_rec", 2, "cpu", "mjbatch")
    before = calls.calls(env, 3)
    term = next(iter(env.reward_manager.get_term_cfg(n) for n in env.reward_manager.active_terms))
    func = term.func
    term.func = lambda env, **params: func(env, **params).neg().neg()[:]
    after = calls.calls(env, 3)
    assert after["rewards"] == before["rewards"] + 2  # Views do not count.
    assert {part: n for part, n in after.items() if part != "rewards"} == {
        part: n for part, n in before.items() if part != "rewards"
    }
    assert before["physics"] < sum(before.values())
    env.close()


def test_step_explains_a_peer_that_does_not_start(run_script, tmp_path):
    command = ["step", "--num-envs", "1", "--steps", "1", "--rounds", "1"]
    command += ["--peer-python", str(tmp_path / "python")]
    ran = run_script("bench.py", *command)
    assert ran.returncode == 2
    assert "--peer-python" in ran.stderr
