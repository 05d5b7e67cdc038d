"""The PPO with few torch calls: it learns what RSL-RL's learns, or runs RSL-RL's own code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("rsl_rl")
from rsl_rl.algorithms import PPO as RslRlPpo
from tensordict import TensorDict

from mjlab_rec.rl.ppo import PPO

NUM_ENVS, NUM_STEPS, NUM_ACTIONS = 16, 12, 3


@pytest.fixture(autouse=True)
def double():
    """Compute in float64, in which two ways of computing the same differ less."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Env:
    """What an algorithm reads of an environment."""

    num_envs = NUM_ENVS
    num_actions = NUM_ACTIONS


def observations(generator: torch.Generator) -> TensorDict:
    def draw(n: int) -> torch.Tensor:
        return torch.randn(NUM_ENVS, n, generator=generator) * 3.0 + 1.0

    return TensorDict({"actor": draw(5), "critic": draw(2)}, batch_size=[NUM_ENVS])


def make(
    algorithm: type,
    actor: dict[str, Any] | None = None,
    distribution: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Build the algorithm; networks of the same sizes start with the same parameters."""
    torch.manual_seed(0)
    gaussian = {"class_name": "GaussianDistribution", "init_std": 0.7} | (distribution or {})
    net = {"class_name": "MLPModel", "hidden_dims": (8, 8), "obs_normalization": True}
    cfg = {
        "algorithm": {"class_name": algorithm, "rnd_cfg": None, "symmetry_cfg": None} | settings,
        "actor": net | {"distribution_cfg": gaussian} | (actor or {}),
        "critic": dict(net),
        "obs_groups": {"actor": ["actor"], "critic": ["actor", "critic"]},
        "num_steps_per_env": NUM_STEPS,
        "multi_gpu": None,
        "torch_compile_mode": settings.pop("torch_compile_mode", None),
    }
    cfg["algorithm"].pop("torch_compile_mode", None)
    alg = algorithm.construct_algorithm(observations(torch.Generator()), Env(), cfg, "cpu")
    alg.train_mode()
    return alg


def train(alg: Any, iterations: int = 3, seed: int = 1) -> list[dict[str, float]]:
    """Train on random data whose rewards depend on the actions; the data depend on the seed."""
    generator = torch.Generator().manual_seed(seed)
    obs, losses = observations(generator), []
    for iteration in range(iterations):
        # RSL-RL draws numbers in an update that it does not use.
        torch.manual_seed(100 * seed + iteration)
        with torch.inference_mode():
            for _ in range(NUM_STEPS):
                action = alg.act(obs)
                reward = obs["actor"][:, 0] - action.square().sum(dim=-1)
                obs = observations(generator)
                dones = torch.rand(NUM_ENVS, generator=generator) < 0.2
                extras = {"time_outs": dones & (torch.rand(NUM_ENVS, generator=generator) < 0.5)}
                alg.process_env_step(obs, reward, dones.long(), extras)
            alg.compute_returns(obs)
        losses.append(alg.update())
    return losses


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def compare(ours: Any, theirs: Any) -> None:
    close(train(ours), train(theirs))
    assert ours.learning_rate == theirs.learning_rate
    for name in ("actor", "critic"):
        close(getattr(ours, name).state_dict(), getattr(theirs, name).state_dict())
    close(ours.actor.output_std.mean(), theirs.actor.output_std.mean())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"actor": {"activation": "tanh"}},
        {"actor": {"activation": "relu", "obs_normalization": False}},
        {"distribution": {"std_type": "log", "std_range": (0.5, 0.71)}, "learning_rate": 1e-2},
        {"distribution": {"std_range": (0.69, 0.71)}, "schedule": "fixed", "learning_rate": 1e-2},
        {"distribution": {"learn_std": False}, "normalize_advantage_per_mini_batch": True},
        {"use_clipped_value_loss": False, "value_loss_coef": 0.5, "optimizer": "adamw"},
        {"clip_param": 0.01, "num_mini_batches": 5, "schedule": "fixed", "learning_rate": 3e-3},
        {"max_grad_norm": 0.01, "gamma": 0.9, "lam": 0.8, "optimizer": "rmsprop"},
    ],
)
def test_learns_the_same_as_rsl_rl(settings):
    ours = make(PPO, **settings)
    assert ours.fallback_reason is None
    compare(ours, make(RslRlPpo, **settings))


def test_returns_and_advantages_are_those_of_rsl_rl():
    ours, theirs = make(PPO), make(RslRlPpo)
    for alg in (ours, theirs):
        alg.update = dict
        train(alg, iterations=1)
    for name in ("actions", "values", "rewards", "returns", "advantages", "dones"):
        close(getattr(ours.storage, name), getattr(theirs.storage, name))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"actor": {"activation": "swish"}}, "the actor's activation is SiLU"),
        (
            {"actor": {"class_name": "RNNModel", "rnn_type": "gru", "rnn_hidden_dim": 8}},
            "the actor is RNNModel, not MLPModel",
        ),
        (
            {"distribution": {"class_name": "HeteroscedasticGaussianDistribution"}},
            "the actor's distribution is HeteroscedasticGaussianDistribution",
        ),
        ({"use_mixed_precision": True}, "use_mixed_precision is set"),
    ],
)
def test_runs_the_code_of_rsl_rl_for_other_networks(settings, reason):
    ours = make(PPO, **settings)
    assert ours.fallback_reason == reason
    theirs = make(RslRlPpo, **settings)
    assert train(ours) == train(theirs)


def test_compiled_networks_are_those_of_rsl_rl(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, mode: model)
    assert make(PPO, torch_compile_mode="default").fallback_reason == "torch_compile_mode is set"


@pytest.mark.parametrize(("first", "second"), [(PPO, RslRlPpo), (RslRlPpo, PPO), (PPO, PPO)])
def test_continues_checkpoints_of_either(first, second, tmp_path):
    begun = make(first)
    train(begun)
    torch.save(begun.save(), tmp_path / "checkpoint.pt")
    continued = make(second)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    continued.load(checkpoint, None, True)
    assert (continued.optimizer.param_groups[0]["fused"] is True) == (PPO in (first, second))
    close(train(continued, seed=2), train(begun, seed=2))
    close(continued.actor.state_dict(), begun.actor.state_dict())


def test_statistics_of_observations_are_those_of_the_rollouts_that_were_learned_from():
    alg = make(PPO)
    normalizers = (alg.actor.obs_normalizer, alg.critic.obs_normalizer)
    seen: list[TensorDict] = []
    step = alg.process_env_step

    def watched(*args: Any) -> None:
        step(*args)
        # Nothing changes within a rollout.
        assert normalizers[0].count == len(seen) * NUM_ENVS * NUM_STEPS

    alg.process_env_step = watched
    for seed in (1, 2):
        update = alg.update
        alg.update = lambda update=update: (seen.append(alg.storage.observations.clone()), update())
        train(alg, iterations=1, seed=seed)
        alg.update = update
    rows = torch.cat([rollout.flatten(0, 1) for rollout in seen])
    for normalizer, groups in zip(normalizers, (["actor"], ["actor", "critic"]), strict=True):
        x = torch.cat([rows[group] for group in groups], dim=-1)
        close(normalizer.mean, x.mean(dim=0))
        close(normalizer.std, x.std(dim=0, correction=0))


def test_statistics_of_observations_stay_in_evaluation():
    alg = make(PPO)
    alg.eval_mode()
    train(alg, iterations=1)
    assert alg.actor.obs_normalizer.count == 0


def test_actions_stay_what_they_were():
    alg = make(PPO)
    kept = alg.act(observations(torch.Generator()))
    before = kept.clone()
    alg.storage.actions.fill_(float("nan"))
    assert torch.equal(kept, before)


def test_too_long_a_rollout_is_an_error():
    alg = make(PPO)
    obs = observations(torch.Generator())
    with torch.inference_mode():
        for _ in range(NUM_STEPS):
            alg.act(obs)
            alg.process_env_step(obs, torch.zeros(NUM_ENVS), torch.zeros(NUM_ENVS).long(), {})
        with pytest.raises(OverflowError, match="12 steps already"):
            alg.act(obs)


def test_time_outs_of_a_rollout_do_not_stay():
    alg = make(PPO)
    obs = observations(torch.Generator())
    ended = torch.ones(NUM_ENVS, dtype=torch.bool)
    with torch.inference_mode():
        for extras in ({"time_outs": ended}, {}):
            alg.storage.clear()
            for _ in range(NUM_STEPS):
                alg.act(obs)
                alg.process_env_step(obs, torch.zeros(NUM_ENVS), ended.long(), extras)
            alg.compute_returns(obs)
    assert torch.all(alg.storage.returns == 0.0)
