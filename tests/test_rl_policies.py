"""Policies by name, and the returns of the episodes that they play."""

from __future__ import annotations

import pytest
import torch
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.rl.policies import policy_maker
from mjlab_rec.rl.returns import Returns


@pytest.fixture
def env():
    with ManagerBasedRlEnv(cart_cfg(4)) as env:
        env.reset()
        yield env


def half(env):
    """A policy of a user's own."""
    return lambda obs: torch.full_like(env.action_manager.action, 0.5)


def test_zero_answers_zero(env):
    action = policy_maker("zero")(env)(env.obs_buf)
    assert action.shape == (4, 1) and not action.any()


def test_random_policy_draws_in_range_from_its_own_generator(env):
    before = torch.get_rng_state()
    first, again = policy_maker("random")(env), policy_maker("random")(env)
    drawn = torch.cat([first(env.obs_buf) for _ in range(50)])
    assert torch.equal(drawn, torch.cat([again(env.obs_buf) for _ in range(50)]))
    assert -1 <= drawn.min() < -0.9 and 0.9 < drawn.max() <= 1
    assert torch.equal(before, torch.get_rng_state())


def test_random_policy_draws_within_the_action_space(monkeypatch, env):
    inf = float("inf")
    bounds = torch.tensor([[2.0, -inf, -inf, 0.0], [4.0, inf, 0.5, inf]])
    monkeypatch.setattr(type(env.action_manager), "action_bounds", tuple(bounds))
    monkeypatch.setattr(type(env.action_manager), "action", torch.zeros(500, 4))
    drawn = policy_maker("random")(env)(env.obs_buf)
    low, high = drawn.amin(dim=0), drawn.amax(dim=0)
    torch.testing.assert_close(low, torch.tensor([2.0, -1.0, -1.0, 0.0]), atol=0.02, rtol=0.0)
    torch.testing.assert_close(high, torch.tensor([4.0, 1.0, 0.5, 1.0]), atol=0.02, rtol=0.0)
    assert ((drawn >= bounds[0]) & (drawn <= bounds[1])).all()


def test_own_policy_is_found_by_its_name(env):
    assert (policy_maker(f"{__name__}:half")(env)(env.obs_buf) == 0.5).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rondom", "Unknown agent 'rondom'. Did you mean 'random'?"),
        ("latst", "Unknown agent 'latst'. Did you mean 'latest'?"),
        ("no_such_module:policy", "Is it installed, or in the current folder?"),
        (f"{__name__}:pytestmark_", "has no 'pytestmark_'"),
        (f"{__name__}:__name__", "is not a function that takes an environment"),
    ],
)
def test_objects_that_are_not_policies_are_refused(name, message):
    with pytest.raises(ValueError, match="(?s)" + message.replace("?", r"\?").replace("(", r"\(")):
        policy_maker(name)


def test_returns_add_up_the_rewards_of_whole_episodes(env):
    returns, log = Returns(env), []
    for step in range(16):
        if step == 6:  # Mid-episode in envs 0, 2 and 3; it never ends, so it never counts.
            env.reset(env_ids=torch.tensor([0]))
        env.step(torch.zeros(4, 1))
        returns.add_step()
        log.append((env.reward_buf.clone(), env.reset_buf.clone()))
    rewards = torch.stack([reward for reward, _ in log])
    done = torch.stack([done for _, done in log])
    expected = []
    for step in range(16):
        for i in done[step].nonzero().flatten().tolist():
            earlier = done[:step, i].nonzero().flatten().tolist()
            first = max([0, *(e + 1 for e in earlier), 6 * (i == 0)])
            expected.append((rewards[first : step + 1, i].sum().item(), step + 1 - first))
    assert len(expected) > 4
    assert returns.lengths == [length for _, length in expected]
    assert returns.finished == pytest.approx([total for total, _ in expected], rel=1e-5)
