"""Managers and sensors do with few torch calls what they could do term by term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes import FakeEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mjlab_rec.managers import (
    MetricsManager,
    MetricsTermCfg,
    ObservationGroupCfg,
    ObservationManager,
    ObservationTermCfg,
    RewardManager,
    RewardTermCfg,
    TerminationManager,
    TerminationTermCfg,
)
from mjlab_rec.utils.noise import ConstantNoiseCfg, GaussianNoiseCfg, UniformNoiseCfg

VIEWS = {"select", "slice", "unsqueeze", "detach", "unbind", "alias", "view", "squeeze"}


class Calls(TorchDispatchMode):
    """Counts torch operations."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func.__name__.split(".")[0] not in VIEWS
        return func(*args, **(kwargs or {}))


def calls(run: Callable[[], Any]) -> int:
    run()
    with torch.no_grad(), Calls() as counter:
        run()
    return counter.number


def value(env: FakeEnv) -> torch.Tensor:
    return env.value


def wide(env: FakeEnv, columns: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(env.num_envs, columns, generator=generator) * 4 - 2


def kept(env: FakeEnv, store: list[torch.Tensor]) -> torch.Tensor:
    return store[0]


def rewards(env: Any, count: int) -> RewardManager:
    cfg = {f"r{i}": RewardTermCfg(func=value, weight=i - 1.0) for i in range(count)}
    return RewardManager(cfg, env)


def terminations(env: Any, count: int) -> TerminationManager:
    def over(env: FakeEnv, done: list[torch.Tensor]) -> torch.Tensor:
        return done[0]

    done = {"done": [torch.zeros(4, dtype=torch.bool)]}
    return TerminationManager(
        {
            f"t{i}": TerminationTermCfg(func=over, params=done, time_out=i % 2 == 0)
            for i in range(count)
        },
        env,
    )


def metrics(env: Any, count: int) -> MetricsManager:
    kinds: list[Any] = ["last", "mean", "sum"]
    terms = {f"m{i}": MetricsTermCfg(func=value, reduce=kinds[i % 3]) for i in range(count)}
    return MetricsManager(terms, env)


def observations(env: Any, count: int) -> ObservationManager:
    terms = {
        f"o{i}": ObservationTermCfg(
            func=kept,
            params={"store": [wide(env, seed=i)]},
            noise=UniformNoiseCfg(n_min=-0.1, n_max=0.2),
            clip=(-1.0, 1.0),
            scale=2.0,
        )
        for i in range(count)
    }
    return ObservationManager({"actor": ObservationGroupCfg(terms, enable_corruption=True)}, env)


@pytest.mark.parametrize(
    "make, run",
    [
        (rewards, lambda manager: manager.compute(dt=0.1)),
        (terminations, lambda manager: manager.compute()),
        (terminations, lambda manager: manager.reset(torch.tensor([1]))),
        (observations, lambda manager: manager.compute(update_history=True)),
        (metrics, lambda manager: manager.compute()),
    ],
)
def test_a_manager_makes_as_many_calls_for_ten_terms_as_for_four(make: Any, run: Any):
    env: Any = FakeEnv()
    few, many = (make(env, count) for count in (4, 10))
    assert calls(lambda: run(few)) == calls(lambda: run(many)) <= 8


def test_a_reset_makes_as_many_calls_for_ten_metrics_as_for_four():
    env: Any = FakeEnv()
    few, many = (metrics(env, count) for count in (4, 10))
    ids = torch.tensor([1])
    assert calls(lambda: few.reset(ids)) == calls(lambda: many.reset(ids))


def test_rewards_may_be_of_any_type():
    env: Any = FakeEnv()
    values = [
        torch.tensor([True, False, True, False]),
        torch.tensor([1, 2, 3, 4]),
        torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64),
        torch.tensor([0.1, float("nan"), 0.3, float("inf")]),
    ]
    for chosen in ([0], [1], [2], [0, 1], [0, 1, 2, 3]):
        cfg = {
            f"r{i}": RewardTermCfg(func=kept, weight=0.5, params={"store": [values[i]]})
            for i in chosen
        }
        manager = RewardManager(cfg, env)
        terms = [torch.nan_to_num(values[i].float() * 0.5, 0.0, 0.0, 0.0) for i in chosen]
        reward = manager.compute(dt=0.1)
        assert reward.dtype == torch.float32
        torch.testing.assert_close(reward, torch.stack(terms).sum(dim=0) * 0.1)
        assert torch.equal(manager.step_reward, torch.stack(terms, dim=1))


