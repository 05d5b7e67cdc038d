"""Small environments and networks of RSL-RL with random weights, for tests of learned policies."""

from __future__ import annotations

import contextlib
import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from worlds import cart_cfg

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg
from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg

NETWORKS = ("mlp", "lstm", "gru")


def picture(env: ManagerBasedRlEnv) -> torch.Tensor:
    """A picture with two channels that depends on where the cart is."""
    position = env.scene["robot"].data.joint_pos[:, 0]
    pixels = torch.linspace(-1.0, 1.0, 2 * 12 * 10).view(1, 2, 12, 10)
    return torch.sin(3.0 * pixels + position.view(-1, 1, 1, 1))


def make_env(num_envs: int = 4, pictures: bool = False, **overrides: Any) -> ManagerBasedRlEnv:
    """The cart, whose episodes end at different steps."""
    cfg = cart_cfg(num_envs, **overrides)
    if pictures:
        eye = ObservationGroupCfg({"eye": ObservationTermCfg(func=picture)})
        cfg.observations = {**cfg.observations, "eye": eye}
    return ManagerBasedRlEnv(cfg)


def learner_cfg(network: str = "mlp", **fields: Any) -> RslRlOnPolicyRunnerCfg:
    """A small actor and a small critic, which see the group of the actor."""
    actor = replace(
        RslRlOnPolicyRunnerCfg().actor,
        hidden_dims=(16, 16),
        obs_normalization=True,
        class_name="MLPModel" if network == "mlp" else "RNNModel",
        rnn_type=None if network == "mlp" else network,
        rnn_hidden_dim=8,
        rnn_num_layers=2,
    )
    chosen = dict(
        num_steps_per_env=4,
        logger="tensorboard",
        obs_groups={"actor": ("actor",), "critic": ("actor",)},
        actor=actor,
        critic=RslRlModelCfg(hidden_dims=(8,)),
        clip_actions=0.1,
    )
    return RslRlOnPolicyRunnerCfg(**{**chosen, **fields})


def make_runner(env: ManagerBasedRlEnv, cfg: RslRlOnPolicyRunnerCfg) -> Any:
    """A runner whose actor has random weights, also in its normalization."""
    from mjlab_rec.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper

    torch.manual_seed(3)
    with contextlib.redirect_stdout(io.StringIO()):
        wrapped = RslRlVecEnvWrapper(env, clip_actions=cfg.clip_actions)
        runner = MjlabOnPolicyRunner(wrapped, asdict(cfg), log_dir=None)
    actor = runner.alg.get_policy()
    with torch.no_grad():
        for parameter in actor.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)  # Otherwise all actions are about 0.
    for _ in range(5):
        actor.update_normalization(
            {group: torch.randn(50, actor.obs_dim) * 2 + 1 for group in actor.obs_groups[:1]}
        )
    return runner


def save(runner: Any, path: Path, **infos: Any) -> Path:
    """Write a checkpoint of a runner, with these infos."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**runner.alg.save(), "iter": 7, "infos": infos}, path)
    return path
