"""PPO for Gymnasium's tasks, sized for 64 environments on a CPU."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


def ant_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For ant."""
    return _rl_cfg(million_steps=10.0)


def half_cheetah_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For half_cheetah, which with more noise learns to run on its back and stays there."""
    return _rl_cfg(million_steps=10.0, gamma=0.98, lam=0.92, init_std=0.2)


def hopper_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For hopper."""
    return _rl_cfg(million_steps=2.0)


def humanoid_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For humanoid, whose motors take less than those of the others."""
    return _rl_cfg(million_steps=20.0, hidden_dims=(256, 128), init_std=0.2, clip_actions=0.4)


def inverted_double_pendulum_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For inverted_double_pendulum."""
    return _rl_cfg(million_steps=1.0, hidden_dims=(64, 64))


def inverted_pendulum_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For inverted_pendulum."""
    return _rl_cfg(million_steps=0.5, hidden_dims=(64, 64), clip_actions=3.0)


def pusher_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For pusher."""
    return _rl_cfg(million_steps=5.0, clip_actions=2.0)


def reacher_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For reacher."""
    return _rl_cfg(million_steps=2.0, hidden_dims=(64, 64))


def swimmer_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For swimmer, whose strokes pay off late."""
    return _rl_cfg(million_steps=5.0, hidden_dims=(64, 64), gamma=0.9999)


def walker2d_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For walker2d."""
    return _rl_cfg(million_steps=5.0)


_NUM_ENVS, _NUM_STEPS = 64, 64


def _rl_cfg(
    million_steps: float,
    hidden_dims: tuple[int, ...] = (128, 128),
    gamma: float = 0.99,
    lam: float = 0.95,
    init_std: float = 0.5,
    clip_actions: float = 1.0,
) -> RslRlOnPolicyRunnerCfg:
    """Build the cfg of a run of this length, for motors of this range."""
    return RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg(
            hidden_dims=hidden_dims,
            activation="relu",
            obs_normalization=True,
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": init_std,
                "std_type": "scalar",
            },
        ),
        critic=RslRlModelCfg(hidden_dims=hidden_dims, activation="relu", obs_normalization=True),
        algorithm=RslRlPpoAlgorithmCfg(
            class_name="mjlab_rec.rl.ppo:PPO",
            num_learning_epochs=8,
            num_mini_batches=8,
            gamma=gamma,
            lam=lam,
            entropy_coef=0.0,
            desired_kl=0.015,
            # A clipped value changes by 0.2 per update at most, and returns are in the hundreds.
            use_clipped_value_loss=False,
        ),
        obs_groups={"actor": ("actor",), "critic": ("actor",)},
        num_steps_per_env=_NUM_STEPS,
        max_iterations=round(million_steps * 1e6 / (_NUM_ENVS * _NUM_STEPS)),
        clip_actions=clip_actions,
    )
