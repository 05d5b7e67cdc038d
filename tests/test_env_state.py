"""The state of an environment: saved to a file and loaded elsewhere, it goes on bit for bit."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_worlds import assert_same
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.state import (
    StateMismatchError,
    changed_settings,
    load_state,
    save_state,
    set_settings,
    settings,
)
from mjlab_rec.managers import EventTermCfg, ManagerTermBase, MetricsTermCfg
from mjlab_rec.registry import load_env_cfg


def through_a_file(env: ManagerBasedRlEnv, folder: Path) -> Any:
    torch.save(save_state(env), folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


def assert_goes_on(cfg: Any, folder: Path, steps: int = 30, before: int = 3) -> None:
    """Compare an environment with another one that gets its state in the middle.

    Args:
        cfg: Makes the cfg.
        folder: For a file.
        steps: Steps before and after that.
        before: Steps that the other one takes before.
    """
    first, second = ManagerBasedRlEnv(cfg()), ManagerBasedRlEnv(cfg())
    size = 2 * steps, first.num_envs, first.action_manager.total_action_dim
    acts = torch.rand(size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first.reset()
    with torch.inference_mode():
        for action in acts[:steps]:
            first.step(action)
    saved = through_a_file(first, folder)
    second.reset(seed=99)
    for action in acts[:before]:
        second.step(action)
    load_state(second, saved)
    assert_same(first.obs_buf, second.obs_buf)
    derived, known = first.sim.get_derived(), second.sim.get_derived()
    assert_same({name: derived[name] for name in known}, known)  # What it has needed so far.
    assert second.sim.data.generation > saved["generation"]
    for action in acts[steps:]:
        ours, theirs = first.step(action), second.step(action)
        assert_same(ours[:4], theirs[:4])
        assert_same({k: float(v) for k, v in ours[4]["log"].items()}, dict(theirs[4]["log"]))
    first.close()
    second.close()


class Moody(ManagerTermBase):
    """A term with state of all kinds."""

    def __init__(self, cfg: Any, env: Any) -> None:
        super().__init__(env)
        self.a = self.b = torch.zeros(env.num_envs)  # One tensor, at first.
        self.generators = {"numpy": np.random.default_rng(3), "python": random.Random(4)}
        self.torch = torch.Generator().manual_seed(5)
        self.past: deque[Any] = deque(maxlen=3)
        self.counts = np.zeros(2)
        self.seen: set[int] = set()

    def __call__(self, env: Any) -> torch.Tensor:
        drawn = self.generators["numpy"].random() + self.generators["python"].random()
        self.a = self.a + drawn
        self.b = self.b + torch.rand(1, generator=self.torch)
        self.counts[0] += 1
        self.past.append((self.a.clone(), int(self.counts[0])))
        if not hasattr(self, "late"):
            self.late = torch.tensor(float(env.common_step_counter))
        self.seen.add(int(self.counts[0]) % 7)
        return self.a + 2 * self.b + self.past[0][1] + self.late + len(self.seen)


def moody_cfg() -> ManagerBasedRlEnvCfg:
    cfg = cart_cfg()
    cfg.metrics["moody"] = MetricsTermCfg(func=Moody)
    return cfg


@pytest.mark.parametrize("cfg", [cart_cfg, moody_cfg])
@pytest.mark.parametrize("before", [0, 3])
def test_another_environment_goes_on_bit_for_bit(tmp_path: Path, cfg: Any, before: int):
    assert_goes_on(cfg, tmp_path, before=before)


@pytest.mark.parametrize("task", ["velocity-flat-quadruped", "velocity-rough-quadruped"])
def test_a_new_environment_of_a_real_task_goes_on_bit_for_bit(tmp_path: Path, task: str):
    def cfg() -> ManagerBasedRlEnvCfg:
        made = load_env_cfg(task)
        made.scene.num_envs, made.seed = 3, 1
        return made

    assert_goes_on(cfg, tmp_path, before=0)


def test_randomized_model_fields_go_on_too(tmp_path: Path):
    from mjlab_rec.envs import mdp
    from mjlab_rec.managers import SceneEntityCfg

    def cfg() -> ManagerBasedRlEnvCfg:
        made = cart_cfg()
        scaled = {"ranges": (0.5, 1.5), "operation": "scale"}
        made.events["mass"] = EventTermCfg(
            func=mdp.dr.body_mass,
            mode="startup",
            params={**scaled, "asset_cfg": SceneEntityCfg("robot", body_names=(".*",))},
        )
        made.events["friction"] = EventTermCfg(
            func=mdp.dr.geom_friction,
            mode="reset",
            params={**scaled, "asset_cfg": SceneEntityCfg("robot", geom_names=(".*",))},
        )
        return made

    assert_goes_on(cfg, tmp_path)


def test_quantities_that_lag_behind_the_state_are_kept(tmp_path: Path):
    # Without a forward pass after each step, observations of bodies are a physics step old.
    assert_goes_on(lambda: cart_cfg(forward_after_step=False), tmp_path)


def test_the_state_of_another_environment_is_refused_and_nothing_changes():
    env, other = ManagerBasedRlEnv(cart_cfg()), ManagerBasedRlEnv(moody_cfg())
    few = ManagerBasedRlEnv(cart_cfg(num_envs=2, steps=(3, 4)))
    for each in (env, other, few):
        each.reset()
    before = env.sim.get_state()
    with pytest.raises(StateMismatchError, match="num_envs is 4 here and 2 there"):
        load_state(env, save_state(few))
    with pytest.raises(StateMismatchError, match="moody.* other parts are missing here"):
        load_state(env, save_state(other))
    assert torch.equal(before, env.sim.get_state())
    for each in (env, other, few):
        each.close()


def test_settings_that_changed_can_be_set_elsewhere():
    env, other = (
        ManagerBasedRlEnv(cart_cfg()),
        ManagerBasedRlEnv(cart_cfg(num_envs=2, steps=(3, 4))),
    )
    before = settings(env)
    assert changed_settings(env, before) == {}
    env.reward_manager.get_term_cfg("height").weight = 7.5
    env.command_manager.get_term("goal").cfg.resampling_time_range = (0.3, 0.4)
    changed = changed_settings(env, before)
    assert sorted(changed.values(), key=str) == [(0.3, 0.4), 7.5]
    assert set_settings(other, {**changed, "env.reward_manager._terms['x'].weight": 1.0}) == [
        "env.reward_manager._terms['x'].weight"
    ]
    assert other.reward_manager.get_term_cfg("height").weight == 7.5
    assert other.command_manager.get_term("goal").cfg.resampling_time_range == (0.3, 0.4)
    env.close()
    other.close()
