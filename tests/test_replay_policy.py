"""A policy's answers to recorded observations are compared with the recorded actions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from worlds import cart_cfg

from mjlab_rec.commands import replay
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import MemoryRecorderCfg
from mjlab_rec.recorders.presets import load_preset
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.replay import compare_policy


class Counting:
    """A recurrent policy: it answers with the number of steps since the episode began."""

    def __init__(self, num_envs: int, off: float = 0.0) -> None:
        self.steps = torch.zeros(num_envs)
        self.off = off

    def __call__(self, obs: dict[str, Any]) -> torch.Tensor:
        self.steps += 1
        pole = obs["actor"][:, 1] if obs["critic"].keys() else self.steps
        return (0.01 * self.steps + 0.1 * pole + self.off)[:, None]

    def reset(self, dones: torch.Tensor) -> None:
        self.steps[dones] = 0.0


def roll(channels: tuple[str, ...]) -> Rollouts:
    recorders: Any = {"log": MemoryRecorderCfg(channels=channels)}
    with ManagerBasedRlEnv(cart_cfg(recorders=recorders)) as env:
        policy = Counting(4)
        obs, _ = env.reset()
        for _ in range(20):
            obs, _, terminated, truncated, _ = env.step(policy(obs))
            policy.reset(terminated | truncated)
        return env.recorder_manager.get_term("log").rollouts  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    return roll(("obs", "action"))


@pytest.mark.parametrize("num_envs", [1, 3, 50])
def test_the_policy_that_was_recorded_answers_the_same(rollouts, num_envs):
    found = compare_policy(rollouts, Counting(num_envs), num_envs=num_envs)
    assert found.ok and found.most < 1e-5
    assert sum(e.steps for e in found.episodes) == 80
    assert [e.index for e in found.episodes] == list(range(len(rollouts)))


def test_another_policy_differs_by_so_much(rollouts):
    seen: list[tuple[int, int]] = []
    found = compare_policy(
        rollouts,
        Counting(4, off=0.25),
        num_envs=4,
        episodes=[2, 0],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert not found.ok and [e.index for e in found.episodes] == [2, 0]
    assert found.mean == pytest.approx(0.25, abs=1e-4)
    assert found.most == pytest.approx(0.25, abs=1e-4)
    assert found.episodes[0].first == 0 and "first at step 0" in str(found.episodes[0])
    steps = sum(rollouts.episodes["rows"][i] for i in (0, 2))
    assert seen[-1] == (steps, steps)
    assert compare_policy(rollouts, Counting(4, off=0.25), num_envs=4, tolerance=0.3).ok


def test_what_is_missing_is_named(rollouts):
    with pytest.raises(DataError, match="'obs' and 'action'.*has: action, state"):
        compare_policy(roll(("action", "state")), Counting(4), num_envs=4)
    with pytest.raises(DataError, match=r"shape \(3,\), the recorded ones \(1,\)"):
        compare_policy(rollouts, lambda obs: torch.zeros(4, 3), num_envs=4)
    with pytest.raises(ValueError, match="tolerance is -1"):
        compare_policy(rollouts, Counting(4), num_envs=4, tolerance=-1.0)


def test_the_command_prints_differences(tmp_path, capsys):
    path = str(tmp_path / "zero.h5")
    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = 2
    cfg.task = "cartpole-balance"
    cfg.recorders = {"log": load_preset("replay", path=path)}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset(seed=0)
        for _ in range(5):
            env.step(torch.zeros(2, 1))
    replay.main([path, "--policy", "zero"])
    assert "0 of 2 episodes have actions that differ" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        replay.main([path, "--policy", "random", "--tolerance", "0.001"])
    assert ended.value.code == 1
    assert "2 of 2 episodes have actions that differ" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        replay.main([path, "--policy", "zero", "--task", "cartpole-balanse"])
    assert ended.value.code == 2
    assert "cartpole-balance" in capsys.readouterr().err
