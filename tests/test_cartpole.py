"""The cartpole tasks have dm_control's physics and reward, and start where they should."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import pytest
import torch

import tasks.cartpole
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg


def make(task: str, num_envs: int) -> ManagerBasedRlEnv:
    cfg = load_env_cfg(task)
    cfg.scene.num_envs = num_envs
    cfg.seed = 1
    return ManagerBasedRlEnv(cfg, device="cpu")


def bell(x: torch.Tensor, margin: float) -> torch.Tensor:
    """Gaussian that is 1 at 0 and 0.1 at the margin."""
    return torch.exp(-0.5 * (x / margin * math.sqrt(-2 * math.log(0.1))) ** 2)


def dm_control_reward(qpos, qvel, action) -> torch.Tensor:
    """The reward as the product of the four factors that dm_control's cartpole defines."""
    upright = (torch.cos(qpos[:, 1]) + 1) / 2
    centred = (1 + bell(qpos[:, 0], margin=2.0)) / 2
    gentle = (4 + torch.clamp(1 - action[:, 0] ** 2, min=0.0)) / 5
    slow = (1 + bell(qvel[:, 1], margin=5.0)) / 2
    return upright * centred * gentle * slow


def test_model_has_the_figures_of_dm_control():
    path = Path(tasks.cartpole.__file__).parent / "cartpole.xml"
    model = mujoco.MjModel.from_xml_path(str(path))
    assert (model.body("cart").mass[0], model.body("pole").mass[0]) == (1.0, 0.1)
    assert tuple(model.joint("slider").range) == (-1.8, 1.8)
    assert tuple(model.dof_damping) == (5e-4, 2e-6)
    assert model.actuator("push").gear[0] == 10
    assert tuple(model.actuator("push").ctrlrange) == (-1.0, 1.0)
    length, radius = 2 * model.geom("pole").size[1], model.geom("pole").size[0]
    assert (length, radius) == (1.0, 0.045)


@pytest.mark.parametrize("task", ["cartpole-balance", "cartpole-swingup"])
def test_reward_is_the_product_of_dm_controls_factors(task):
    generator = torch.Generator().manual_seed(0)
    with make(task, 8) as env:
        env.reset()
        for _ in range(30):
            # Beyond the control range too, where the control factor is at its floor.
            action = torch.rand(8, 1, generator=generator) * 3 - 1.5
            _, reward, *_ = env.step(action)
            qpos, qvel = env.sim.data.qpos.clone(), env.sim.data.qvel.clone()
            expected = dm_control_reward(qpos, qvel, action) * env.step_dt
            torch.testing.assert_close(reward, expected)


def test_observation_is_position_cos_sin_and_velocities():
    with make("cartpole-balance", 4) as env:
        env.reset()
        obs, *_ = env.step(torch.full((4, 1), 0.5))
        (x, angle), (dx, spin) = env.sim.data.qpos.T, env.sim.data.qvel.T
        expected = torch.stack((x, angle.cos(), angle.sin(), dx, spin), dim=1)
        torch.testing.assert_close(obs["actor"], expected)
        torch.testing.assert_close(obs["critic"], expected)


@pytest.mark.parametrize(
    ("task", "angle", "spread"),
    [("cartpole-balance", 0.0, 0.1), ("cartpole-swingup", math.pi, 0.0)],
)
def test_episodes_start_near_rest_and_each_elsewhere(task, angle, spread):
    with make(task, 64) as env:
        env.reset()
        cart, pole = env.sim.data.qpos.T
        assert cart.abs().max() <= spread and (pole - angle).abs().max() <= 0.034
        assert env.sim.data.qvel.abs().max() <= 0.01
        assert pole.std() > 0.01


def test_episode_is_cut_after_fifty_seconds():
    with make("cartpole-balance", 2) as env:
        env.reset()
        assert env.max_episode_length == 1000
        env.episode_length_buf[0] = 999
        _, _, terminated, truncated, _ = env.step(torch.zeros(2, 1))
        assert truncated.tolist() == [True, False] and not terminated.any()


def test_pushing_right_moves_the_cart_right():
    with make("cartpole-balance", 1) as env:
        before = env.reset()[0]["actor"][0, 0].item()
        for _ in range(5):
            obs, *_ = env.step(torch.ones(1, 1))
        # Ten newtons on 1.1 kg for a quarter of a second: about 0.28 m.
        assert 0.2 < obs["actor"][0, 0].item() - before < 0.4
