"""Commands set by hand: what stays, what the rest of the rollout notices, and what sliders show."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from worlds import Goal, GoalCfg, actions, cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.viewer.commands import (
    command_axes,
    hold_command,
    read_commands,
    release_command,
)


@pytest.fixture
def env():
    with ManagerBasedRlEnv(cart_cfg(4)) as env:
        env.reset()
        yield env


def goal(env: ManagerBasedRlEnv) -> torch.Tensor:
    return env.command_manager.get_command("goal")[:, 0]


def test_a_held_command_stays_through_drift_resampling_and_resets(env):
    hold_command(env, "goal", 2, [5.0])
    assert goal(env)[2] == 5.0
    for action in actions(30):
        obs: Any = env.step(action)[0]
        assert goal(env)[2] == 5.0
        assert obs["critic"]["goal"][2] == 5.0
    obs, _ = env.reset(env_ids=torch.tensor([2]))
    assert obs["critic"]["goal"][2] == 5.0


def test_other_environments_and_later_random_numbers_do_not_notice():
    def rollout(hold: bool) -> list[torch.Tensor]:
        with ManagerBasedRlEnv(cart_cfg(4)) as env:
            env.reset()
            rows = []
            for step, action in enumerate(actions(40)):
                if hold and step == 5:
                    hold_command(env, "goal", 1, [0.25])
                if hold and step == 20:
                    release_command(env, "goal", 1)
                obs: Any = env.step(action)[0]
                rows.append(obs["critic"]["goal"].clone())
            return rows

    plain, held = rollout(False), rollout(True)
    others = [0, 2, 3]
    for before, after in zip(plain, held, strict=True):
        assert torch.equal(before[others], after[others])
    assert not torch.equal(plain[10][1], held[10][1])
    # Once a command is drawn after the release, nothing is left of what was set by hand.
    assert torch.equal(plain[-1], held[-1])


@pytest.mark.parametrize(
    ("command", "message"),
    [([[1.0, 2.0]], r"shape \(1, 2\), but \(1, 1\) is needed"), ([[float("nan")]], "finite")],
)
def test_a_command_that_does_not_fit_is_refused_and_nothing_is_held(env, command, message):
    term = env.command_manager.get_term("goal")
    with pytest.raises(ValueError, match=message):
        term.hold(torch.tensor(command), torch.tensor([1]))
    assert not term.held.any() and term.command.isfinite().all()


def test_a_released_command_moves_again(env):
    hold_command(env, "goal", 0, [5.0])
    env.step(actions(1)[0])
    release_command(env, "goal", 0)
    env.step(actions(1)[0])
    assert goal(env)[0] != 5.0


def test_all_commands_are_released_at_once(env):
    term = env.command_manager.get_term("goal")
    assert not term.held.any()
    term.release()
    term.hold(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 3]))
    assert term.held.tolist() == [True, False, False, True]
    term.release()
    assert not term.held.any()


def test_a_term_with_its_own_compute_is_held_too():
    class Own(Goal):
        def compute(self, dt: Any, env_ids: torch.Tensor | None = None) -> None:
            self.goal[slice(None) if env_ids is None else env_ids] += 0.5

    @dataclass(kw_only=True)
    class OwnCfg(GoalCfg):
        def build(self, env: Any) -> Goal:
            return Own(self, env)

    cfg = cart_cfg(4, commands={"goal": OwnCfg(resampling_time_range=(1.0, 1.0))})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        hold_command(env, "goal", 1, [7.0])
        before = goal(env).clone()
        env.step(actions(1)[0])
        assert goal(env)[1] == 7.0
        assert goal(env)[0] == before[0] + 0.5


def test_a_command_that_is_computed_each_time_cannot_be_held():
    class Fresh(Goal):
        @property
        def command(self) -> torch.Tensor:
            return self.goal + 1.0

    @dataclass(kw_only=True)
    class FreshCfg(GoalCfg):
        def build(self, env: Any) -> Goal:
            return Fresh(self, env)

    cfg = cart_cfg(4, commands={"goal": FreshCfg(resampling_time_range=(1.0, 1.0))})
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        with pytest.raises(NotImplementedError, match="Fresh cannot be set by hand"):
            env.command_manager.get_term("goal").hold(torch.ones(1, 1), torch.tensor([1]))
        # A slider is no reason to end a run.
        assert "cannot be set by hand" in (hold_command(env, "goal", 1, [7.0]) or "")
        assert not read_commands(env, 1)["goal"].held


def test_viewers_read_the_command_and_whether_it_is_held(env):
    hold_command(env, "goal", 3, [0.5])
    assert read_commands(env, 3)["goal"].values == [0.5]
    assert read_commands(env, 3)["goal"].held
    assert not read_commands(env, 0)["goal"].held


def test_a_task_without_commands_has_none_to_read():
    cfg = cart_cfg(2, commands={})
    for group in cfg.observations.values():
        del group.terms["goal"]
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        assert read_commands(env, 0) == {}


def fake_term(ranges: Any, command: torch.Tensor) -> Any:
    return SimpleNamespace(cfg=SimpleNamespace(ranges=ranges), command=command)


def test_axes_take_names_and_ranges_from_the_config():
    ranges = {"lin_vel_x": (-1.0, 2.0), "lin_vel_y": (-0.5, 0.5), "heading": None}
    x, y = command_axes(fake_term(ranges, torch.zeros(3, 2)))
    assert (x.label, x.low, x.high) == ("lin_vel_x", -1.0, 2.0)
    assert (y.label, y.low, y.high) == ("lin_vel_y", -0.5, 0.5)


def test_axes_without_a_range_reach_around_the_commands_in_force():
    small, large, fixed = command_axes(
        fake_term({}, torch.tensor([[0.1, 3.3, 0.0], [0.2, -1.0, 0.0]]))
    )
    assert (small.label, small.low, small.high) == ("0", -1.0, 1.0)
    assert (large.label, large.low, large.high) == ("1", -7.0, 7.0)
    assert (fixed.low, fixed.high) == (-1.0, 1.0)


def test_a_range_of_one_value_still_gives_a_slider():
    (axis,) = command_axes(fake_term({"speed": (0.0, 0.0)}, torch.zeros(2, 1)))
    assert axis.low < axis.high
