"""Evaluations: the same numbers as from a loop over single environments, and no bias."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from worlds import cart_cfg, lengths, tip_height

from mjlab_rec.commands import evaluate as command
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import MetricsTermCfg, TerminationTermCfg
from mjlab_rec.rl.evaluate import EVALUATION_SEED, evaluate, statistics
from mjlab_rec.viewer.playback import Playback

STEPS = (7, 4, 9, 5)


def lucky(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Whether the pole's tip is higher than it usually is."""
    return (tip_height(env) > 1.99).float()


class Pusher:
    """Pushes against the cart's motion, harder with each step of the episode."""

    def __init__(self, num_envs: int) -> None:
        self.steps = torch.zeros(num_envs)

    def __call__(self, obs: dict[str, Any]) -> torch.Tensor:
        self.steps += 1
        return (-obs["actor"][:, :1] * 5.0 - 0.05 * self.steps[:, None]).clamp(-1, 1)

    def reset(self, dones: torch.Tensor | None = None) -> None:
        self.steps[slice(None) if dones is None else dones] = 0


def make(num_envs: int = 4, **cfg: Any) -> ManagerBasedRlEnv:
    cfg = {"metrics": {"success": MetricsTermCfg(func=lucky, reduce="last")}, **cfg}
    return ManagerBasedRlEnv(cart_cfg(num_envs, steps=STEPS, **cfg))


def by_hand(env: ManagerBasedRlEnv, quota: list[int], seed: int) -> list[dict[str, Any]]:
    """The episodes of each environment, from a log of all steps."""
    policy = Pusher(env.num_envs)
    obs, _ = env.reset(seed=seed)
    log = []
    for _ in range(40):
        obs, reward, terminated, truncated, _ = env.step(policy(obs))
        done = terminated | truncated
        parts = env.reward_manager.step_reward.double() * env.step_dt
        # The pole's height at the end of an episode is gone after the reset: what was logged.
        means = env.extras["log"].get("Episode_Metrics/success")
        log.append((reward.double(), parts, done, env.termination_manager.get_term("end"), means))
        policy.reset(done)
    episodes = []
    for index, count in enumerate(quota):
        ends = [step for step, entry in enumerate(log) if entry[2][index]][:count]
        first = 0
        for end in ends:
            rows = log[first : end + 1]
            alone = int(log[end][2].sum()) == 1
            episodes.append(
                {
                    "env": index,
                    "return": sum(float(row[0][index]) for row in rows),
                    "length": len(rows),
                    "height": sum(float(row[1][index, 0]) for row in rows),
                    "end": bool(log[end][3][index]),
                    "success": float(log[end][4]) > 0 if alone else None,
                }
            )
            first = end + 1
    return episodes


def test_episodes_are_those_of_an_independent_loop():
    with make() as env, make() as other:
        found = evaluate(env, Pusher(4), episodes=11, seed=5)
        expected = by_hand(other, [3, 3, 3, 2], seed=5)
    assert len(found) == 11
    assert found.envs.tolist() == [episode["env"] for episode in expected]
    assert found.lengths.tolist() == [episode["length"] for episode in expected]
    np.testing.assert_allclose(found.returns, [e["return"] for e in expected], rtol=1e-12)
    np.testing.assert_allclose(found.rewards["height"], [e["height"] for e in expected], rtol=1e-6)
    np.testing.assert_allclose(sum(found.rewards.values()), found.returns, rtol=1e-5)
    assert found.terminations["end"].tolist() == [episode["end"] for episode in expected]
    assert not found.terminations["time_out"].any()
    assert found.success is not None
    logged = [(i, e["success"]) for i, e in enumerate(expected) if e["success"] is not None]
    assert len(logged) > 4 and all(bool(found.success[i]) == said for i, said in logged)
    assert 0 < found.success.mean() < 1
    assert found.metrics["success"].tolist() == found.success.tolist()


