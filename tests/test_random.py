"""Random streams: reproducible, independent between worlds, isolated from the outside."""

from __future__ import annotations

import pytest
import torch

from mjlab_rec.utils.random import RandomStreams


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values)


@pytest.fixture
def rng() -> RandomStreams:
    return RandomStreams(8, "cpu", seed=3)


def test_same_seed_gives_same_numbers(rng: RandomStreams) -> None:
    other = RandomStreams(8, "cpu", seed=3)
    assert torch.equal(rng.uniform(0.0, 1.0, (8, 4)), other.uniform(0.0, 1.0, (8, 4)))
    assert not torch.equal(
        rng.uniform(0.0, 1.0, (8, 4)),
        RandomStreams(8, "cpu", seed=4).uniform(0.0, 1.0, (8, 4)),
    )


def test_a_world_does_not_notice_the_draws_of_others(rng: RandomStreams) -> None:
    other = RandomStreams(8, "cpu", seed=3)
    rng.uniform(0.0, 1.0, (3, 5), ids(0, 1, 2))
    rng.begin_episode(ids(0, 2))
    together = rng.uniform(0.0, 1.0, (4, 2), ids(7, 0, 5, 4))
    alone = other.uniform(0.0, 1.0, (1, 2), ids(5))
    assert torch.equal(together[2:3], alone)


def test_an_episode_depends_on_its_number_not_on_earlier_draws(rng: RandomStreams) -> None:
    other = RandomStreams(8, "cpu", seed=3)
    rng.uniform(0.0, 1.0, (8, 17))
    for streams in (rng, other):
        streams.begin_episode(ids(1, 6))
    wanted = other.uniform(0.0, 1.0, (2, 3), ids(1, 6))
    assert torch.equal(rng.uniform(0.0, 1.0, (2, 3), ids(1, 6)), wanted)
    rng.begin_episode(ids(1, 6))
    assert not torch.equal(rng.uniform(0.0, 1.0, (2, 3), ids(1, 6)), wanted)


def test_draws_do_not_repeat(rng: RandomStreams) -> None:
    draws = torch.cat([rng.uniform(0.0, 1.0, (8, 100)) for _ in range(20)], dim=1)
    # 24 random bits: of 16000 draws about 8 pairs coincide by chance.
    assert draws.unique().numel() > 0.995 * draws.numel()


def test_both_implementations_draw_the_same_numbers() -> None:
    drawn = []
    for on_cpu in (True, False):
        rng = RandomStreams(8, "cpu", seed=3)
        rng._on_cpu = on_cpu  # What a GPU computes can be computed on the CPU too.
        rng.seed(4)
        rng.begin_episode(ids(1, 4))
        some = rng.uniform(0.0, 1.0, (3, 2, 2), ids(6, 1, 4))
        everything = rng.uniform(0.0, 1.0, (8, 20))
        drawn.append(torch.cat([everything.flatten(), some.flatten(), rng._draws]))
    assert torch.equal(*drawn)


def test_distributions_have_their_moments() -> None:
    rng = RandomStreams(1000, "cpu", seed=0)
    uniform = rng.uniform(-1.0, 3.0, (1000, 100))
    assert uniform.min() >= -1.0 and uniform.max() < 3.0
    assert uniform.mean().item() == pytest.approx(1.0, abs=0.02)
    assert uniform.std().item() == pytest.approx(4 / 12**0.5, abs=0.02)
    normal = rng.gaussian(2.0, 0.5, (1000, 100))
    assert normal.mean().item() == pytest.approx(2.0, abs=0.01)
    assert normal.std().item() == pytest.approx(0.5, abs=0.01)
    assert normal.isfinite().all()
    logs = rng.log_uniform(0.01, 100.0, (1000, 100)).log10()
    assert logs.mean().item() == pytest.approx(0.0, abs=0.03)
    assert rng.integers(1000, 1003, (1000, 100)).max() == 1002
    integers = rng.integers(2, 5, (1000, 100))
    counts = integers.flatten().bincount()
    assert counts[:2].sum() == 0 and len(counts) == 5
    assert counts[2:].float().std() / counts[2:].float().mean() < 0.02


def test_neighbouring_worlds_and_draws_are_uncorrelated() -> None:
    draws = RandomStreams(2000, "cpu", seed=1).uniform(-1.0, 1.0, (2000, 16))
    correlation = torch.corrcoef(draws.T) - torch.eye(16)
    assert correlation.abs().max() < 0.1
    assert (draws[1:] * draws[:-1]).mean().abs() < 0.02


def test_bounds_may_be_tensors(rng: RandomStreams) -> None:
    low, high = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 20.0])
    values = rng.uniform(low, high, (8, 2))
    assert (values[:, 0] < 1.0).all() and (values[:, 1] >= 10.0).all()


def test_more_values_than_ever_before_still_work(rng: RandomStreams) -> None:
    assert rng.uniform(0.0, 1.0, (2, 5, 7), ids(0, 1)).shape == (2, 5, 7)


def test_observation_generator_repeats_within_a_step_and_changes_between_steps(
    rng: RandomStreams,
) -> None:
    rng.restart_observation()
    first = torch.rand(8, generator=rng.observation)
    torch.rand(100, generator=rng.observation)
    rng.uniform(0.0, 1.0, (8, 3))
    rng.restart_observation()
    assert torch.equal(torch.rand(8, generator=rng.observation), first)
    rng.begin_step()
    rng.restart_observation()
    assert not torch.equal(torch.rand(8, generator=rng.observation), first)


def test_seeding_again_restarts_all_streams(rng: RandomStreams) -> None:
    first = rng.uniform(0.0, 1.0, (8, 3))
    with rng.isolated():
        user = torch.rand(3)
    noise = torch.rand(2, generator=rng.observation)
    rng.begin_episode(ids(0, 3))
    rng.begin_step()
    rng.seed(3)
    assert torch.equal(rng.uniform(0.0, 1.0, (8, 3)), first)
    assert torch.equal(torch.rand(2, generator=rng.observation), noise)
    with rng.isolated():
        assert torch.equal(torch.rand(3), user)


def test_isolated_code_neither_sees_nor_changes_the_global_generator(rng: RandomStreams) -> None:
    other = RandomStreams(8, "cpu", seed=3)
    torch.manual_seed(0)
    expected_outside = torch.rand(4)
    torch.manual_seed(0)
    with rng.isolated():
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected_outside)
    with other.isolated():
        assert torch.equal(torch.rand(4), inside)
    with rng.isolated():
        assert not torch.equal(torch.rand(4), inside)