clips = st.none() | st.tuples(st.floats(-2, 0), st.floats(0, 2))
scales = st.none() | st.floats(-2, 2) | st.tuples(st.floats(-2, 2), st.floats(-2, 2))


@given(st.lists(st.tuples(clips, scales, st.booleans()), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_group_at_once_equals_its_terms_one_by_one(terms: list[Any]):
    env: Any = FakeEnv()

    def cfg(**other: Any) -> dict[str, ObservationTermCfg]:
        return {
            f"o{i}": ObservationTermCfg(
                func=wide, params={"seed": i}, clip=clip, scale=scale, **other
            )
            for i, (clip, scale, _) in enumerate(terms)
        }

    at_once, one_by_one = ObservationGroupCfg(cfg()), ObservationGroupCfg(cfg())
    one_by_one.concatenate_terms = False
    manager = ObservationManager({"a": at_once, "b": one_by_one}, env)
    obs: Any = manager.compute()
    assert torch.equal(obs["a"], torch.cat(list(obs["b"].values()), dim=1))


def test_noise_stays_in_its_term_and_range():
    env: Any = FakeEnv(num_envs=2000)
    plain = ObservationTermCfg(func=wide)
    terms = {
        "first": plain,
        "even": ObservationTermCfg(func=wide, noise=UniformNoiseCfg(n_min=0.1, n_max=0.5)),
        "between": plain,
        "each": ObservationTermCfg(
            func=wide, noise=UniformNoiseCfg(n_min=(-1.0, 0.0), n_max=(0.0, 0.0))
        ),
        "normal": ObservationTermCfg(func=wide, noise=GaussianNoiseCfg(mean=1.0, std=0.2)),
        "last": plain,
    }
    manager = ObservationManager({"a": ObservationGroupCfg(terms, enable_corruption=True)}, env)
    noise = manager.compute()["a"] - torch.cat([wide(env)] * 6, dim=1)
    for columns in (slice(0, 2), slice(4, 6), slice(7, 8), slice(10, 12)):
        assert not noise[:, columns].any()
    for columns, low, high in ((slice(2, 4), 0.1, 0.5), (slice(6, 7), -1.0, 0.0)):
        part = noise[:, columns]
        assert low - 1e-5 <= part.min() < low + 0.02 and high - 0.02 < part.max() <= high + 1e-5
        assert abs(part.mean() - (low + high) / 2) < 0.02
    assert abs(noise[:, 8:10].mean() - 1.0) < 0.02 and abs(noise[:, 8:10].std() - 0.2) < 0.02
    assert torch.corrcoef(noise[:, [2, 3, 6, 8, 9]].T).fill_diagonal_(0.0).abs().max() < 0.1


def test_settings_may_change_later():
    env: Any = FakeEnv()
    manager = observations(env, 3)
    before: Any = manager.compute()
    term = manager.get_term_cfg("actor", "o1")
    term.clip, term.noise.n_max = (-0.5, 0.5), -0.05  # pyright: ignore
    now: Any = manager.compute(update_history=True)
    assert now["actor"][:, 2:4].abs().max() <= 1.0 < before["actor"][:, 2:4].abs().max()
    assert torch.equal(now["actor"][:, :2], before["actor"][:, :2])
    term.noise = ConstantNoiseCfg(bias=1.0)
    with pytest.raises(ValueError, match="changed to ConstantNoiseCfg.*after the environment"):
        manager.compute(update_history=True)