def test_short_episodes_are_not_preferred():
    with make() as env:
        found = evaluate(env, Pusher(4), episodes=8)
    # The first 8 to end would hold only two of the episodes of 7 and 9 steps.
    assert sorted(found.lengths.tolist()) == [4, 4, 5, 5, 7, 7, 9, 9]
    assert found.seed == EVALUATION_SEED


def test_the_same_seed_gives_the_same_episodes_and_another_seed_others():
    with make() as env:
        env.step(torch.ones(4, 1))
        first = evaluate(env, Pusher(4), episodes=4, seed=1)
        again = evaluate(env, Pusher(4), episodes=4, seed=1)
        other = evaluate(env, Pusher(4), episodes=4, seed=2)
    assert first.per_episode() == again.per_episode()
    assert first.returns.tolist() != other.returns.tolist()


def test_the_policy_leaves_the_cores_to_the_physics_engine():
    seen = set()

    def policy(obs: dict[str, Any]) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return torch.zeros(4, 1)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with make() as env:
            evaluate(env, policy, episodes=4)
            playback = Playback(env, policy)
            playback.run(lambda: playback.steps == 2)
        assert seen == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_termination_named_success_counts_before_a_metric_of_that_name():
    terminations = {
        "end": TerminationTermCfg(func=lengths, params={"steps": (7, 40)}),
        "success": TerminationTermCfg(func=lengths, params={"steps": (40, 4)}),
    }
    with make(terminations=terminations) as env:
        found = evaluate(env, Pusher(4), episodes=4)
    assert found.success.tolist() == [False, True, False, True]
    with make(metrics={}) as env:
        found = evaluate(env, Pusher(4), episodes=4)
    assert found.success is None and found.summary()["success_rate"] is None


def test_episodes_that_never_end_are_an_error():
    with make(terminations={}, episode_length_s=0.4) as env:
        with pytest.raises(ValueError, match=r"After 11 steps 4 of 4 .*time_out"):
            evaluate(env, Pusher(4), episodes=4)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            evaluate(env, Pusher(4), episodes=0)
    with make(auto_reset=False) as env, pytest.raises(ValueError, match="auto_reset=True"):
        evaluate(env, Pusher(4))


def test_statistics_of_a_sample():
    found = statistics(np.arange(1.0, 101.0))
    assert found["mean"] == 50.5 and found["min"] == 1.0 and found["max"] == 100.0
    assert found["std"] == pytest.approx(29.0115, abs=1e-4)
    assert found["ci95"] == pytest.approx([50.5 - 5.6862, 50.5 + 5.6862], abs=1e-3)
    assert found["quantiles"]["0.5"] == 50.5
    one = statistics(np.array([3.0]))
    assert one["std"] == 0.0 and one["ci95"] == [3.0, 3.0]


def test_the_command_prints_tables_and_writes_json_and_recordings(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out, rows = tmp_path / "out.json", tmp_path / "rows.csv"
    words = "--task cartpole-balance --agent random --episodes 6 --num-envs 4 --seed 3"
    words += f" --env.episode-length-s 0.5 --json {out} --record csv --record.path {rows}"
    command.main(words.split())
    said = capsys.readouterr().out
    assert "6 episodes in 4 environments, random agent" in said
    assert "Ended by time_out" in said and "Reward smooth" in said
    found = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert found["episodes"] == 6 and found["seed"] == 3 and found["num_envs"] == 4
    assert found["per_episode"]["env"] == [0, 0, 1, 1, 2, 3]
    assert found["return"]["mean"] == pytest.approx(np.mean(found["per_episode"]["return"]))
    assert found["terminations"] == {"time_out": 1.0}
    assert f"Recorder csv wrote {rows}" in said and len(rows.read_text().splitlines()) > 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--episodes 0", "--episodes must be at least 1"),
        ("--json nowhere/out.json", "there is no folder"),
        ("--log-root nowhere", "No checkpoint of the task 'cartpole-balance'"),
    ],
)
def test_impossible_options_are_an_error(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--task", "cartpole-balance", *words.split()])
    assert exit_.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
