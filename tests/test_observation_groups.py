"""Observations asked for outside of a step: after a reset of the manager, and of one group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mdp_worlds import make_env

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import (
    CurriculumTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.utils.noise import NoiseModelWithAdditiveBiasCfg, UniformNoiseCfg


def height(env: ManagerBasedRlEnv) -> torch.Tensor:
    return env.sim.data.qpos[:, 2:3].clone()


def observed(**term: Any) -> ObservationGroupCfg:
    return ObservationGroupCfg(
        {"height": ObservationTermCfg(func=height, **term)}, enable_corruption=True
    )


@pytest.fixture
def env() -> ManagerBasedRlEnv:
    env = make_env(
        observations={
            "now": observed(),
            "history": observed(history_length=3),
            "late": observed(delay_min_lag=2, delay_max_lag=2),
            "noisy": observed(noise=UniformNoiseCfg(n_min=-1.0, n_max=1.0)),
            "biased": observed(
                noise=NoiseModelWithAdditiveBiasCfg(
                    noise_cfg=UniformNoiseCfg(n_min=-0.1, n_max=0.1),
                    bias_noise_cfg=UniformNoiseCfg(n_min=-1.0, n_max=1.0),
                )
            ),
        }
    )
    for _ in range(4):
        env.step(torch.zeros(4, 0))
    return env


def copied(obs: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in obs.items()}


def test_after_a_reset_the_observation_is_that_of_the_new_episode(env: ManagerBasedRlEnv) -> None:
    manager, before = env.observation_manager, copied(env.obs_buf)
    env.sim.data.qpos[:, 2] = 7.0
    assert manager.compute() is env.obs_buf
    manager.reset(torch.tensor([1, 3]))
    obs = manager.compute()
    for name, value in (("now", 7.0), ("history", 0.0), ("late", 7.0)):
        assert (obs[name][[1, 3]] == value).all()
        assert torch.equal(obs[name][[0, 2]], before[name][[0, 2]])
    assert manager.compute() is obs


def test_asking_in_between_changes_no_later_bit(env: ManagerBasedRlEnv) -> None:
    state, manager = env.sim.get_state(), env.observation_manager

    def go_on(ask: bool) -> list[dict[str, torch.Tensor]]:
        env.sim.set_state(state)
        env.rng.seed(3)
        manager.reset()
        seen = [copied(manager.compute(update_history=True))]
        for step in range(4):
            env.sim.data.qpos[:, 2] = float(step)
            seen.append({"draw": env.rng.uniform(0.0, 1.0, (4,))})
            if step == 2:
                manager.reset(torch.tensor([0]))
            if ask:
                manager.compute()
                for name in ("now", "history", "late", "noisy", "biased"):
                    manager.compute_group(name)
            ids = torch.tensor([0]) if step == 2 else None
            seen.append(copied(manager.compute(update_history=True, env_ids=ids)))
        return seen

    for quiet, asked in zip(go_on(False), go_on(True), strict=True):
        assert all(torch.equal(quiet[name], asked[name]) for name in quiet)


def test_other_environments_stay_to_be_refreshed(env: ManagerBasedRlEnv) -> None:
    manager = env.observation_manager
    env.sim.data.qpos[:, 2] = 7.0
    manager.reset(torch.tensor([0]))
    manager.reset(torch.tensor([1]))
    manager.compute(update_history=True, env_ids=torch.tensor([1]))
    env.sim.data.qpos[:, 2] = 8.0
    assert manager.compute()["now"][:2].flatten().tolist() == [8.0, 7.0]


def test_one_group_anew(env: ManagerBasedRlEnv) -> None:
    manager, before = env.observation_manager, copied(env.obs_buf)
    env.sim.data.qpos[:, 2] = 7.0
    assert (manager.compute_group("now") == 7.0).all()
    assert torch.equal(manager.compute_group("history"), before["history"])
    assert torch.equal(manager.compute_group("late"), before["late"])
    manager.reset(torch.tensor([2]))
    assert (manager.compute_group("history")[2] == 0.0).all()
    assert (manager.compute_group("late")[2] == 7.0).all()
    assert torch.equal(manager.compute_group("history")[:2], before["history"][:2])
    advanced = manager.compute_group("history", update_history=True)
    assert torch.equal(advanced[:2, :2], before["history"][:2, 1:]) and (advanced[:, 2] == 7).all()
    assert torch.equal(manager.compute()["now"][:2], before["now"][:2])
    with pytest.raises(KeyError, match="observation group term 'histroy'. Did you mean 'history'"):
        manager.compute_group("histroy")


def test_curricula_return_tensors() -> None:
    rewards = {"alive": RewardTermCfg(func=mdp.is_alive, weight=1.0)}
    terminations = {
        "low": TerminationTermCfg(
            func=mdp.root_height_below_minimum, params={"minimum_height": 0.0}
        )
    }
    stages = [{"step": 0, "weight": 2.0}, {"step": 9, "weight": 3.0}]
    ends = [{"step": 0, "params": {"minimum_height": 0.5}, "time_out": True}]
    env = make_env(
        rewards=rewards,
        terminations=terminations,
        curriculum={
            "weight": CurriculumTermCfg(
                func=mdp.reward_curriculum, params={"reward_name": "alive", "stages": stages}
            ),
            "height": CurriculumTermCfg(
                func=mdp.termination_curriculum,
                params={"termination_name": "low", "stages": ends},
            ),
        },
    )
    log = env.reset()[1]["log"]
    found = {key: value for key, value in log.items() if key.startswith("Curriculum/")}
    assert all(isinstance(value, torch.Tensor) and value.ndim == 0 for value in found.values())
    assert {key: value.item() for key, value in found.items()} == {
        "Curriculum/weight/weight": 2.0,
        "Curriculum/height/minimum_height": 0.5,
        "Curriculum/height/time_out": True,
    }
