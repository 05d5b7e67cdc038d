"""PPO for the velocity tasks, sized for a CPU."""

from __future__ import annotations

from mjlab_rec.rl import RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


def flat_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For flat ground: small networks, which learn within minutes on a CPU."""
    cfg = _rl_cfg(hidden_dims=(128, 128), max_iterations=300)
    # The adaptive schedule drops to 3e-5 at first, which doubles the time until the robot walks.
    cfg.algorithm.schedule, cfg.algorithm.learning_rate = "fixed", 7e-4
    return cfg


def rough_rl_cfg() -> RslRlOnPolicyRunnerCfg:
    """For rough ground, where the networks also see the height scan."""
    return _rl_cfg(hidden_dims=(256, 128, 64), max_iterations=3000)


def _rl_cfg(hidden_dims: tuple[int, ...], max_iterations: int) -> RslRlOnPolicyRunnerCfg:
    return RslRlOnPolicyRunnerCfg(
        actor=RslRlModelCfg(
            hidden_dims=hidden_dims,
            obs_normalization=True,
            distribution_cfg={
                "class_name": "GaussianDistribution",
                "init_std": 0.5,
                "std_type": "scalar",
            },
        ),
        critic=RslRlModelCfg(hidden_dims=hidden_dims, obs_normalization=True),
        algorithm=RslRlPpoAlgorithmCfg(class_name="mjlab_rec.rl.ppo:PPO"),
        num_steps_per_env=24,
        max_iterations=max_iterations,
    )
