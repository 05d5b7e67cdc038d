"""The comparison of Gymnasium's tasks runs; what it measures is for people to judge."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts_on_path(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def test_ids_are_those_of_gymnasium():
    import gymnasium
    from benchmarks.gym_side import gymnasium_id

    for task in ("gym-hopper", "gym-half-cheetah", "gym-walker2d", "gym-inverted-double-pendulum"):
        assert gymnasium_id(task) in gymnasium.registry


@pytest.mark.parametrize("way", ["mjlab_rec, numpy", "Gymnasium sync"])
def test_every_environment_gets_actions_from_the_whole_action_space(way):
    from benchmarks.gym_side import Runner

    runner = Runner(way, "gym-hopper", 3)
    assert runner.actions.shape == (16, 3, 3)
    assert -1 <= np.min(runner.actions) < -0.9 and 0.9 < np.max(runner.actions) <= 1
    taken = []
    step = runner.envs.step
    runner.envs.step = lambda action: taken.append(step(action))
    speed = runner.round(0.01)
    assert len(taken) % 16 == 0 and speed > 0.0
    assert taken[-1][0].keys() >= {"actor"} if way.startswith("mjlab") else taken[-1][0].size
    runner.envs.close()


def test_ways_are_compared_in_the_same_rounds(monkeypatch, capsys):
    from benchmarks import gym_throughput

    asked = []

    class Side:
        def __init__(self, python, way, script):
            self.way = way

        def ask(self, **request):
            asked.append(self.way)
            return {"mjlab_rec": 3000.0, "EnvPool": 1500.0}.get(self.way, 1000.0)

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(gym_throughput, "Side", Side)
    args = gym_throughput.GymArgs(
        tasks=("gym-hopper",), num_envs=(2,), rounds=1, most_processes=1, envpool_python="python"
    )
    gym_throughput.main(args)
    ways = ["mjlab_rec", "mjlab_rec, numpy", "Gymnasium sync", "EnvPool"]
    assert asked == [*ways, *ways, *["closed"] * 4]
    out = capsys.readouterr().out
    row, shares = re.findall(r"│ 2 +│(.*)│\n", out)
    cells = [cell.strip() for cell in row.split("│")]
    assert cells == ["3,000", "1,000 (3.0x)", "1,000 (3.0x)", "-", "1,500 (2.0x)"]
    assert re.fullmatch(r"(\s*\d+%\s*│){4}\s*\d+\s*", shares)
