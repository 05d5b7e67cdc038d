"""The benchmarks of learning run; what they measure is for people to judge."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("rsl_rl")

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_learner_compares_both_ppos(capsys, monkeypatch):
    from benchmarks import learner

    monkeypatch.setenv("COLUMNS", "150")
    learner.main(learner.LearnerArgs(num_envs=(2,), iterations=1, rounds=1))
    shown = capsys.readouterr().out
    assert "2 RSL-RL" in shown and "2 ours" in shown and "2 ratio" in shown
    counts = next(line for line in shown.splitlines() if "update, per mini-batch" in line)
    theirs, ours = (int(cell) for cell in counts.strip("│").split("│")[1:])
    assert 0 < ours < theirs / 2


def test_solve_writes_curves_of_each_seed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    from benchmarks import time_to_solve

    monkeypatch.setenv("COLUMNS", "150")
    time_to_solve.main(
        time_to_solve.SolveArgs(
            seeds=(1, 2),
            num_envs=2,
            episodes=2,
            target=1001.0,  # Out of reach.
            every=128,
            limit_env_steps=256,  # Two iterations.
            path=tmp_path / "curves",
        )
    )
    with (tmp_path / "curves" / "cartpole-balance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["env_steps"]) for row in rows] == [
        (seed, steps) for seed in "12" for steps in ("128", "256")
    ]
    assert 0.0 < float(rows[0]["mean"]) < 1000.0
    assert float(rows[0]["seconds"]) < float(rows[1]["seconds"])
    assert (tmp_path / "curves" / "cartpole-balance.png").stat().st_size > 0
    assert capsys.readouterr().out.count("not solved") == 2
